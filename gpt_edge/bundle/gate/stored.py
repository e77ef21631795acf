"""Reads stored tensors, strictly: in the graph or in the file beside it, never in both, each field
once. Numbers of fields: onnx.proto3; a key is 8 times the number of the field plus its kind.
"""

from __future__ import annotations

from collections.abc import Mapping

from gpt_edge.bundle.gate.limits import (
    BITS_OF,
    BOOL,
    FLOAT32,
    INT8,
    INT32,
    INT64,
    MAX_DIMENSION,
    MAX_RANK,
    UINT8,
    GateError,
    shown,
)
from gpt_edge.bundle.gate.records import Dims, Tensor, text, whole
from gpt_edge.bundle.onnx_wire import Bytes, split, varints

T_DIMS, T_DIM, T_TYPE, T_FLOATS, T_INTS, T_LONGS, T_NAME, T_RAW, T_EXTERNAL, T_LOCATION = (
    10,
    8,
    16,
    34,
    42,
    58,
    66,
    74,
    106,
    112,
)
TENSOR_FIELDS = {T_DIMS, T_DIM, T_TYPE, T_FLOATS, T_INTS, T_LONGS, T_NAME, T_RAW, T_EXTERNAL}
TENSOR_FIELDS |= {T_LOCATION}
# where numbers may be, and of which types
DATA_FIELDS = {
    T_RAW: set(BITS_OF),
    T_FLOATS: {FLOAT32},
    T_INTS: {INT8, UINT8, INT32, BOOL},
    T_LONGS: {INT64},
}
MAX_NUMBERS = 1 << 16  # bytes of numbers that are not raw data
# how the entries of a tensor's place begin
PLACES = {
    b"\n\x08location": b"location",
    b"\n\x06offset": b"offset",
    b"\n\x06length": b"length",
}


def read_tensor(data: Bytes, allowed: set[int] = TENSOR_FIELDS) -> Tensor:
    """A tensor whose data has the length that its type and its shape say."""
    found: dict[int, object] = {}
    dims: list[int] = []
    external: list[Bytes] = []
    for key, value in split(data, allowed):
        if key == T_DIM and isinstance(value, int):
            dims.append(value)
        elif key == T_DIMS and not isinstance(value, int) and len(value) <= 10 * MAX_RANK:
            dims += varints(value)
        elif key == T_EXTERNAL and not isinstance(value, int):
            external.append(value)
        elif key in found:
            raise GateError("a tensor has a field twice")
        else:
            found[key] = value
        if len(dims) > MAX_RANK or len(external) > 3:
            raise GateError("a tensor has too many dimensions or places")
    name = text(found.get(T_NAME, b""))
    kind = whole(found.get(T_TYPE, 0))
    if kind not in BITS_OF or any(value >= MAX_DIMENSION for value in dims):
        raise GateError(f"the tensor {shown(name)} has a type or a size that exports do not have")
    if external or found.get(T_LOCATION, 0):
        return _external(name, kind, tuple(dims), found, external)
    return Tensor(name, kind, tuple(dims), tensor_data(name, kind, found))


def tensor_data(name: str, kind: int, found: Mapping[int, object]) -> bytes | memoryview:
    """The bytes of a tensor that lies in the graph, as raw data would be."""
    given = [key for key in DATA_FIELDS if key in found]
    if not given:
        return b""
    data = found[given[0]]
    is_right = len(given) == 1 and kind in DATA_FIELDS[given[0]]
    if not is_right or not isinstance(data, bytes | memoryview):
        raise GateError(f"the tensor {shown(name)} has data of another kind than its type")
    if given[0] in (T_RAW, T_FLOATS):
        return data
    if len(data) > MAX_NUMBERS:
        raise GateError(f"the tensor {shown(name)} has too many numbers in the graph")
    size = BITS_OF[kind] // 8
    limit = 1 << 8 * size
    return b"".join((value % limit).to_bytes(size, "little") for value in varints(data))


def _external(
    name: str, kind: int, dims: Dims, found: Mapping[int, object], entries: list[Bytes]
) -> Tensor:
    place: dict[bytes, bytes] = {}
    for entry in map(bytes, entries):
        key = PLACES.get(entry[:10]) or PLACES.get(entry[:8], b"")
        start = len(key) + 4  # a key and a length before each of the two texts
        if not key or key in place or entry[start - 2 : start] != bytes((18, len(entry) - start)):
            raise GateError(f"the tensor {shown(name)} has a place that exports do not write")
        place[key] = entry[start:]
    if found.get(T_LOCATION) != 1 or any(key in found for key in DATA_FIELDS):
        raise GateError(f"the tensor {shown(name)} lies in two places")
    offset, length = (_decimal(name, place.get(key, b"")) for key in (b"offset", b"length"))
    return Tensor(name, kind, dims, None, text(place.get(b"location", b"")), offset, length)


def _decimal(name: str, digits: bytes) -> int:
    if not (digits.isdigit() and len(digits) < 16):
        raise GateError(f"the tensor {shown(name)} lies at {shown(digits)}, expected a number")
    return int(digits)
