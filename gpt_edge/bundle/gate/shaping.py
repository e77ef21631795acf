"""Operators that cut, join and turn values: each function returns what a node's outputs are, or
raises GateError.
"""

from __future__ import annotations

import math

from gpt_edge.bundle.gate.limits import (
    BOOL,
    FLOAT16,
    FLOAT32,
    INT8,
    INT32,
    INT64,
    UINT8,
    GateError,
)
from gpt_edge.bundle.gate.records import Dims, Node, Tensor
from gpt_edge.bundle.gate.values import (
    IDS,
    POSITIONS,
    Inputs,
    Place,
    Value,
    axis_of,
    constant_numbers,
    given,
    need,
    need_dims,
    need_type,
    numbers,
    small,
    whole_number,
)

CASTS = {
    (INT64, FLOAT32),
    (INT32, INT64),
    (INT64, INT32),
    (INT32, FLOAT32),
    (INT8, FLOAT32),
    (UINT8, FLOAT32),
    (FLOAT16, FLOAT32),
    (FLOAT32, FLOAT16),
    (BOOL, FLOAT32),
    (BOOL, INT64),
    (INT64, BOOL),
    (FLOAT32, FLOAT32),
    (INT64, INT64),
}


def constant(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """Numbers that stand in the node itself."""
    need(len(node.attributes) == 1, "it has no value, or two")
    value = next(iter(node.attributes.values()))
    if isinstance(value, Tensor):
        return [tensor_value(value)]
    if isinstance(value, tuple):
        return [Value(INT64, (len(value),), value, is_constant=True)]
    raise GateError("its value is of a kind that exports do not have")


def tensor_value(tensor: Tensor) -> Value:
    """A stored tensor, with its numbers where they are whole and few."""
    content = None
    if tensor.type == INT64 and tensor.data is not None and len(tensor.data) <= 128:
        data = bytes(tensor.data)
        content = tuple(
            int.from_bytes(data[at : at + 8], "little", signed=True)
            for at in range(0, len(data), 8)
        )
    return Value(tensor.type, tensor.dims, content, is_constant=True)


def cast(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """The same numbers in another type."""
    value, to = given(node, inputs, 0), node.attributes.get("to")
    need((value.type, to) in CASTS and isinstance(to, int), "it casts between unexpected types")
    assert isinstance(to, int)
    content = value.content if to == INT64 and value.type in (INT32, INT64) else None
    return [Value(to, value.dims, content, value.is_constant, value.origin)]


def concat(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """Values side by side."""
    values = [given(node, inputs, at) for at in range(len(inputs))]
    first = values[0]
    axis = axis_of(whole_number(node, "axis"), len(first.dims))
    total = 0
    for value in values:
        need_type(value, first.type)
        need(len(value.dims) == len(first.dims), "its inputs have different ranks")
        rest = value.dims[:axis] + value.dims[axis + 1 :]
        need(rest == first.dims[:axis] + first.dims[axis + 1 :], "its inputs do not fit")
        total += value.dims[axis]
    parts = [value.content for value in values]
    content = None
    if len(first.dims) == 1 and None not in parts:
        content = small([number for part in parts if part is not None for number in part])
    is_constant = all(value.is_constant for value in values)
    dims = (*first.dims[:axis], total, *first.dims[axis + 1 :])
    return [Value(first.type, dims, content, is_constant)]


def expand(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """One value many times."""
    value, target = given(node, inputs, 0), numbers(given(node, inputs, 1))
    need(all(size >= 1 for size in target), "it expands to nothing")
    rank = max(len(value.dims), len(target))
    dims = (1,) * (rank - len(value.dims)) + value.dims
    wanted = (1,) * (rank - len(target)) + target
    for have, want in zip(dims, wanted, strict=True):
        need(have in (1, want) or want == 1, f"{list(value.dims)} does not expand")
    shape = tuple(max(pair) for pair in zip(dims, wanted, strict=True))
    return [Value(value.type, shape, None, origin=value.origin)]


def gather(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """Rows of a table. A table that token ids choose from has one for each of the vocabulary, one
    of positions has one for each place of the context.
    """
    table, indices = given(node, inputs, 0), given(node, inputs, 1)
    need_type(indices, INT64)
    axis = axis_of(whole_number(node, "axis", 0), len(table.dims))
    check_rows(table.dims[axis], indices, place)
    if indices.content is not None:
        size = table.dims[axis]
        need(all(-size <= at < size for at in indices.content), "it reads beyond its table")
    content = None
    if table.content is not None and indices.content is not None and len(table.dims) == 1:
        content = tuple(table.content[at] for at in indices.content)
    dims = (*table.dims[:axis], *indices.dims, *table.dims[axis + 1 :])
    return [Value(table.type, dims, content)]


def check_rows(n_rows: int, indices: Value, place: Place) -> None:
    """Raise GateError for a table whose rows are not those of the config."""
    expected = {IDS: place.config.vocab_size, POSITIONS: place.config.n_ctx}.get(indices.origin)
    if expected is not None and n_rows != expected:
        what = "vocabulary" if indices.origin == IDS else "context"
        raise GateError(f"a table has {n_rows} rows, the {what} has {expected}")


def gather_nd(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """Of each sequence the rows whose numbers are given."""
    table, indices = given(node, inputs, 0), given(node, inputs, 1)
    need_type(indices, INT64)
    need(node.attributes.get("batch_dims") == 1, "its batch_dims is not 1")
    need(len(table.dims) == 3 and len(indices.dims) >= 2, "its inputs have unexpected ranks")
    need(indices.dims[0] == table.dims[0] and indices.dims[-1] == 1, "its inputs do not fit")
    return [Value(table.type, (*indices.dims[:-1], table.dims[2]))]


def range_(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """Consecutive positions."""
    values = [given(node, inputs, at) for at in range(3)]
    for value in values:
        need_type(value, INT64)
        need_dims(value, ())
    (start,), (limit,), (delta,) = map(numbers, values)
    need(delta == 1 and 0 <= start <= limit, "it does not count upwards by one")
    return [Value(INT64, (limit - start,), origin=POSITIONS)]


def reshape(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """The same elements in another shape."""
    value, target = given(node, inputs, 0), list(numbers(given(node, inputs, 1)))
    if not node.attributes.get("allowzero", 0):
        for at, size in enumerate(target):
            need(size != 0 or at < len(value.dims), "it copies an axis that is not there")
            target[at] = value.dims[at] if size == 0 else size
    need(all(size >= 1 or size == -1 for size in target), "its shape has a size below one")
    need(target.count(-1) <= 1, "its shape leaves two sizes open")
    if -1 in target:
        known = math.prod(size for size in target if size != -1)
        target[target.index(-1)] = value.size // known
    if math.prod(target) != value.size:
        raise GateError(f"{list(value.dims)} does not fit its shape")
    return [Value(value.type, tuple(target), value.content, value.is_constant, value.origin)]


def shape(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """Sizes of a value."""
    dims = given(node, inputs, 0).dims
    start, end = whole_number(node, "start", 0), whole_number(node, "end", len(dims))
    need(0 <= start < end <= len(dims), "it asks for sizes that are not there")
    content = dims[start:end]
    return [Value(INT64, (len(content),), content)]


def slice_(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """A part along some axes: every element, or every other one."""
    value, starts = given(node, inputs, 0), numbers(given(node, inputs, 1))
    ends = numbers(given(node, inputs, 2))
    axes = tuple(range(len(starts)))
    if len(inputs) > 3:
        axes = constant_numbers(given(node, inputs, 3))
    steps = numbers(given(node, inputs, 4)) if len(inputs) > 4 else (1,) * len(starts)
    lengths = {len(starts), len(ends), len(axes), len(steps)}
    do_fit = len(lengths) == 1 and 0 not in lengths
    need(do_fit and set(steps) <= {1, 2}, "its starts, ends and steps do not fit")
    dims = list(value.dims)
    kept = range(0)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        at = axis_of(axis, len(dims))
        kept = range(dims[at])[start:end:step]
        dims[at] = len(kept)
    need(min(dims) > 0, "it leaves nothing")
    content = None
    if value.content is not None and len(value.dims) == 1 and len(axes) == 1:
        content = tuple(value.content[at] for at in kept)
    return [Value(value.type, tuple(dims), content, value.is_constant, value.origin)]


def squeeze(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """Without axes of one element."""
    value = given(node, inputs, 0)
    if len(inputs) > 1:
        found = constant_numbers(given(node, inputs, 1))
        axes = {axis_of(axis, len(value.dims)) for axis in found}
    else:
        axes = {axis for axis, size in enumerate(value.dims) if size == 1}
    need(all(value.dims[axis] == 1 for axis in axes), "it drops an axis of several elements")
    dims = tuple(size for axis, size in enumerate(value.dims) if axis not in axes)
    return [Value(value.type, dims, value.content, value.is_constant, value.origin)]


def unsqueeze(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """With more axes of one element."""
    value, found = given(node, inputs, 0), constant_numbers(given(node, inputs, 1))
    rank = len(value.dims) + len(found)
    axes = {axis_of(axis, rank) for axis in found}
    need(len(axes) == len(found), "it adds an axis twice")
    rest = iter(value.dims)
    dims: Dims = tuple(1 if axis in axes else next(rest) for axis in range(rank))
    return [Value(value.type, dims, value.content, value.is_constant, value.origin)]


def transpose(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """Axes in another order."""
    value, order = given(node, inputs, 0), node.attributes.get("perm")
    need(isinstance(order, tuple), "it has no order")
    assert isinstance(order, tuple)
    need(sorted(order) == list(range(len(value.dims))), "its order is not one of its axes")
    return [Value(value.type, tuple(value.dims[axis] for axis in order))]
