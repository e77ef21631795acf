"""Which graphs multiply 8-bit numbers as integers, and what else a file may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt_edge.bundle.integer_products import has_integer_products, has_signed_weights
from gpt_edge.runtime.ort_session import MODEL, cause_of


def field(number: int, content: bytes) -> bytes:
    """A field of bytes, as protobuf writes it."""
    size = len(content)
    varint = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    return (
        bytes([number << 3 & 127 | 2 | (128 if number > 15 else 0)])
        + (bytes([number >> 4]) if number > 15 else b"")
        + varint
        + content
    )


def test_a_product_is_found_in_nodes_subgraphs_and_functions() -> None:
    assert has_integer_products(MODEL)
    product = field(1, field(4, b"MatMulIntegerToFloat"))
    branch = field(1, field(4, b"If") + field(5, field(6, product)))
    assert has_integer_products(field(7, branch))
    assert has_integer_products(field(25, product))


def test_dequantized_weights_and_names_outside_nodes_are_none() -> None:
    node = field(1, field(4, b"DequantizeLinear"))
    initializer = field(5, field(8, b"MatMulInteger_weight"))
    assert not has_integer_products(field(7, node + initializer))


def test_signed_weights_are_found_by_their_type(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for kind, expected in ((2, False), (3, True)):
        path.write_bytes(field(7, field(5, bytes([2 << 3, kind]) + field(8, b"weight"))))
        assert has_signed_weights(path) is expected


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, MODEL[:-40]])
def test_what_is_no_model_has_none_or_is_read_as_far_as_it_goes(
    content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert has_integer_products(path) is False
    assert has_integer_products(content) is False
    assert has_integer_products(tmp_path / "missing.onnx") is False


def test_an_engines_message_keeps_its_end_where_the_cause_is() -> None:
    path = "/onnxruntime_src/onnxruntime/core/providers/cpu/quantization/quantize_linear.cc:38 "
    error = RuntimeError("Non-zero status code\n" + path * 5 + "x_zero_point must be null\n")
    text = cause_of(error)
    assert len(text) <= 303
    assert text.startswith("...")
    assert text.endswith("x_zero_point must be null")
    assert cause_of(RuntimeError("short\nand plain")) == "short and plain"
    assert cause_of(RuntimeError()) == "RuntimeError"
