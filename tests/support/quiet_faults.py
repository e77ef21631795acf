"""Faults that hardly show: in one row of a batch, at one position, for one token, in one block of
one row, or only where values are large.

As those of `graph_faults`, they fit any bundle, and are found by the wiring.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from gpt_edge.config import GPTConfig
from tests.support.faults import get, number, put
from tests.support.graph_faults import (
    Edit,
    Planted,
    change,
    change_array,
    change_norm,
    given,
    index_of,
    node,
    operator,
    positions,
    weight_name,
)

# Weights


def permute_outputs(layer: int, name: str, order: Callable[[GPTConfig], np.ndarray]) -> Edit:
    """Rows of a linear layer, levels, scales and bias together: each is a right row of another
    output.
    """

    def edit(graph: ir.Graph, config: GPTConfig) -> None:
        mapped = operator(graph, config, layer, name)
        values = [v for n in mapped.nodes for v in n.inputs if v is not None]
        values += [mapped.bias] if mapped.bias is not None else []
        names = {str(v.name) for v in values if v.is_initializer() and f".{name}." in str(v.name)}
        for found in names:
            array = get(graph, found)
            rows = order(config)
            # heads may be padded, each by itself
            padded = config.n_head * 3 * max(config.head_size, _padded_size(graph, config))
            n = next(n for n in (rows.size, padded) if array.size % n == 0)
            if n != rows.size:
                raise LookupError(f"{found} is padded")
            if n in array.shape:
                axis = array.shape.index(n)
                put(graph, found, np.take(array, rows, axis))
            else:  # scales of blocks, flat
                put(graph, found, array.reshape(n, -1)[rows].reshape(array.shape))

    return edit


def _padded_size(graph: ir.Graph, config: GPTConfig) -> int:
    past = given(graph, "past_key_values.0.key")
    size = past.shape[3] if past is not None and past.shape is not None else config.head_size
    return size if isinstance(size, int) else config.head_size


def two_heads_of_queries(config: GPTConfig) -> np.ndarray:
    order = np.arange(3 * config.n_embd)
    size = config.head_size
    order[: 2 * size] = np.r_[order[size : 2 * size], order[:size]]
    return order


def keys_and_values_of_one_head(config: GPTConfig) -> np.ndarray:
    order = np.arange(3 * config.n_embd)
    keys = slice(config.n_embd, config.n_embd + config.head_size)
    values = slice(2 * config.n_embd, 2 * config.n_embd + config.head_size)
    order[keys], order[values] = order[values].copy(), order[keys].copy()
    return order


def move_the_later_positions(graph: ir.Graph, config: GPTConfig) -> None:
    """Rows of the table from the middle on are those of the position before."""
    name = next(str(n.inputs[0].name) for n, _ in index_of(graph, config, "positions"))
    table = get(graph, name)
    first = int(0.47 * config.n_ctx)
    table[first + 1 :] = table[first:-1].copy()
    put(graph, name, table)


def untie_the_head(graph: ir.Graph, config: GPTConfig) -> None:
    """The head reads a copy of the table, in which two neighbouring tokens are exchanged."""
    table = weight_name(graph, config, None, "head", "levels")
    array = get(graph, table)
    axis = array.shape.index(config.vocab_size)
    order = np.arange(config.vocab_size)
    order[[101, 102]] = order[[102, 101]]
    copied = put(graph, f"{table}_copy", np.take(array, order, axis))
    before = graph.initializers[table]
    own = operator(graph, config, None, "head").nodes
    # a transposed table may be an operator of the embedding's
    for use in list(before.uses()):
        if use.node in own:
            use.node.replace_input_with(use.idx, copied)


def last_scale(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    def edit(array: np.ndarray) -> np.ndarray:
        array.reshape(-1)[-1] *= factor
        return array

    return edit


def add_to_one(index: int, size: float) -> Callable[[np.ndarray], np.ndarray]:
    def edit(array: np.ndarray) -> np.ndarray:
        array.reshape(-1)[index] += np.asarray(size, array.dtype)
        return array

    return edit


def scale_one(index: int, factor: float) -> Callable[[np.ndarray], np.ndarray]:
    def edit(array: np.ndarray) -> np.ndarray:
        array.reshape(-1)[index] *= np.asarray(factor, array.dtype)
        return array

    return edit


ZERO_POINT_INPUTS = {"MatMulNBits": 3, "MatMulIntegerToFloat": 5, "DequantizeLinear": 2}


def move_one_zero_point(graph: ir.Graph, config: GPTConfig) -> None:
    """Of one row or block of weights."""
    mapped = operator(graph, config, 0, "mlp.c_fc")
    reader = next(n for n in mapped.nodes if n.op_type in ZERO_POINT_INPUTS)
    scales = get(graph, weight_name(graph, config, 0, "mlp.c_fc", "scales"))
    if reader.op_type == "MatMulNBits":
        bits = reader.attributes["bits"].as_int()
        rows = reader.attributes["N"].as_int()
        blocks = scales.size // rows
        zeros = np.full((rows, blocks), 1 << (bits - 1), np.uint8)
        zeros[5, 0] += 1
        if bits == 4:
            zeros = np.pad(zeros, ((0, 0), (0, blocks % 2)))
            zeros = zeros[:, 0::2] | zeros[:, 1::2] << 4
        made = number(graph, zeros.reshape(-1), np.uint8)
    else:
        zeros = np.zeros(scales.shape, np.int8)
        zeros.reshape(-1)[5] = 1
        made = number(graph, zeros, np.int8)
        levels = reader.inputs[0]
        if levels is not None and levels.dtype == ir.DataType.INT4:
            tensor = ir.tensor(zeros, dtype=ir.DataType.INT4, name=str(made.name))
            made.const_value, made.type = tensor, ir.TensorType(ir.DataType.INT4)
    index = ZERO_POINT_INPUTS[reader.op_type]
    reader.resize_inputs(max(len(reader.inputs), index + 1))
    reader.replace_input_with(index, made)


def share_the_weights_of_two_layers(graph: ir.Graph, config: GPTConfig) -> None:
    for what in ("levels", "scales"):
        try:
            first, second = (
                weight_name(graph, config, layer, "mlp.c_fc", what) for layer in (0, 1)
            )
        except LookupError:
            continue
        for use in list(graph.initializers[second].uses()):
            use.node.replace_input_with(use.idx, graph.initializers[first])


# Attributes and constants


def change_an_epsilon_a_little(graph: ir.Graph, config: GPTConfig) -> None:
    norm = operator(graph, config, 1, "ln_1").node
    norm.attributes["epsilon"] = ir.AttrFloat32("epsilon", 1.05 * config.layer_norm_epsilon)


def quantize_with_fewer_levels(graph: ir.Graph, config: GPTConfig) -> None:
    """The MLP's activations have 127 levels above zero, as other products' have, not 235."""
    other = number(graph, 1 / 127)
    nodes = operator(graph, config, 0, "mlp.c_proj").nodes
    for user in nodes:
        for index, value in enumerate(user.inputs):
            if value is not None and value.name in ("inverse_235", "inverse_255"):
                user.replace_input_with(index, other)


# Values that are rarely met


def floor_result(layer: int, name: str, limit: float) -> Edit:
    """What is far below zero is lost; a Max stands in many a product of 8 bits."""

    def edit(graph: ir.Graph, config: GPTConfig) -> None:
        mapped = operator(graph, config, layer, name)
        change(
            graph, mapped.values[0], lambda value: node(graph, "Max", [value, number(graph, limit)])
        )

    return edit


def floor_the_rows_scale(graph: ir.Graph, config: GPTConfig) -> None:
    """Rows of small values are rounded to steps that are too large for them."""
    mapped = operator(graph, config, 0, "attn.c_attn")
    quantize = next(n for n in mapped.nodes if n.op_type == "QuantizeLinear")
    change(graph, quantize.inputs[1], lambda v: node(graph, "Max", [v, number(graph, 1e-3)]))


def add_by_a_sum(graph: ir.Graph, config: GPTConfig) -> None:
    """A node Sum, where an Add would be counted."""
    mapped = operator(graph, config, 1, "attn.c_proj")
    change(graph, mapped.values[0], lambda value: node(graph, "Sum", [value, number(graph, 0.003)]))


# Single tokens and positions


def map_the_last_id(graph: ir.Graph, config: GPTConfig) -> None:
    """Ids go through a table in which the last one is the first."""
    table = np.arange(config.vocab_size)
    table[-1] = 0
    for user, index in index_of(graph, config, "ids"):
        mapped = node(graph, "Gather", [number(graph, table, np.int64), user.inputs[index]])
        user.replace_input_with(index, mapped)


def spoil_one_pair(graph: ir.Graph, config: GPTConfig) -> None:
    """One token is wrong at one position alone; both tables are right."""
    token, position = np.zeros(config.vocab_size), np.zeros(config.n_ctx)
    token[17], position[config.n_ctx // 2] = 1, 1
    ids = given(graph, "input_ids")
    is_token = node(graph, "Gather", [number(graph, token), ids])
    is_there = node(graph, "Gather", [number(graph, position), positions(graph)])
    both = node(graph, "Mul", [is_token, is_there])
    size = node(graph, "Unsqueeze", [both, number(graph, [2], np.int64)])
    lookup, _ = index_of(graph, config, "positions")[0]
    change(graph, lookup.outputs[0], lambda value: node(graph, "Add", [value, size]))


def look_ahead_once(graph: ir.Graph, config: GPTConfig) -> None:
    """One position of a portable language model's first layer sees the next token."""
    attention = operator(graph, config, 0, "attn.attention").node
    mask = attention.inputs[3]
    total = node(graph, "Squeeze", [node(graph, "Shape", [attention.inputs[1]], start=2, end=3)])
    zero, one = number(graph, 0, np.int64), number(graph, 1, np.int64)
    keys = node(graph, "Range", [zero, total, one])
    queries = node(graph, "Unsqueeze", [positions(graph), number(graph, [1, 3], np.int64)])
    at = number(graph, config.n_ctx // 2, np.int64)
    is_next = node(graph, "Equal", [keys, number(graph, config.n_ctx // 2 + 1, np.int64)])
    both = node(graph, "And", [node(graph, "Equal", [queries, at]), is_next])
    attention.replace_input_with(3, node(graph, "Or", [mask, both]))


def forget_the_first_token(graph: ir.Graph, config: GPTConfig) -> None:
    """Behind a cache the second layer's attention sees the first value halved."""
    attention = operator(graph, config, 1, "attn.attention").node
    index = 4 if attention.op_type == "GroupQueryAttention" else 2
    value = attention.inputs[index]
    name = "past_key_values.1.value"
    if attention.op_type == "Attention":
        joined = value.producer()
        attention, index = joined, 0
        value = joined.inputs[0]
    assert value.name == name
    length = node(graph, "Squeeze", [node(graph, "Shape", [value], start=2, end=3)])
    zero, one = number(graph, 0, np.int64), number(graph, 1, np.int64)
    at = node(graph, "Range", [zero, length, one])
    shape = node(graph, "Unsqueeze", [at, number(graph, [1], np.int64)])
    is_first = node(graph, "Equal", [shape, zero])
    factor = node(graph, "Where", [is_first, number(graph, 0.5), number(graph, 1.0)])
    attention.replace_input_with(index, node(graph, "Mul", [value, factor]))


# Rows of a batch


def give_rows_of_a_batch_one_length(graph: ir.Graph, config: GPTConfig) -> None:
    """The lengths of all rows are that of the longest."""
    attention = operator(graph, config, 1, "attn.attention").node
    total = given(graph, "total_sequence_length")
    longest = node(graph, "Sub", [total, number(graph, [1], np.int32)])
    shape = node(graph, "Shape", [given(graph, "seqlens_k")])
    attention.replace_input_with(5, node(graph, "Expand", [longest, shape]))


def give_rows_of_a_batch_the_first_rows_positions(graph: ir.Graph, config: GPTConfig) -> None:
    found = given(graph, "position_ids")
    users = index_of(graph, config, "positions")
    bounds = (number(graph, [n], np.int64) for n in (0, 1, 0))
    first = node(graph, "Slice", [found, *bounds])
    same = node(graph, "Expand", [first, node(graph, "Shape", [found])])
    for user, index in users:
        user.replace_input_with(index, same)


def read_the_padding(graph: ir.Graph, config: GPTConfig) -> None:
    """A portable mask that lets every row see what only the longest has."""
    mask = given(graph, "attention_mask")
    uses = [(use.node, use.idx) for use in mask.uses() if use.node.op_type != "Shape"]
    ones = node(
        graph,
        "Or",
        [node(graph, "Cast", [mask], to=ir.DataType.BOOL), number(graph, True, np.bool_)],
    )
    every = node(graph, "Cast", [ones], to=ir.DataType.INT64)
    for user, index in uses:
        user.replace_input_with(index, every)


# Heads


def sum_one_order_twice(graph: ir.Graph, config: GPTConfig) -> None:
    """A similarity is the sum over both orders of its two texts."""
    head = operator(graph, config, None, "head").nodes
    both = next(n for n in head if n.op_type == "Add" and all(v.producer() for v in n.inputs))
    both.replace_input_with(1, both.inputs[0])


def read_the_state_before(graph: ir.Graph, config: GPTConfig) -> None:
    """The head reads the token before the one it is asked for."""
    picks = next(n for n in graph if n.op_type == "GatherND")
    at = picks.inputs[1]
    before = node(graph, "Sub", [at, number(graph, 1, np.int64)])
    first = node(graph, "Max", [before, number(graph, 0, np.int64)])
    for use in list(at.uses()):
        if use.node.op_type == "GatherND":
            use.node.replace_input_with(use.idx, first)


FAULTS = (
    Planted(
        "two heads of the queries swapped",
        "layer 1, attn.c_attn",
        permute_outputs(1, "attn.c_attn", two_heads_of_queries),
    ),
    Planted(
        "keys and values of one head swapped",
        "layer 0, attn.c_attn",
        permute_outputs(0, "attn.c_attn", keys_and_values_of_one_head),
    ),
    Planted(
        "later positions read the one before", "embedding", move_the_later_positions, ("middle",)
    ),
    Planted("a head that is not tied", "head", untie_the_head, ("lm",)),
    Planted(
        "the last scale 1.5 % off",
        "layer 1, mlp.c_fc",
        change_array(1, "mlp.c_fc", "scales", last_scale(1.015)),
        ("quantized",),
    ),
    Planted(
        "the last scale negated",
        "layer 1, attn.c_proj",
        change_array(1, "attn.c_proj", "scales", last_scale(-1)),
        ("quantized",),
    ),
    Planted("one zero point moved", "layer 0, mlp.c_fc", move_one_zero_point, ("quantized",)),
    Planted(
        "one bias + 0.001",
        "layer 1, mlp.c_proj",
        change_array(1, "mlp.c_proj", "bias", add_to_one(3, 0.001)),
    ),
    Planted(
        "one bias not a number",
        "layer 1, attn.c_proj",
        change_array(1, "attn.c_proj", "bias", add_to_one(3, np.nan)),
    ),
    Planted("one gain x 1.0001", "layer 1, ln_2", change_norm(1, "ln_2", 0, 1.0001)),
    Planted(
        "one weight x 1.00001",
        "layer 0, mlp.c_proj",
        change_array(0, "mlp.c_proj", "levels", scale_one(-1, 1.00001)),
        ("float",),
    ),
    Planted("one layer's weights used twice", "layer 1, mlp.c_fc", share_the_weights_of_two_layers),
    Planted("an epsilon 5 % off", "layer 1, ln_1", change_an_epsilon_a_little),
    Planted(
        "fewer levels for activations",
        "layer 0, mlp.c_proj",
        quantize_with_fewer_levels,
        ("row", "gelu"),
    ),
    Planted(
        "a branch floored at -50", "layer 0, attn.c_proj", floor_result(0, "attn.c_proj", -50.0)
    ),
    Planted(
        "a step of activations floored", "layer 0, attn.c_attn", floor_the_rows_scale, ("row",)
    ),
    Planted("0.003 added by a Sum", "layer 1, attn.c_proj", add_by_a_sum),
    Planted("the last id read as the first", "embedding", map_the_last_id),
    Planted("one token wrong at one position", "embedding", spoil_one_pair, ("middle",)),
    Planted(
        "one position sees the next token",
        "layer 0, attn.attention",
        look_ahead_once,
        ("portable", "lm"),
    ),
    Planted(
        "the first value in the cache halved",
        "layer 1, attn.attention | layer 1, attn.c_attn",
        forget_the_first_token,
        ("lm",),
    ),
    Planted(
        "rows of a batch have one length",
        "layer 1, attn.attention",
        give_rows_of_a_batch_one_length,
        ("edge",),
    ),
    Planted(
        "rows of a batch read the first row's positions",
        "embedding",
        give_rows_of_a_batch_the_first_rows_positions,
        ("lm",),
    ),
    Planted("padding is read", "layer 0, attn.attention", read_the_padding, ("portable", "lm")),
    Planted("one order of a similarity twice", "head", sum_one_order_twice, ("pairs",)),
    Planted("the state before is read", "head", read_the_state_before, ("picks",)),
)
