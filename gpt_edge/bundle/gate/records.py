"""A graph taken apart: nodes, tensors, declared types; and the checks of one field that every
reader of them takes: a name, a number, one of a kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gpt_edge.bundle.gate.limits import MAX_NAME, GateError, shown

Number = int | float
Dims = tuple[int, ...]


@dataclass(slots=True)
class Tensor:
    """Numbers in a file: of the graph (`data`, little-endian as onnx has raw data), or `length`
    bytes at `offset` of the file `location` beside it.
    """

    name: str
    type: int
    dims: Dims
    data: bytes | memoryview | None
    location: str = ""
    offset: int = 0
    length: int = 0


class Declared(NamedTuple):
    """A type and a shape that the graph gives to a value; a dimension of -1 may be any, dims of
    None say nothing.
    """

    type: int
    dims: Dims | None


Attribute = Number | str | Tensor | Dims


@dataclass(slots=True)
class Node:
    """One operator of a graph. attributes: by name, each once. kind: the bytes that its operator,
    its domain and its attributes were read from.
    """

    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]
    name: str
    kind: bytes


@dataclass(slots=True)
class Graph:
    """What a model holds; `hints` are the types that it declares for values inside it."""

    nodes: list[Node] = field(default_factory=list)
    initializers: list[Tensor] = field(default_factory=list)
    inputs: dict[str, Declared] = field(default_factory=dict)
    outputs: dict[str, Declared] = field(default_factory=dict)
    hints: dict[str, Declared] = field(default_factory=dict)
    opsets: dict[str, int] = field(default_factory=dict)


def signed(value: int) -> int:
    """A number of 64 bits as it counts below zero."""
    return value - (1 << 64) if value >> 63 else value


def single(parts: Sequence[tuple[int, object]], repeated: set[int]) -> dict[int, object]:
    """The fields of a message by key; those of `repeated` as lists. Raises GateError for another
    one that comes twice: readers disagree on which counts.
    """
    found: dict[int, object] = {}
    for key, value in parts:
        if key in repeated:
            values = found.setdefault(key, [])
            assert isinstance(values, list)
            values.append(value)
        elif key in found:
            raise GateError("a field comes twice")
        else:
            found[key] = value
    return found


def all_of(parts: Mapping[int, object], key: int) -> list[bytes]:
    values = parts.get(key, [])
    assert isinstance(values, list)
    return values


def text(value: object) -> str:
    """A name of a file: printable UTF-8 of at most MAX_NAME bytes. Raises GateError."""
    if isinstance(value, int):
        raise GateError("a name is a number")
    data = value if type(value) is bytes else data_of(value)
    if len(data) > MAX_NAME:
        raise GateError(f"a name has {len(data)} bytes, expected at most {MAX_NAME}")
    name = data.decode("utf-8", "replace")
    if not name.isprintable() or not (name.isascii() or "\ufffd" not in name):
        raise GateError(f"the name {shown(name)} is no printable text")
    return name


class Names(list[str]):
    """The names of a graph, decoded one by one and looked at all at once: they are many."""

    def check(self) -> None:
        """Raise GateError for one that `text` refuses."""
        joined = "".join(self)
        is_plain = joined.isascii() and joined.isprintable()
        if not is_plain or max(map(len, self), default=0) > MAX_NAME:
            for name in self:
                text(name.encode())


def data_of(value: object) -> bytes:
    if isinstance(value, memoryview):
        return bytes(value)
    if not isinstance(value, bytes):
        raise GateError("a field is a number, expected text")
    return value


def whole(value: object) -> int:
    if not isinstance(value, int):
        raise GateError("a field is no number")
    return value
