"""The gate for adapters: a safetensors file whose tensors are those that its base reads, of the
shapes that the config says, finite, one behind the other without a gap.

Source of the format: github.com/huggingface/safetensors. Eight bytes of the header's length, a JSON
header, the data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gpt_edge.bundle.bundle import NO_CHECKSUM, Bundle
from gpt_edge.bundle.gate.limits import GateError, shown
from gpt_edge.bundle.gate.tensors import check_floats
from gpt_edge.bundle.manifest import ADAPTER_FILE, FileRecord, load_json_object
from gpt_edge.config import GPTConfig
from gpt_edge.errors import BundleError
from gpt_edge.onnx_contract import TASK_TOKENS, adapter_inputs, lora_a
from gpt_edge.system.disk import FolderReader
from gpt_edge.tasks import N_NEW_TOKENS, TaskSpec

HEAD_WEIGHT, HEAD_BIAS = "task_head.weight", "task_head.bias"  # [n_label, C], [n_label]
HINT = "do not use it; export it again with gpt-edge export --base"
MAX_HEADER_BYTES = 1 << 20
MAX_BYTES = 1 << 31
PER_LAYER = 8  # two matrices beside each of a layer's four
ITEM_BYTES = {"F32": 4, "F16": 2}
# the last bytes of a float16 but those of infinities and of what is no number
FINITE_HALF = bytes(byte for byte in range(256) if byte & 0x7C != 0x7C)


@dataclass(frozen=True, slots=True)
class StoredArray:
    """dtype: "F32" or "F16"; data: little-endian, as many bytes as the shape takes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def checked_adapter(bundle: Bundle) -> dict[str, StoredArray]:
    """Every tensor of an adapter by name: TASK_TOKENS [3, C], the head's two, and, unless its rank
    is 0, the matrices of `onnx_contract.adapter_inputs`.

    Raises BundleError for a file that is not what an export writes.
    """
    path = bundle.path / ADAPTER_FILE
    if bundle.manifest.base is None or bundle.task is None:
        raise BundleError(
            f"{bundle.path} is no adapter, but a bundle of kind {bundle.kind}",
            hint="give a folder that gpt-edge export --base wrote",
        )
    try:
        with FolderReader(bundle.path) as folder, folder.open(ADAPTER_FILE) as stream:
            data = stream.read(MAX_BYTES + 1)
        _check_record(data, bundle.manifest.files[ADAPTER_FILE])
        arrays = _parsed(data, path, bundle.config)
        _check_shapes(arrays, bundle.config, bundle.graph, bundle.task)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise BundleError(f"gpt-edge cannot load {path}: {error}", hint=HINT) from error
    return arrays


def _check_record(data: bytes, listed: FileRecord) -> None:
    """Raise GateError for another file than the one that was hashed when the bundle was opened."""
    if len(data) != listed["size"] or len(data) > MAX_BYTES:
        raise GateError(
            f"it has {len(data)} bytes, expected {listed['size']}, and {MAX_BYTES} at most"
        )
    found = hashlib.sha256(data).hexdigest()
    if listed["sha256"] not in (NO_CHECKSUM, found):
        raise GateError(f"its SHA-256 is {found[:12]}, the manifest says {listed['sha256'][:12]}")


def rank_of(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The rank of an adapter's matrices, by their shapes; 0 where it has none."""
    first = shapes.get(lora_a(0, "attn.c_attn"), ())
    return first[1] if len(first) == 2 else 0


def _parsed(data: bytes, path: Path, config: GPTConfig) -> dict[str, StoredArray]:
    n_header = int.from_bytes(data[:8], "little")
    if not 2 <= n_header <= min(MAX_HEADER_BYTES, len(data) - 8):
        raise GateError(f"its header has {n_header} bytes, the file {len(data)}")
    header = load_json_object(data[8 : 8 + n_header], f"the header of {path}")
    if not 3 <= len(header) <= 3 + PER_LAYER * config.n_layer:
        raise GateError(f"it holds {len(header)} tensors, of {config.n_layer} layers")
    body = memoryview(data)[8 + n_header :]
    entries = sorted((_entry(name, value) for name, value in header.items()), key=lambda e: e[3])
    arrays, end = {}, 0
    for name, dtype, shape, start in entries:
        if start != end:
            raise GateError(f"the tensor {shown(name)} begins at byte {start}, expected {end}")
        n_items = 1
        for size in shape:
            n_items *= size
        end = start + n_items * ITEM_BYTES[dtype]
        if end > len(body) or header[name]["data_offsets"][1] != end:
            raise GateError(f"the tensor {shown(name)} is not as long as its shape says")
        arrays[name] = StoredArray(dtype, shape, bytes(body[start:end]))
        _check_finite(name, arrays[name])
    if end != len(body):
        raise GateError(f"its tensors end at byte {end}, its data at {len(body)}")
    return arrays


def _entry(name: str, value: object) -> tuple[str, str, tuple[int, ...], int]:
    """Name, dtype, shape and first byte of a tensor, as the header has them."""
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise GateError(f"the tensor {shown(name)} is described by other fields than exports write")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if dtype not in ITEM_BYTES or not isinstance(shape, list) or len(shape) > 2:
        raise GateError(f"the tensor {shown(name)} is {shown(dtype)}, of an unexpected shape")
    if not isinstance(offsets, list) or len(offsets) != 2:
        raise GateError(f"the tensor {shown(name)} has no place")
    for number in (*shape, *offsets):
        if type(number) is not int or not 0 <= number <= MAX_BYTES:
            raise GateError(f"the tensor {shown(name)} has the size or place {shown(number)}")
    return name, dtype, tuple(shape), offsets[0]


def _check_finite(name: str, array: StoredArray) -> None:
    if array.dtype == "F32":
        check_floats(name, array.data)
    elif array.data[1::2].translate(None, FINITE_HALF):
        raise GateError(f"the tensor {shown(name)} holds infinite values or no numbers")


def _check_shapes(
    arrays: Mapping[str, StoredArray], config: GPTConfig, graph: str, task: TaskSpec
) -> None:
    """Raise GateError unless the names and shapes are those of the config, the graph and the
    task.
    """
    rank = rank_of({name: array.shape for name, array in arrays.items()})
    if not 0 <= rank <= config.n_embd:
        raise GateError(f"its rank is {rank}, expected at most {config.n_embd}")
    expected: dict[str, tuple[int, ...]] = {
        TASK_TOKENS: (N_NEW_TOKENS, config.n_embd),
        HEAD_WEIGHT: (task.n_label, config.n_embd),
        HEAD_BIAS: (task.n_label,),
    }
    # as many layers as there are tensors for, at most: see `_parsed`
    for spec in adapter_inputs(config, graph)[1:] if len(arrays) > len(expected) else ():
        expected[spec.name] = tuple(rank if axis == "rank" else int(axis) for axis in spec.axes)
    if missing := [name for name in expected if name not in arrays]:
        raise GateError(f"it lacks the tensor {missing[0]}")
    if unknown := [name for name in arrays if name not in expected]:
        raise GateError(f"it has an unknown tensor {shown(unknown[0])}")
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise GateError(
                f"the tensor {name} has the shape {list(arrays[name].shape)}, expected "
                f"{list(shape)}"
            )
