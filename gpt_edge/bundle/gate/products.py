"""Products, attention and what the edge graph fuses: each function returns what a node's outputs
are, or raises GateError.
"""

from __future__ import annotations

import math

from gpt_edge.bundle.gate.arithmetic import check_epsilon
from gpt_edge.bundle.gate.limits import (
    BOOL,
    FLOAT32,
    INT8,
    INT32,
    INT64,
    MAX_BLOCK,
    UINT8,
    GateError,
)
from gpt_edge.bundle.gate.records import Node
from gpt_edge.bundle.gate.shaping import check_rows
from gpt_edge.bundle.gate.values import (
    Inputs,
    Place,
    Value,
    given,
    need,
    need_dims,
    need_type,
    product_dims,
    whole_number,
)


def matmul(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """Rows times a matrix."""
    left, right = given(node, inputs, 0), given(node, inputs, 1)
    need_type(left, FLOAT32)
    need_type(right, FLOAT32)
    dims = right.dims
    if node.attributes.get("transB"):
        dims = dims[::-1]
    return [Value(FLOAT32, product_dims(left.dims, dims))]


def gemm(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """Rows times a matrix, plus a bias."""
    left, right, bias = (given(node, inputs, at) for at in range(3))
    for value in (left, right, bias):
        need_type(value, FLOAT32)
    dims = right.dims[::-1] if node.attributes.get("transB") else right.dims
    need(len(left.dims) == 2, "its rows are no matrix")
    out = product_dims(left.dims, dims)
    need_dims(bias, out[1:])
    return [Value(FLOAT32, out)]


def matmul_integer(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """Rows of bytes times a matrix of bytes."""
    left, right, left_zero, right_zero = (given(node, inputs, at) for at in range(4))
    need_type(left, UINT8)
    need_type(left_zero, UINT8)
    need_type(right, INT8, UINT8)
    need_type(right_zero, right.type)
    dims = product_dims(left.dims, right.dims)
    need_dims(left_zero, (), (1,))
    need_dims(right_zero, (), (1,), dims[-1:])
    return [Value(INT32, dims)]


def matmul_integer_to_float(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """The same, scaled to floats."""
    left, right, left_scale, right_scale, zero = (given(node, inputs, at) for at in range(5))
    need_type(left, UINT8)
    need_type(right, INT8)
    need_type(left_scale, FLOAT32)
    need_type(right_scale, FLOAT32)
    need_type(zero, UINT8)
    dims = product_dims(left.dims, right.dims)
    need_dims(left_scale, (), (1,))
    need_dims(right_scale, (), (1,), dims[-1:])
    need_dims(zero, (), (1,))
    if len(inputs) > 5 and inputs[5] is not None:
        need_type(inputs[5], INT8)
        need_dims(inputs[5], (), (1,), dims[-1:])
    if len(inputs) > 6 and inputs[6] is not None:
        need_type(inputs[6], FLOAT32)
        need_dims(inputs[6], dims[-1:])
    return [Value(FLOAT32, dims)]


def matmul_nbits(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """Rows times a matrix whose columns are stored in blocks of 4 or 8 bits."""
    value, weights, scales = (given(node, inputs, at) for at in range(3))
    need_type(value, FLOAT32)
    need_type(weights, UINT8)
    need_type(scales, FLOAT32)
    depth, width, bits, block = (
        whole_number(node, name) for name in ("K", "N", "bits", "block_size")
    )
    if value.dims[-1:] != (depth,):
        raise GateError(f"its K is {depth}, its rows differ")
    _check_blocks(bits, block)
    n_blocks = -(-depth // block)
    n_bytes = n_blocks * block * bits // 8
    need(weights.size == width * n_bytes and weights.dims[0] == width, "its weights do not fit")
    need(scales.size == width * n_blocks, "its scales do not fit")
    if len(inputs) > 3 and inputs[3] is not None:
        need_type(inputs[3], UINT8)
        need(inputs[3].size == width * -(-n_blocks * bits // 8), "its zero points do not fit")
    need(len(inputs) < 5 or inputs[4] is None, "it orders its groups")
    if len(inputs) > 5 and inputs[5] is not None:
        need_type(inputs[5], FLOAT32)
        need_dims(inputs[5], (width,))
    return [Value(FLOAT32, (*value.dims[:-1], width))]


def gather_block_quantized(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """Rows of a table stored in blocks of 4 or 8 bits."""
    table, indices, scales = (given(node, inputs, at) for at in range(3))
    need_type(table, UINT8)
    need_type(indices, INT64)
    need_type(scales, FLOAT32)
    bits, block = whole_number(node, "bits"), whole_number(node, "block_size")
    _check_blocks(bits, block)
    need(len(table.dims) == 3, "its table has an unexpected rank")
    n_rows, n_blocks, n_bytes = table.dims
    width = n_bytes * (8 // bits)
    check_rows(n_rows, indices, place)
    need_dims(scales, (n_rows, n_blocks, -(-width // block)))
    if len(inputs) > 3:
        zeros = given(node, inputs, 3)
        need_type(zeros, UINT8)
        need(zeros.size in (n_rows * n_blocks, -(-n_rows * n_blocks // 2)), "zero points")
    return [Value(FLOAT32, (*indices.dims, n_blocks, width))]


def _check_blocks(bits: int, block: int) -> None:
    is_power = block & (block - 1) == 0
    if bits not in (4, 8) or not is_power or not 16 <= block <= MAX_BLOCK:
        raise GateError(f"its blocks have {block} weights of {bits} bits")


def grouped_attention(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """Attention of one layer of the edge graph, which writes keys and values in place."""
    config, width = place.config, place.head_size
    value = given(node, inputs, 0)
    need_type(value, FLOAT32)
    heads = (whole_number(node, "num_heads"), whole_number(node, "kv_num_heads"))
    if heads != (config.n_head, config.n_head):
        raise GateError(f"it has {heads[0]} heads")
    need(len(value.dims) == 3 and value.dims[2] == 3 * config.n_head * width, "its width differs")
    batch = value.dims[0]
    has_past = inputs[3] is not None and inputs[4] is not None
    need(has_past != config.is_encoder, "its keys and values are not those of its kind")
    need(not any(inputs[1:3]), "it has unexpected inputs")
    for at, dims in ((5, (batch,)), (6, (1,))):
        need_type(given(node, inputs, at), INT32)
        need_dims(given(node, inputs, at), dims)
    out = Value(FLOAT32, (batch, value.dims[1], config.n_head * width))
    if not has_past:
        need(inputs[3] is None and inputs[4] is None, "it has keys without values")
        cache = Value(FLOAT32, (batch, config.n_head, value.dims[1], width))
        return [out, cache, cache]
    key, past = given(node, inputs, 3), given(node, inputs, 4)
    for part in (key, past):
        need_type(part, FLOAT32)
    need(key.dims == past.dims and len(key.dims) == 4, "its keys and values differ in shape")
    need(key.dims[:2] == (batch, config.n_head) and key.dims[3] == width, "its keys do not fit")
    return [out, key, past]


def attention(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """Attention of one layer of the portable graph."""
    query, key, value = (given(node, inputs, at) for at in range(3))
    for part in (query, key, value):
        need_type(part, FLOAT32)
        need(len(part.dims) == 4, "its inputs have an unexpected rank")
    batch, heads, length, width = query.dims
    config = place.config
    need((heads, width) == (config.n_head, config.head_size), "its heads are not the config's")
    need(key.dims == value.dims and key.dims[:2] == (batch, heads), "its keys do not fit")
    need(key.dims[3] == width and key.dims[2] >= length, "its keys do not fit")
    if len(inputs) > 3:
        mask = given(node, inputs, 3)
        need_type(mask, BOOL, FLOAT32)
        full = (batch, heads, length, key.dims[2])
        ends = zip(mask.dims[::-1], full[::-1], strict=False)
        need(len(mask.dims) <= 4, "its mask has an unexpected rank")
        need(all(size in (1, whole) for size, whole in ends), "its mask does not fit")
    scale, wanted = node.attributes.get("scale"), config.attention_scale
    is_near = isinstance(scale, float) and math.isclose(scale, wanted, rel_tol=1e-5)
    need(is_near, f"its scale is {scale}, the config's is {wanted}")
    return [Value(FLOAT32, query.dims)]


def skip_layer_norm(node: Node, inputs: Inputs, place: Place) -> list[Value]:
    """A sum, and its norm."""
    value = given(node, inputs, 0)
    need_type(value, FLOAT32)
    need_type(given(node, inputs, 1), FLOAT32)
    need(len(value.dims) == 3, "its rows have an unexpected rank")
    skip = given(node, inputs, 1).dims
    need(skip in (value.dims, (1, *value.dims[1:]), value.dims[1:]), "its sum does not fit")
    for at in (2, 3, 4):
        if at < 4 or (len(inputs) > 4 and inputs[4] is not None):
            need_type(given(node, inputs, at), FLOAT32)
            need_dims(given(node, inputs, at), value.dims[-1:])
    check_epsilon(node, place)
    need(not any(node.outputs[1:3]), "it returns what no export asks for")
    row = Value(FLOAT32, (*value.dims[:-1], 1))
    return [Value(FLOAT32, value.dims), row, row, Value(FLOAT32, value.dims)]
