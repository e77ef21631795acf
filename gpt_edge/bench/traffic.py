"""The bytes that the machine reads for one token: the weights in the graph's file, and keys and
values.

The sizes come from the file and not from a formula, so that scales and other additions to the
weights count. Only the necessary parts of the format are parsed (ONNX, onnx.proto3: ModelProto,
GraphProto, NodeProto, TensorProto), without onnx.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path

from gpt_edge.bundle.onnx_wire import fields, varints
from gpt_edge.config import GPTConfig
from gpt_edge.runtime.kv_cache import KVCache

BITS_OF = {
    1: 32,
    2: 8,
    3: 8,
    4: 16,
    5: 16,
    6: 32,
    7: 64,
    9: 8,
    10: 16,
    11: 64,
    12: 32,
    13: 64,
    16: 16,
    21: 4,
    22: 4,
}
# the 8-bit floats, then float4, uint2 and int2
BITS_OF |= {17: 8, 18: 8, 19: 8, 20: 8, 23: 4, 24: 8, 25: 2, 26: 2}
# read one row of their table per token
ROW_READERS = ("Gather", "GatherND", "GatherElements", "GatherBlockQuantized")


def weight_bytes(model: Path) -> int | None:
    """Return the bytes of the initializers that a run with one token reads completely. A table that
    is read by rows does not count; of an `If`, the larger branch does.

    None if `model` is not an ONNX file.
    """
    try:
        with (
            model.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            view = memoryview(data)
            try:
                graphs = [
                    value
                    for field, value, _ in fields(view)
                    if field == 7 and not isinstance(value, int)
                ]
                sizes = _read_by(graphs[0], {}) if graphs else {}
                del graphs
            finally:
                view.release()
    except (ValueError, BufferError):
        return None
    return sum(sizes.values()) or None


def cache_bytes(config: GPTConfig, cache: KVCache, n_context: float) -> float:
    """Return the bytes of keys and values that a step reads for one row of `n_context` tokens; a
    banded layer reads its window.
    """
    total = 0.0
    for index, array in enumerate(cache.arrays):
        window = config.layer_window(index * config.n_layer // len(cache.arrays))
        seen = n_context if window is None else min(window, n_context)
        total += seen * array.shape[1] * array.shape[3] * array.itemsize
    return total


def _read_by(graph: memoryview, outer: dict[str, int]) -> dict[str, int]:
    """Return the sizes, by name, of the initializers that the nodes of `graph` read completely.
    outer: sizes of initializers of the enclosing graphs.
    """
    sizes, nodes = dict(outer), []
    for field, value, _ in fields(graph):
        if isinstance(value, int):
            continue
        if field == 5:
            name, n_bytes = _tensor(value)
            sizes[name] = n_bytes
        elif field == 1:
            nodes.append(value)
    read: dict[str, int] = {}
    for node in nodes:
        op_type, inputs, attributes = _node(node)
        if op_type not in ROW_READERS:
            read |= {name: sizes[name] for name in inputs if name in sizes}
        branches = [_read_by(branch, sizes) for branch in map(_branch, attributes) if branch]
        if branches:
            larger: dict[str, int] = max(branches, key=_total)
            read |= larger
    return read


def _node(node: memoryview) -> tuple[str, list[str], list[memoryview]]:
    """Return the operator, the names of the inputs and the attributes of a NodeProto."""
    op_type = ""
    inputs = []
    attributes = []
    for field, value, _ in fields(node):
        if isinstance(value, int):
            continue
        if field == 1:
            inputs.append(bytes(value).decode())
        elif field == 4:
            op_type = bytes(value).decode()
        elif field == 5:
            attributes.append(value)
    return op_type, inputs, attributes


def _branch(attribute: memoryview) -> memoryview | None:
    """Return the graph of an AttributeProto, as `If` has two, else None."""
    for field, value, _ in fields(attribute):
        if field == 6 and not isinstance(value, int):
            return value
    return None


def _total(sizes: dict[str, int]) -> int:
    return sum(sizes.values())


def _tensor(tensor: memoryview) -> tuple[str, int]:
    """Return the name and the size of a TensorProto."""
    name, dtype, dims = "", 0, []
    for field, value, _ in fields(tensor):
        if field == 1:
            dims += [value] if isinstance(value, int) else list(varints(value))
        elif field == 2 and isinstance(value, int):
            dtype = value
        elif field == 8 and not isinstance(value, int):
            name = bytes(value).decode()
    return name, math.prod(dims) * BITS_OF.get(dtype, 0) // 8
