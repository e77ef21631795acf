"""Reads stored tensors, strictly: in the graph or in the file beside it, never in both, each field
once. Numbers of fields: onnx.proto3; a key is 8 times the number of the field plus its kind.
"""

from __future__ import annotations

import re
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
from gpt_edge.bundle.gate.records import Dims, Names, Tensor, data_of, text, whole
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
# A tensor beside the graph as exports write it: each text after its length. What a match says
# counts only where every length is right, as then its fields are those, and no others.
BESIDE = re.compile(
    rb"((?:\x08[\x80-\xff]{0,4}[\0-\x7f]){0,8})\x10([\0-\x7f])B([\0-\x7f])(.{1,127}?)"
    rb"j([\0-\x7f])\n\x08location\x12([\0-\x7f])(.{1,80}?)"
    rb"j([\0-\x7f])\n\x06offset\x12([\0-\x7f])([0-9]{1,15})"
    rb"j([\0-\x7f])\n\x06length\x12([\0-\x7f])([0-9]{1,15})p\x01",
    re.DOTALL,
)
MAX_NUMBERS = 1 << 16  # bytes of numbers that are not raw data
LOCATION, OFFSET, LENGTH = b"location", b"offset", b"length"
# how the entries of a tensor's place begin
PLACES = {b"\n\x08location": LOCATION, b"\n\x06offset": OFFSET, b"\n\x06length": LENGTH}


def read_tensor(data: Bytes, allowed: set[int] = TENSOR_FIELDS) -> Tensor:
    """A tensor whose data has the length that its type and its shape say."""
    return TensorReader(Names(), allowed).read(data)


class TensorReader:
    """Reads the tensors of a graph. The file and the length that many have are read once."""

    def __init__(self, names: Names, allowed: set[int] = TENSOR_FIELDS) -> None:
        self._names = names
        self._allowed = allowed
        self._places = Places()
        self._dims = Shapes()

    def read(self, data: Bytes) -> Tensor:
        """A tensor whose data has the length that its type and its shape say."""
        match = BESIDE.fullmatch(data)
        if match is not None:
            dims, kind, n_name, name, *places = match.groups()
            if n_name[0] == len(name) and _fit(*places) and kind[0] in BITS_OF:
                location, offset, length = places[2], int(places[5]), int(places[8])
                where = self._names[location]
                return Tensor(
                    self._names[name], kind[0], self._dims[dims], None, where, offset, length
                )
        return self._by_fields(data)

    def _by_fields(self, data: Bytes) -> Tensor:
        found: dict[int, object] = {}
        dims: list[int] = []
        external: list[bytes] = []
        for key, value in split(data, self._allowed):
            if key == T_EXTERNAL:
                external.append(value)
            elif key == T_DIM:
                dims.append(value)
            elif key == T_DIMS:
                dims += varints(value[: 10 * MAX_RANK + 1])
            elif key in found:
                raise GateError("a tensor has a field twice")
            else:
                found[key] = value
        if len(dims) > MAX_RANK or len(external) > 3:
            raise GateError("a tensor has too many dimensions or places")
        name = self._names[data_of(found.get(T_NAME, b""))]
        kind = whole(found.get(T_TYPE, 0))
        if kind not in BITS_OF or (dims and max(dims) >= MAX_DIMENSION):
            raise GateError(
                f"the tensor {shown(name)} has a type or a size that exports do not have"
            )
        if external or found.get(T_LOCATION, 0):
            return self._external(name, kind, tuple(dims), found, external)
        return Tensor(name, kind, tuple(dims), tensor_data(name, kind, found))

    def _external(
        self,
        name: str,
        kind: int,
        dims: Dims,
        found: Mapping[int, object],
        entries: list[bytes],
    ) -> Tensor:
        try:
            parts = [self._places[bytes(entry)] for entry in entries]
        except GateError as error:
            raise GateError(f"the tensor {shown(name)} {error}") from None
        place = dict(parts)
        if len(place) < 3:
            raise GateError(f"the tensor {shown(name)} has no place, or one twice")
        if found.get(T_LOCATION) != 1 or not DATA_FIELDS.keys().isdisjoint(found):
            raise GateError(f"the tensor {shown(name)} lies in two places")
        location, offset, length = place[LOCATION], place[OFFSET], place[LENGTH]
        assert isinstance(location, str)
        assert isinstance(offset, int)
        assert isinstance(length, int)
        return Tensor(name, kind, dims, None, location, offset, length)


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


def _fit(
    in_location: bytes,
    n_location: bytes,
    location: bytes,
    in_offset: bytes,
    n_offset: bytes,
    offset: bytes,
    in_length: bytes,
    n_length: bytes,
    length: bytes,
) -> bool:
    """Whether the lengths before texts, and around them, are theirs."""
    return (
        in_location[0] - 12 == n_location[0] == len(location)
        and in_offset[0] - 10 == n_offset[0] == len(offset)
        and in_length[0] - 10 == n_length[0] == len(length)
    )


class Shapes(dict[bytes, Dims]):
    """Shapes by their fields' bytes, each field a dimension."""

    def __missing__(self, data: bytes) -> Dims:
        dims: Dims = tuple(value for _, value in split(data, {T_DIM}))
        if len(dims) > MAX_RANK or max(dims, default=0) >= MAX_DIMENSION:
            raise GateError(f"a tensor has the shape {list(dims)}, which exports do not have")
        self[data] = dims
        return dims


class Places(dict[bytes, tuple[bytes, str | int]]):
    """The entries of tensors' places by their bytes: what each says, and a name or a number."""

    def __missing__(self, entry: bytes) -> tuple[bytes, str | int]:
        # the key and the length of the second text, then the text
        head, _, rest = entry.partition(b"\x12")
        key, content = PLACES.get(head, b""), rest[1:]
        if not key or rest[:1] != bytes((len(content) & 127,)) or len(content) > 127:
            raise GateError("has a place that exports do not write")
        if key == LOCATION:
            part: tuple[bytes, str | int] = (key, text(content))
        elif content.isdigit() and len(content) < 16:
            part = (key, int(content))
        else:
            raise GateError(f"lies at {shown(content)}, expected a number")
        self[entry] = part
        return part
