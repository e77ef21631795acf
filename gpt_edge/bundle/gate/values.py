"""What the gate knows of a value of a graph: its type, its shape for the sizes that stand in for
those of a call, and its numbers where they are few.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gpt_edge.bundle.gate.limits import MAX_CONTENT, TYPE_NAMES, GateError
from gpt_edge.bundle.gate.records import Dims, Node
from gpt_edge.config import GPTConfig

IDS, POSITIONS = "ids", "positions"  # where whole numbers come from


class Value(NamedTuple):
    """content: the whole numbers in it, in the order of its elements; None for many, for other
    types and for what only a call knows. is_constant: it is stored in the file. origin: IDS or
    POSITIONS where its numbers are token ids or positions.
    """

    type: int
    dims: Dims
    content: tuple[int, ...] | None = None
    is_constant: bool = False
    origin: str = ""

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.dims)


@dataclass(frozen=True, slots=True)
class Place:
    """What the operators of one graph must agree with. heads_width: of all heads in the edge
    graph's cache together; is_edge: whether padded.
    """

    config: GPTConfig
    is_edge: bool
    head_size: int  # as in the cache
    max_elements: int  # of any value inside the graph


Inputs = Sequence[Value | None]


def given(node: Node, inputs: Inputs, at: int) -> Value:
    """The input at that place, of as many as the operator's rule asks for; it may not be empty."""
    value = inputs[at]
    if value is None:
        raise GateError(f"its input {at} is missing")
    return value


def need(is_right: bool, what: str) -> None:
    """Raise GateError with `what` unless it is right; `what` is said as it is, as formatting it for
    every node would take as long as the check.
    """
    if not is_right:
        raise GateError(what)


def need_type(value: Value, *types: int) -> None:
    """Raise GateError for a value of another type."""
    if value.type not in types:
        found = TYPE_NAMES.get(value.type, value.type)
        expected = " or ".join(TYPE_NAMES[kind] for kind in types)
        raise GateError(f"an input is {found}, expected {expected}")


def need_dims(value: Value, *shapes: Dims) -> None:
    """Raise GateError for a value of another shape."""
    if value.dims not in shapes:
        expected = " or ".join(str(list(dims)) for dims in shapes)
        raise GateError(f"an input has the shape {list(value.dims)}, expected {expected}")


def whole_number(node: Node, name: str, default: int | None = None) -> int:
    """An attribute that is a whole number, which must be there if it has no default."""
    found = node.attributes.get(name, default)
    if not isinstance(found, int):
        raise GateError(f"it has no {name}")
    return found


def numbers(value: Value) -> tuple[int, ...]:
    """The whole numbers of a value that says what shape another one has."""
    if value.content is None:
        raise GateError("a shape depends on what only a call knows")
    return value.content


def constant_numbers(value: Value) -> tuple[int, ...]:
    """The whole numbers of a value that must be stored in the file."""
    need(value.is_constant, "an axis is not stored in the file")
    return numbers(value)


def small(content: Sequence[int] | None) -> tuple[int, ...] | None:
    """Content that is worth keeping, and cannot grow without limit."""
    if content is None or len(content) > MAX_CONTENT:
        return None
    need(all(-(1 << 63) <= number < 1 << 63 for number in content), "a number has over 64 bits")
    return tuple(content)


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the front."""
    if not -rank <= axis < rank:
        raise GateError(f"the axis {axis} is not one of {rank}")
    return axis % rank


def broadcast(left: Dims, right: Dims) -> Dims:
    """The shape of two values that are combined element by element."""
    if left == right:
        return left
    rank = max(len(left), len(right))
    padded_left = (1,) * (rank - len(left)) + left
    padded_right = (1,) * (rank - len(right)) + right
    dims = []
    for one, other in zip(padded_left, padded_right, strict=True):
        if one != other and one != 1 != other:
            raise GateError(f"{list(left)} and {list(right)} do not fit")
        dims.append(other if one == 1 else one)
    return tuple(dims)


def product_dims(left: Dims, right: Dims) -> Dims:
    """The shape of a product of matrices; of the right one, the last two axes are rows and
    columns.
    """
    need(len(left) >= 1 and len(right) == 2, "a product's weights must be a matrix")
    if left[-1] != right[0]:
        raise GateError(f"{list(left)} and {list(right)} cannot be multiplied")
    return (*left[:-1], right[1])
