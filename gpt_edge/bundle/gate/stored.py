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
MAX_NUMBERS = 1 << 16  # bytes of numbers that are not raw data
LOCATION, OFFSET, LENGTH = b"location", b"offset", b"length"
MOST_DIGITS = 15
LONGEST_LOCATION = 115  # bytes that can be named in a field of fewer than 128
# how a tensor's place goes on: the field of its offset and that of its length, up to the digits,
# and how long each is
OFFSETS, LENGTHS = (
    {bytes((106, 10 + n, 10, 6)) + word + bytes((18, n)): 12 + n for n in range(1, MOST_DIGITS + 1)}
    for word in (OFFSET, LENGTH)
)
# how the entries of a tensor's place begin
PLACES = {b"\n\x08location": LOCATION, b"\n\x06offset": OFFSET, b"\n\x06length": LENGTH}


def read_tensor(data: Bytes, allowed: set[int] = TENSOR_FIELDS) -> Tensor:
    """A tensor whose data has the length that its type and its shape say."""
    names = Names()
    tensor = TensorReader(names, allowed).read(data)
    names.check()
    return tensor


class TensorReader:
    """Reads the tensors of a graph. The file, the type and the shape that many have are read once.

    A tensor beside the graph has its type and its shape first, as exports write it, then its name,
    then the file, then the rest of its place: cut there, each part is looked up as it is.
    """

    def __init__(self, names: Names, allowed: set[int] = TENSOR_FIELDS) -> None:
        self._names = names
        self._allowed = allowed
        self._places = Places()
        self._kinds = TensorKinds()
        self._file = b""  # the field that named the file of the tensor before
        self._location = ""

    def read(self, data: Bytes) -> Tensor:
        """A tensor whose data has the length that its type and its shape say."""
        if self._file and isinstance(data, bytes):
            head, file, rest = data.partition(self._file)
            tensor = self._beside(head, rest) if file else None
            if tensor is not None:
                return tensor
        tensor = self._by_fields(data)
        location = tensor.location.encode()
        if tensor.data is None and len(location) <= LONGEST_LOCATION:
            self._file = bytes((106, 12 + len(location), 10, 8)) + b"location\x12"
            self._file += bytes((len(location),)) + location
            self._location = tensor.location
        return tensor

    def _beside(self, head: bytes, rest: bytes) -> Tensor | None:
        """A tensor of the same file as the one before, cut in front of its file and behind it; None
        where its fields are others.
        """
        kind, _, named = head.partition(b"B")
        n_name = len(named) - 1
        end = OFFSETS.get(rest[:12])
        if end is None or (size := LENGTHS.get(rest[end : end + 12])) is None:
            return None
        begin = end + size
        if begin + 2 != len(rest) or not 0 <= n_name == named[0] < 128:
            return None
        offset, length = rest[12:end], rest[end + 12 : begin]
        dtype, dims = self._kinds[kind]
        if not dtype or rest[-2:] != b"p\x01" or not (offset + length).isdigit():
            return None
        name = named[1:].decode()
        self._names.append(name)
        return Tensor(name, dtype, dims, None, self._location, int(offset), int(length))

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
        name = data_of(found.get(T_NAME, b"")).decode()
        self._names.append(name)
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


class TensorKinds(dict[bytes, tuple[int, Dims]]):
    """Types and shapes by their fields' bytes, each field a dimension but the last; a type of 0
    where they are others.
    """

    def __missing__(self, data: bytes) -> tuple[int, Dims]:
        self[data] = found = self._read(data)
        return found

    @staticmethod
    def _read(data: bytes) -> tuple[int, Dims]:
        try:
            *sizes, (key, kind) = split(data, {T_DIM, T_TYPE})
        except ValueError:
            return 0, ()
        if key != T_TYPE or kind not in BITS_OF or any(key != T_DIM for key, _ in sizes):
            return 0, ()
        dims: Dims = tuple(size for _, size in sizes)
        if len(dims) > MAX_RANK or (dims and max(dims) >= MAX_DIMENSION):
            raise GateError(f"a tensor has the shape {list(dims)}, which exports do not have")
        return kind, dims


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
        elif content.isdigit() and len(content) <= MOST_DIGITS:
            part = (key, int(content))
        else:
            raise GateError(f"lies at {shown(content)}, expected a number")
        self[entry] = part
        return part
