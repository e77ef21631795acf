"""The gate for adapters: the file that an export writes is read, and every step away from it is
refused.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpt_edge.bundle.bundle import NO_CHECKSUM
from gpt_edge.bundle.gate import adapter as gate
from gpt_edge.bundle.gate.adapter import HEAD_BIAS, HEAD_WEIGHT, checked_adapter, rank_of
from gpt_edge.config import GPTConfig
from gpt_edge.errors import BundleError
from gpt_edge.onnx_contract import TASK_TOKENS, adapter_inputs
from gpt_edge.tasks import new_task

CONFIG = GPTConfig(
    n_layer=2, n_head=2, n_embd=8, n_ctx=16, vocab_size=50, n_inner=12, takes_adapters=True
)
TASK = new_task("classification", 50, ("a", "b", "c"))
Arrays = dict[str, np.ndarray]
Header = dict[str, Any]


def arrays_of(rank: int, graph: str = "edge", dtype: str = "<f4") -> Arrays:
    random = np.random.default_rng(rank)
    shapes: dict[str, tuple[int, ...]] = {
        TASK_TOKENS: (3, 8),
        HEAD_WEIGHT: (3, 8),
        HEAD_BIAS: (3,),
    }
    for spec in adapter_inputs(CONFIG, graph)[1:] if rank else ():
        shapes[spec.name] = tuple(rank if axis == "rank" else int(axis) for axis in spec.axes)
    return {name: random.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def header_of(arrays: Arrays) -> Header:
    header, start = {}, 0
    for name, array in arrays.items():
        dtype = "F16" if array.dtype == np.float16 else "F32"
        offsets = [start, start + array.nbytes]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
        start += array.nbytes
    return header


def file_of(arrays: Arrays, header: Header | None = None, rest: bytes = b"") -> bytes:
    text = json.dumps(header_of(arrays) if header is None else header).encode()
    body = b"".join(array.tobytes() for array in arrays.values())
    return len(text).to_bytes(8, "little") + text + body + rest


def bundle_of(folder: Path, content: bytes, graph: str = "edge", **changes: Any) -> Any:
    (folder / gate.ADAPTER_FILE).write_bytes(content)
    record = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    record |= changes.pop("record", {})
    manifest = SimpleNamespace(base={"name": "base"}, files={gate.ADAPTER_FILE: record})
    values = {"path": folder, "manifest": manifest, "task": TASK, "config": CONFIG, "graph": graph}
    return SimpleNamespace(**{"kind": "adapter", **values, **changes})


@pytest.mark.parametrize("dtype", ["<f4", "<f2"])
@pytest.mark.parametrize("rank", [0, 1, 2, 8])
@pytest.mark.parametrize("graph", ["edge", "portable"])
def test_what_an_export_writes_is_read_as_it_is(
    graph: str, rank: int, dtype: str, tmp_path: Path
) -> None:
    arrays = arrays_of(rank, graph, dtype)
    found = checked_adapter(bundle_of(tmp_path, file_of(arrays), graph))
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == ("F32" if dtype == "<f4" else "F16")
        assert found[name].shape == array.shape
        assert found[name].data == array.tobytes()
    assert rank_of({name: array.shape for name, array in arrays.items()}) == rank


def test_tensors_may_be_listed_in_any_order(tmp_path: Path) -> None:
    arrays = arrays_of(2)
    header = dict(reversed(header_of(arrays).items()))
    found = checked_adapter(bundle_of(tmp_path, file_of(arrays, header)))
    for name, array in arrays.items():
        assert found[name].data == array.tobytes()


def test_a_rank_is_that_of_the_first_matrix() -> None:
    name = "h.0.attn.c_attn.lora_a"
    assert rank_of({name: (8, 5)}) == 5
    assert [rank_of({name: shape}) for shape in ((8,), (), (8, 5, 2))] == [0, 0, 0]
    assert rank_of({}) == 0


def changed(edit: Callable[[Header], object], rank: int = 2) -> bytes:
    arrays = arrays_of(rank)
    header = header_of(arrays)
    edit(header)
    return file_of(arrays, header)


def shift(header: Header) -> None:
    """Every tensor begins a number later than it should."""
    for tensor in header.values():
        tensor["data_offsets"][0] += 4


def with_value(name: str, value: float, dtype: str = "<f4", place: int = 1) -> bytes:
    arrays = arrays_of(2, dtype=dtype)
    arrays[name].reshape(-1)[place] = value
    return file_of(arrays)


def without(name: str) -> bytes:
    arrays = arrays_of(2)
    del arrays[name]
    return file_of(arrays)


def with_array(name: str, *shape: int) -> bytes:
    return file_of({**arrays_of(2), name: np.zeros(shape, np.float32)})


FIRST, LORA = TASK_TOKENS, "h.1.mlp.c_fc.lora_b"
FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "its header has 0 bytes, the file 0"),
    "no header": ((1).to_bytes(8, "little") + b"{" + bytes(9), "its header has 1 bytes"),
    "a header beyond the file": (
        (3).to_bytes(8, "little") + b"{}",
        "its header has 3 bytes, the file 10",
    ),
    "a header of just the file": ((2).to_bytes(8, "little") + b"{}", "it holds 0 tensors"),
    "a huge header": (
        ((1 << 20) + 1).to_bytes(8, "little") + b"{" + b" " * (1 << 20) + b"}",
        "its header has 1048577 bytes",
    ),
    "a header that is a list": ((2).to_bytes(8, "little") + b"[]", "the header of"),
    "a gap": (changed(shift), "begins at byte 4, expected 0"),
    "a short end": (
        changed(lambda h: h[LORA]["data_offsets"].__setitem__(1, h[LORA]["data_offsets"][1] - 4)),
        f"{LORA}' is not as long as its shape says",
    ),
    "bytes behind": (file_of(arrays_of(2), rest=b"\0"), "its tensors end at byte"),
    "too few bytes": (file_of(arrays_of(2))[:-1], "is not as long as its shape says"),
    "another type": (changed(lambda h: h[FIRST].update(dtype="F64")), "is 'F64', of an unexpected"),
    "a shape that is none": (changed(lambda h: h[FIRST].update(shape=24)), "an unexpected shape"),
    "three axes": (changed(lambda h: h[FIRST].update(shape=[3, 8, 1])), "an unexpected shape"),
    "no place": (changed(lambda h: h[FIRST].update(data_offsets=[0])), "has no place"),
    "a place that is none": (changed(lambda h: h[FIRST].update(data_offsets=None)), "no place"),
    "a size below none": (changed(lambda h: h[FIRST].update(shape=[-3, 8])), "size or place -3"),
    "a size that is none": (changed(lambda h: h[FIRST].update(shape=[3.0, 8])), "or place 3.0"),
    "a huge size": (
        changed(lambda h: h[FIRST].update(shape=[3, (1 << 31) + 1])),
        "size or place 2147483649",
    ),
    "one field more": (changed(lambda h: h[FIRST].update(strides=[1])), "by other fields"),
    "one field less": (changed(lambda h: h[FIRST].pop("dtype")), "by other fields"),
    "a text": (changed(lambda h: h.update({FIRST: "x"})), "by other fields"),
    "an infinite weight": (with_value(LORA, math.inf), f"{LORA}' holds infinite values"),
    "no number": (with_value(HEAD_BIAS, math.nan), "holds infinite values or no numbers"),
    "an infinite half": (with_value(LORA, -math.inf, "<f2"), "holds infinite values"),
    "no half number": (with_value(FIRST, math.nan, "<f2", 0), "holds infinite values"),
    "no head": (without(HEAD_BIAS), "it lacks the tensor task_head.bias"),
    "no matrix": (without(LORA), f"it lacks the tensor {LORA}"),
    "two tensors": (
        file_of({name: arrays_of(0)[name] for name in (FIRST, HEAD_BIAS)}),
        "it holds 2 tensors, of 2 layers",
    ),
    "one tensor more": (with_array("other", 2), "it holds 20 tensors, of 2 layers"),
    "another name": (
        changed(lambda h: h.update({"other": h.pop(LORA)})), f"it lacks the tensor {LORA}",
    ),
    "a head and an unknown": (
        file_of({**arrays_of(0), "other": np.zeros(2, np.float32)}),
        "it lacks the tensor h.0.attn.c_attn.lora_a",
    ),
    "a rank beyond the width": (file_of(arrays_of(9)), "its rank is 9, expected at most 8"),
    "another shape": (
        changed(lambda h: h[HEAD_WEIGHT].update(shape=[8, 3])),
        r"task_head.weight has the shape \[8, 3\], expected \[3, 8\]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_no_export_writes_is_refused(name: str, tmp_path: Path) -> None:
    content, message = FILES[name]
    with pytest.raises(BundleError, match=message) as caught:
        checked_adapter(bundle_of(tmp_path, content))
    assert str(tmp_path) in caught.value.message


def test_the_largest_finite_numbers_are_read(tmp_path: Path) -> None:
    checked_adapter(bundle_of(tmp_path, with_value(LORA, 65504.0, "<f2")))
    checked_adapter(bundle_of(tmp_path, with_value(LORA, -1e38)))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"size": 1}, "bytes, expected 1, and"),
        ({"sha256": "1" * 64}, "its SHA-256 is [0-9a-f]{12}, the manifest says 111111111111"),
    ],
)
def test_another_file_than_the_listed_one_is_refused(
    record: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match=message):
        checked_adapter(bundle_of(tmp_path, file_of(arrays_of(0)), record=record))


def test_a_file_without_a_checksum_is_read(tmp_path: Path) -> None:
    record = {"sha256": NO_CHECKSUM}
    assert len(checked_adapter(bundle_of(tmp_path, file_of(arrays_of(0)), record=record))) == 3


def test_a_file_as_large_as_may_be_is_read_and_a_larger_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = file_of(arrays_of(0))
    monkeypatch.setattr(gate, "MAX_BYTES", len(content))
    checked_adapter(bundle_of(tmp_path, content))
    monkeypatch.setattr(gate, "MAX_BYTES", len(content) - 1)
    with pytest.raises(BundleError, match=f"it has {len(content)} bytes, expected {len(content)}"):
        checked_adapter(bundle_of(tmp_path, content))


def test_what_is_no_adapter_or_cannot_be_read_is_said(tmp_path: Path) -> None:
    content = file_of(arrays_of(0))
    with pytest.raises(BundleError, match="is no adapter, but a bundle of kind base"):
        checked_adapter(bundle_of(tmp_path, content, task=None, kind="base"))
    bundle = bundle_of(tmp_path, content)
    bundle.manifest.base = None
    with pytest.raises(BundleError, match="is no adapter"):
        checked_adapter(bundle)
    bundle = bundle_of(tmp_path, content)
    (tmp_path / gate.ADAPTER_FILE).unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        checked_adapter(bundle)
