"""Operators that compute element by element or reduce: each function returns what a node's
outputs are, or raises GateError.
"""

from __future__ import annotations

from collections.abc import Callable

from gpt_edge.bundle.gate.limits import (
    BOOL,
    FLOAT32,
    INT4,
    INT8,
    INT64,
    MAX_BLOCK,
    UINT8,
    GateError,
)
from gpt_edge.bundle.gate.records import Dims, Node
from gpt_edge.bundle.gate.values import (
    Inputs,
    Place,
    Value,
    axis_of,
    broadcast,
    constant_numbers,
    given,
    need,
    need_dims,
    need_type,
    small,
    whole_number,
)

COMPUTE: dict[str, Callable[[int, int], int]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Max": max,
}


def combine(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """Two values element by element; the numbers of small whole ones are known."""
    left, right = given(node, inputs, 0), given(node, inputs, 1)
    need_type(left, FLOAT32, INT64)
    need_type(right, left.type)
    dims = broadcast(left.dims, right.dims)
    content = None
    if left.content is not None and right.content is not None and len(dims) <= 1:
        size = dims[0] if dims else 1
        pairs = zip(_times(left.content, size), _times(right.content, size), strict=True)
        content = small([COMPUTE[node.op](a, b) for a, b in pairs])
    return [Value(left.type, dims, content, left.is_constant and right.is_constant)]


def _times(content: tuple[int, ...], size: int) -> tuple[int, ...]:
    return content * size if len(content) == 1 else content


def bits(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """Some bits of stored bytes."""
    value, chosen = given(node, inputs, 0), given(node, inputs, 1)
    for part in (value, chosen):
        need_type(part, UINT8)
        need(part.is_constant, "its bytes are not stored in the file")
    need_dims(chosen, ())
    return [Value(UINT8, value.dims, None, is_constant=True)]


def compare(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """Truth of two numbers' order."""
    left, right = given(node, inputs, 0), given(node, inputs, 1)
    need_type(left, INT64)
    need_type(right, INT64)
    return [Value(BOOL, broadcast(left.dims, right.dims))]


def logic(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """Truths combined."""
    left, right = given(node, inputs, 0), given(node, inputs, 1)
    need_type(left, BOOL)
    need_type(right, BOOL)
    return [Value(BOOL, broadcast(left.dims, right.dims))]


def not_(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """Truths turned round."""
    need_type(given(node, inputs, 0), BOOL)
    return [Value(BOOL, given(node, inputs, 0).dims)]


def same(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """A function of each float."""
    value = given(node, inputs, 0)
    need_type(value, FLOAT32)
    return [Value(FLOAT32, value.dims)]


def activation(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """The config's activation, with a bias before it or without."""
    value = given(node, inputs, 0)
    need_type(value, FLOAT32)
    kind = node.attributes.get("approximate", "none")
    found = {"FastGelu": "gelu_tanh", "Relu": "relu"}.get(node.op, "gelu")
    if node.op == "Gelu" and kind == "tanh":
        found = "gelu_tanh"
    wanted = place.config.activation
    if found != wanted:
        raise GateError(f"its activation is {found}, the config's is {wanted}")
    if len(inputs) > 1 and inputs[1] is not None:
        need_type(inputs[1], FLOAT32)
        need_dims(inputs[1], value.dims[-1:])
    return [Value(FLOAT32, value.dims)]


def reduce_(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """One number for each row."""
    value = given(node, inputs, 0)
    need_type(value, FLOAT32, INT64)
    found = constant_numbers(given(node, inputs, 1))
    axes = {axis_of(axis, len(value.dims)) for axis in found}
    need(len(axes) == len(found) > 0, "it reduces no axis")
    keeps = node.attributes.get("keepdims", 1)
    sizes = enumerate(value.dims)
    if keeps:
        dims: Dims = tuple(1 if axis in axes else size for axis, size in sizes)
    else:
        dims = tuple(size for axis, size in sizes if axis not in axes)
    return [Value(value.type, dims)]


def layer_norm(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """Rows with mean 0 and variance 1, times a gain, plus a bias."""
    value = given(node, inputs, 0)
    need_type(value, FLOAT32)
    for at in (1, 2):
        need_type(given(node, inputs, at), FLOAT32)
        need_dims(given(node, inputs, at), value.dims[-1:])
    check_epsilon(node, place)
    return [Value(FLOAT32, value.dims)]


def check_epsilon(node: Node, place: Place) -> None:
    """Raise GateError for another epsilon than the config's."""
    found, wanted = node.attributes.get("epsilon"), place.config.layer_norm_epsilon
    if not isinstance(found, float) or not abs(found - wanted) <= 1e-6 * wanted:
        raise GateError(f"its epsilon is {found}, the config's is {wanted}")


def quantize(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """Activations to 8 bits, a scale and a zero point for each block of a row."""
    value, scale, zero = (given(node, inputs, at) for at in range(3))
    need_type(value, FLOAT32)
    need_type(scale, FLOAT32)
    need_type(zero, UINT8)
    block = _block(node)
    axis = axis_of(whole_number(node, "axis", 1), len(value.dims))
    need(block > 0 and axis == len(value.dims) - 1, "it quantizes along an unexpected axis")
    dims = (*value.dims[:-1], -(-value.dims[-1] // block))
    need_dims(scale, dims)
    need_dims(zero, dims)
    return [Value(UINT8, value.dims)]


def dequantize(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """Stored weights to floats."""
    value, scale = given(node, inputs, 0), given(node, inputs, 1)
    need_type(value, INT8, INT4, UINT8)
    need_type(scale, FLOAT32)
    axis, block = axis_of(whole_number(node, "axis", 1), len(value.dims)), _block(node)
    size = value.dims[axis]
    if block:
        dims = (*value.dims[:axis], -(-size // block), *value.dims[axis + 1 :])
    else:
        dims = scale.dims if scale.dims == () else (size,)
    need_dims(scale, dims)
    if len(inputs) > 2:
        need_type(given(node, inputs, 2), value.type)
        need_dims(given(node, inputs, 2), dims)
    return [Value(FLOAT32, value.dims)]


def dynamic_quantize(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """Activations to 8 bits with one scale."""
    value = given(node, inputs, 0)
    need_type(value, FLOAT32)
    return [Value(UINT8, value.dims), Value(FLOAT32, ()), Value(UINT8, ())]


def _block(node: Node) -> int:
    block = whole_number(node, "block_size", 0)
    need(block <= MAX_BLOCK, "its blocks are too large")
    return block
