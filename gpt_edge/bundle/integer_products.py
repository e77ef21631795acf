"""Does a graph multiply 8-bit numbers as integers? Such products of signed weights saturate in
onnxruntime on x86 CPUs without VNNI.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from gpt_edge.bundle.onnx_wire import fields

# numbers of fields in onnx.proto3
MODEL_GRAPH, MODEL_FUNCTIONS, GRAPH_NODE, GRAPH_INITIALIZER, TENSOR_TYPE = 7, 25, 1, 5, 2
INT8 = 3  # onnx.TensorProto.DataType
# Parts of operators' names. A graph that quantizes its activations beside quantized weights is one
# too: onnxruntime fuses such products. One that only dequantizes weights multiplies floats, or
# MatMulNBits, which is exact on every CPU.
NAMES = (
    b"MatMulInteger",
    b"ConvInteger",
    b"QuantizeLinear",
    b"DynamicQuantize",
    b"QLinear",
    b"QGemm",
    b"QAttention",
)


def has_integer_products(model: Path | bytes) -> bool:
    """Whether a graph may multiply 8-bit numbers as integers. Reads the nodes, subgraphs included,
    and skips the weights.

    A name that only looks like one is counted. A file that is no model, or cannot be read, has
    none: onnxruntime says what is wrong with it.
    """
    try:
        content = model if isinstance(model, bytes) else _mapped(model)
        return any(map(_names_one, _nodes(memoryview(content))))
    except (OSError, ValueError):
        return False


def has_signed_weights(model: Path) -> bool:
    """Whether an initializer is int8. Integer products with one saturate in an onnxruntime session
    that does not ask for `session.x64quantprecision`; gpt-edge's does.
    """
    try:
        return any(
            number == TENSOR_TYPE and value == INT8
            for tensor in _parts(memoryview(_mapped(model)), GRAPH_INITIALIZER)
            for number, value, _ in fields(tensor)
        )
    except (OSError, ValueError):
        return False


def _mapped(path: Path) -> mmap.mmap:
    """The file in memory; given back when nothing reads it any more."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _nodes(model: memoryview) -> Iterator[bytes]:
    """Each node of the graph, and each of the model's own functions."""
    yield from map(bytes, _parts(model, GRAPH_NODE))
    for number, value, _ in fields(model):
        if number == MODEL_FUNCTIONS and isinstance(value, memoryview):
            yield bytes(value)


def _parts(model: memoryview, wanted: int) -> Iterator[memoryview]:
    """The graph's fields of that number."""
    for number, value, _ in fields(model):
        if number != MODEL_GRAPH or not isinstance(value, memoryview):
            continue
        for kind, part, _ in fields(value):
            if kind == wanted and isinstance(part, memoryview):
                yield part


def _names_one(node: bytes) -> bool:
    return any(name in node for name in NAMES)
