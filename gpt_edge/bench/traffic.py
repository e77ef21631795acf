"""How many bytes one token makes the machine read: the weights that the graph's file lists, and
keys and values.

The file's own lists are read, not a formula: whatever an arrangement stores besides the weights
counts. Only what is needed of the format is parsed (ONNX, onnx.proto3: ModelProto, GraphProto,
NodeProto, TensorProto), without onnx.
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
# take a row of their table per token
ROW_READERS = ("Gather", "GatherND", "GatherElements", "GatherBlockQuantized")


def weight_bytes(model: Path) -> int | None:
    """Bytes of the initializers that a run with one token reads whole; a table of which it takes
    rows counts nothing.

    Of the two sides of an `If` the larger counts. None if `model` is not an ONNX file.
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
                found = _read_by(graphs[0], {}) if graphs else {}
                del graphs
            finally:
                view.release()
    except (ValueError, BufferError):
        return None
    return sum(found.values()) or None


def cache_bytes(config: GPTConfig, cache: KVCache, n_context: float) -> float:
    """Bytes of keys and values that a step reads of one row, `n_context` tokens long; a banded
    layer reads its window.
    """
    total = 0.0
    for place, array in enumerate(cache.arrays):
        window = config.layer_window(place * config.n_layer // len(cache.arrays))
        seen = n_context if window is None else min(window, n_context)
        total += seen * array.shape[1] * array.shape[3] * array.itemsize
    return total


def _read_by(graph: memoryview, outer: dict[str, int]) -> dict[str, int]:
    """Sizes by name of what the nodes of `graph` read whole. outer: sizes of initializers of the
    graphs around it.
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
    found: dict[str, int] = {}
    for node in nodes:
        parts = [(field, value) for field, value, _ in fields(node) if not isinstance(value, int)]
        kind = next((bytes(value).decode() for field, value in parts if field == 4), "")
        inputs = [bytes(value).decode() for field, value in parts if field == 1]
        if kind not in ROW_READERS:
            found |= {name: sizes[name] for name in inputs if name in sizes}
        branches: list[dict[str, int]] = [
            _read_by(value, sizes)
            for field, attribute in parts
            if field == 5
            for place, value, _ in fields(attribute)
            if place == 6 and not isinstance(value, int)
        ]
        if branches:
            larger = max(branches, key=_total)
            found |= larger
    return found


def _total(sizes: dict[str, int]) -> int:
    return sum(sizes.values())


def _tensor(tensor: memoryview) -> tuple[str, int]:
    """Name and size of a TensorProto."""
    name, dtype, dims = "", 0, []
    for field, value, _ in fields(tensor):
        if field == 1:
            dims += [value] if isinstance(value, int) else list(varints(value))
        elif field == 2 and isinstance(value, int):
            dtype = value
        elif field == 8 and not isinstance(value, int):
            name = bytes(value).decode()
    return name, math.prod(dims) * BITS_OF.get(dtype, 0) // 8
