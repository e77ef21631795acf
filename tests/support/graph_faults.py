"""Faults that can be planted in any bundle: of either graph, any scheme, with or without a head.

Each finds its place by the wiring, not by names of weights. `Planted.place` is where the verifier
has to find it, by operator; "" where any place will do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.config import GPTConfig
from gpt_edge.export.verify.graph_map import MappedOperator, map_operators
from gpt_edge.export.weights.reference_operators import ReferenceOperator
from gpt_edge.schemes import SCHEMES
from tests.support.faults import get, number, put

Edit = Callable[[ir.Graph, GPTConfig], None]
FLOAT = ir.DataType.FLOAT


@dataclass(frozen=True)
class Planted:
    """needs: names of `features`."""

    name: str
    place: str
    edit: Edit
    needs: tuple[str, ...] = ()

    def fits(self, bundle: Bundle) -> bool:
        return set(self.needs) <= features(bundle)

    def places_in(self, config: GPTConfig) -> list[str]:
        """As the verifier writes it; what lies between two operators may be said of both."""
        names = {
            "head": "lm_head" if config.n_label is None else "task_head",
            "final": "ln_f" if config.norm == "pre" else f"layer {config.n_layer - 1}, ln_2",
        }
        return [names.get(place, place) for place in self.place.split(" | ")]


def features(bundle: Bundle) -> set[str]:
    """What a fault may need of a bundle."""
    is_quantized = not SCHEMES[bundle.scheme].is_float
    found = {
        bundle.graph: True,
        "lm": bundle.task is None,
        "task": bundle.task is not None,
        "labels": (bundle.config.n_label or 1) > 1,
        "outputs": bundle.config.n_label != 1,
        "quantized": is_quantized,
        "float": not is_quantized,
        "row": bundle.graph == "edge" and bundle.scheme == "int8",
        "gelu": bundle.config.activation != "relu",
        "pairs": bundle.task is not None and bundle.task.kind == "similarity",
        "picks": bundle.graph == "edge" and bundle.task is None,
        "middle": bundle.config.n_ctx >= 64,
        "tanh": bundle.config.activation == "gelu_tanh",
        "banded": bundle.config.window is not None,
    }
    return {name for name, is_there in found.items() if is_there}


# Tools


def operator(graph: ir.Graph, config: GPTConfig, layer: int | None, name: str) -> MappedOperator:
    if name == "head":
        name = "lm_head" if config.n_label is None else "task_head"
    return map_operators(graph, config)[0][ReferenceOperator(layer, name)]


def node(graph: ir.Graph, op_type: str, inputs: list[Any], **attributes: Any) -> ir.Value:
    """A new node's output; plant() sorts the graph."""
    made = ir.node(op_type, inputs, attributes=attributes)
    graph.append(made)
    return made.outputs[0]


def change(graph: ir.Graph, value: ir.Value, make: Callable[[ir.Value], ir.Value]) -> None:
    """Everything that reads `value` reads what `make` makes of it; an output keeps its name."""
    uses = [(use.node, use.idx) for use in value.uses()]
    is_output = [i for i, output in enumerate(graph.outputs) if output is value]
    new = make(value)
    for user, index in uses:
        user.replace_input_with(index, new)
    for index in is_output:
        name, value.name = value.name, f"{value.name}_before"
        new.name, new.type, new.shape = name, value.type, value.shape
        graph.outputs[index] = new


def given(graph: ir.Graph, name: str) -> ir.Value | None:
    return next((value for value in graph.inputs if value.name == name), None)


def positions(graph: ir.Graph) -> ir.Value:
    """int64 [B or 1, T]."""
    if (found := given(graph, "position_ids")) is not None:
        return found
    ids = given(graph, "input_ids")
    length = node(graph, "Squeeze", [node(graph, "Shape", [ids], start=1, end=2)])
    zero, one = number(graph, 0, np.int64), number(graph, 1, np.int64)
    counted = node(graph, "Range", [zero, length, one])
    return node(graph, "Unsqueeze", [counted, number(graph, [0], np.int64)])


def in_the_middle(graph: ir.Graph, config: GPTConfig, low: float, high: float) -> ir.Value:
    """bool [B or 1, T]: true at the positions from low to high, fractions of the context."""
    at = positions(graph)
    above = node(graph, "Greater", [at, number(graph, int(low * config.n_ctx), np.int64)])
    below = node(graph, "Less", [at, number(graph, int(high * config.n_ctx), np.int64)])
    return node(graph, "And", [above, below])


def column(graph: ir.Graph, value: ir.Value) -> ir.Value:
    return node(graph, "Unsqueeze", [value, number(graph, [2], np.int64)])


def scaled(graph: ir.Graph, value: ir.Value, factor: float) -> ir.Value:
    return node(graph, "Mul", [value, number(graph, factor)])


def index_of(graph: ir.Graph, config: GPTConfig, source: str) -> list[tuple[ir.Node, int]]:
    """The look-ups of the embedding by ids or by positions, and which input the index is."""
    nodes = operator(graph, config, None, "embedding").nodes
    lookups = [n for n in nodes if n.op_type in ("Gather", "GatherBlockQuantized")]
    ids = given(graph, "input_ids")
    by_ids = [n for n in lookups if n.inputs[1] is ids]
    chosen = by_ids if source == "ids" else [n for n in lookups if n not in by_ids]
    return [(n, 1) for n in chosen]


def weight_name(graph: ir.Graph, config: GPTConfig, layer: int | None, name: str, what: str) -> str:
    """The initializer of an operator's weights ("levels"), "scales" or "bias"."""
    mapped = operator(graph, config, layer, name)
    values = [v for n in mapped.nodes for v in n.inputs if v is not None and v.is_initializer()]
    values += [mapped.bias] if mapped.bias is not None else []
    end = {"scales": "_scales", "bias": ".bias"}.get(what)
    for value in values:
        text = str(value.name)
        if end is not None and text.endswith(end):
            return text
        if end is None and ".weight" in text and not text.endswith("_scales"):
            return text
    raise LookupError(f"{name} has no {what}")


# Wiring over the context and the vocabulary


def read_positions_off_by_one_in_the_middle(graph: ir.Graph, config: GPTConfig) -> None:
    inside = in_the_middle(graph, config, 0.3, 0.9)
    for user, index in index_of(graph, config, "positions"):
        before = user.inputs[index]
        moved = node(graph, "Add", [before, number(graph, 1, np.int64)])
        user.replace_input_with(index, node(graph, "Where", [inside, moved, before]))


def read_one_id_as_another(graph: ir.Graph, config: GPTConfig) -> None:
    for user, index in index_of(graph, config, "ids"):
        before = user.inputs[index]
        is_it = node(graph, "Equal", [before, number(graph, 17, np.int64)])
        other = number(graph, 60, np.int64)
        user.replace_input_with(index, node(graph, "Where", [is_it, other, before]))


def zero_one_position(graph: ir.Graph, config: GPTConfig) -> None:
    name = next(str(n.inputs[0].name) for n, _ in index_of(graph, config, "positions"))
    table = get(graph, name)
    table[config.n_ctx // 2 + 1] = 0
    put(graph, name, table)


def permute_rows_of_the_embedding(graph: ir.Graph, config: GPTConfig) -> None:
    """20 rows, levels and scales together, so that each is a right row of another token."""
    rows = np.arange(30, 50)
    for user, _ in index_of(graph, config, "ids"):
        for value in user.inputs:
            tensor = value
            while tensor is not None and not tensor.is_initializer() and tensor.producer():
                tensor = tensor.producer().inputs[0]
            if tensor is None or tensor.name == "input_ids" or not tensor.is_initializer():
                continue
            array = get(graph, str(tensor.name))
            if config.vocab_size not in array.shape:
                continue
            moved = np.moveaxis(array, array.shape.index(config.vocab_size), 0).copy()
            moved[rows] = moved[rows[::-1]]
            back = np.moveaxis(moved, 0, array.shape.index(config.vocab_size))
            put(graph, str(tensor.name), np.ascontiguousarray(back))


def scale_a_branch_in_the_middle(graph: ir.Graph, config: GPTConfig) -> None:
    mapped = operator(graph, config, 0, "mlp.c_proj")
    inside = column(graph, in_the_middle(graph, config, 0.3, 0.95))
    factor = node(graph, "Where", [inside, number(graph, 1.1), number(graph, 1.0)])
    change(graph, mapped.values[0], lambda value: node(graph, "Mul", [value, factor]))


def go_wrong_in_a_cached_step(graph: ir.Graph, config: GPTConfig) -> None:
    """Only where one token is read, and only in a part of the context."""
    mapped = operator(graph, config, 0, "mlp.c_proj")
    ids = given(graph, "input_ids")
    length = node(graph, "Shape", [ids], start=1, end=2)
    is_step = node(graph, "Equal", [length, number(graph, [1], np.int64)])
    inside = in_the_middle(graph, config, 0.3, 0.95)
    both = column(graph, node(graph, "And", [inside, is_step]))
    factor = node(graph, "Where", [both, number(graph, 1.15), number(graph, 1.0)])
    change(graph, mapped.values[0], lambda value: node(graph, "Mul", [value, factor]))


def narrow_a_dense_layer(graph: ir.Graph, config: GPTConfig) -> None:
    attention = operator(graph, config, 0, "attn.attention").node
    width = max(2, config.n_ctx // 4)
    if attention.op_type == "GroupQueryAttention":
        attention.attributes["local_window_size"] = ir.AttrInt64("local_window_size", width)
        return
    total = node(graph, "Shape", [attention.inputs[1]], start=2, end=3)
    keys = node(
        graph,
        "Range",
        [
            number(graph, 0, np.int64),
            node(graph, "Squeeze", [total]),
            number(graph, 1, np.int64),
        ],
    )
    queries = node(graph, "Unsqueeze", [positions(graph), number(graph, [1, 3], np.int64)])
    oldest = node(graph, "Sub", [queries, number(graph, width, np.int64)])
    seen = node(graph, "Greater", [keys, oldest])
    if len(attention.inputs) > 3 and attention.inputs[3] is not None:
        attention.replace_input_with(3, node(graph, "And", [attention.inputs[3], seen]))
        return
    causal = node(graph, "LessOrEqual", [keys, queries])
    attention.resize_inputs(4)
    attention.replace_input_with(3, node(graph, "And", [causal, seen]))
    attention.attributes["is_causal"] = ir.AttrInt64("is_causal", 0)


def give_rows_of_a_batch_the_first_rows_ids(graph: ir.Graph, config: GPTConfig) -> None:
    """Right for one sequence, wrong for several."""
    ids = given(graph, "input_ids")
    assert ids is not None
    users = index_of(graph, config, "ids")
    first = node(
        graph,
        "Slice",
        [ids, *(number(graph, [n], np.int64) for n in (0, 1, 0))],
    )
    same = node(graph, "Expand", [first, node(graph, "Shape", [ids])])
    for user, index in users:
        user.replace_input_with(index, same)


# Attributes


def set_attention(name: str, value: float) -> Edit:
    def edit(graph: ir.Graph, config: GPTConfig) -> None:
        attention = operator(graph, config, 1, "attn.attention").node
        is_whole = isinstance(value, int)
        made = ir.AttrInt64(name, int(value)) if is_whole else ir.AttrFloat32(name, value)
        attention.attributes[name] = made

    return edit


def scale_attention(factor: float) -> Edit:
    def edit(graph: ir.Graph, config: GPTConfig) -> None:
        set_attention("scale", config.attention_scale * factor)(graph, config)

    return edit


def change_an_epsilon(graph: ir.Graph, config: GPTConfig) -> None:
    norm = operator(graph, config, 0, "ln_2").node
    norm.attributes["epsilon"] = ir.AttrFloat32("epsilon", 1e-6)


def use_another_activation(graph: ir.Graph, config: GPTConfig) -> None:
    mapped = operator(graph, config, 1, "mlp.activation")
    inner = mapped.node.inputs[0]
    if len(mapped.node.inputs) > 1 and mapped.node.inputs[1] is not None:
        inner = node(graph, "Add", [inner, mapped.node.inputs[1]])
    exact = node(graph, "Gelu", [inner])
    old = mapped.node.outputs[0]
    old.replace_all_uses_with(exact)
    graph.remove(mapped.node)


# Arithmetic in one place


def scale_result(layer: int | None, name: str, factor: float) -> Edit:
    def edit(graph: ir.Graph, config: GPTConfig) -> None:
        mapped = operator(graph, config, layer, name)
        change(graph, mapped.values[0], lambda value: scaled(graph, value, factor))

    return edit


def shift_result(layer: int | None, name: str, size: float) -> Edit:
    def edit(graph: ir.Graph, config: GPTConfig) -> None:
        mapped = operator(graph, config, layer, name)
        value = mapped.values[0]
        change(graph, value, lambda v: node(graph, "Add", [v, number(graph, size)]))

    return edit


def clip_result(layer: int | None, name: str, limit: float) -> Edit:
    def edit(graph: ir.Graph, config: GPTConfig) -> None:
        mapped = operator(graph, config, layer, name)
        ends = [number(graph, -limit), number(graph, limit)]
        change(graph, mapped.values[0], lambda value: node(graph, "Clip", [value, *ends]))

    return edit


def round_result(layer: int | None, name: str) -> Edit:
    """Through float16 and back."""

    def edit(graph: ir.Graph, config: GPTConfig) -> None:
        mapped = operator(graph, config, layer, name)

        def half(value: ir.Value) -> ir.Value:
            cast = node(graph, "Cast", [value], to=ir.DataType.BFLOAT16)
            return node(graph, "Cast", [cast], to=FLOAT)

        change(graph, mapped.values[0], half)

    return edit


def swap_two_logits(graph: ir.Graph, config: GPTConfig) -> None:
    n = config.n_label or config.vocab_size
    order = np.arange(n)
    order[[0, n - 1]] = order[[n - 1, 0]]
    logits = next(value for value in graph.outputs if value.name == "logits")
    change(
        graph, logits, lambda v: node(graph, "Gather", [v, number(graph, order, np.int64)], axis=-1)
    )


def forget_the_residual(graph: ir.Graph, config: GPTConfig) -> None:
    mapped = operator(graph, config, 1, "mlp.residual")
    branch = operator(graph, config, 1, "mlp.c_proj").values[0]
    index = next(i for i, v in enumerate(mapped.node.inputs[:2]) if v is not branch)
    stream = mapped.node.inputs[index]
    mapped.node.replace_input_with(index, scaled(graph, stream, 0.0))


def read_the_layer_before(graph: ir.Graph, config: GPTConfig) -> None:
    """The second layer's attention gets the first layer's queries, keys and values."""
    first = operator(graph, config, 0, "attn.attention").node
    second = operator(graph, config, 1, "attn.attention").node
    second.replace_input_with(0, first.inputs[0])


def hand_out_other_states(graph: ir.Graph, config: GPTConfig) -> None:
    """The output of vectors, which the logits do not read."""
    index = next(i for i, v in enumerate(graph.outputs) if v.name == "hidden_states")
    old = graph.outputs[index]
    new = scaled(graph, old, 1.05)
    name, old.name = old.name, "before_states"
    new.name, new.type, new.shape = name, old.type, old.shape
    graph.outputs[index] = new


# Weights and constants


def change_array(
    layer: int | None, name: str, what: str, edit_array: Callable[[np.ndarray], np.ndarray]
) -> Edit:
    def edit(graph: ir.Graph, config: GPTConfig) -> None:
        found = weight_name(graph, config, layer, name, what)
        put(graph, found, edit_array(get(graph, found)))

    return edit


def change_norm(layer: int, name: str, index: int, factor: float) -> Edit:
    """The gain (0) or shift (1) of a norm."""

    def edit(graph: ir.Graph, config: GPTConfig) -> None:
        norm = operator(graph, config, layer, name).node
        first = 2 if norm.op_type == "SkipLayerNormalization" else 1
        found = str(norm.inputs[first + index].name)
        array = get(graph, found)
        array[3] *= factor
        put(graph, found, array)

    return edit


def scale_one_scale(array: np.ndarray) -> np.ndarray:
    array.reshape(-1)[2] *= 1.5
    return array


def move_one_level(array: np.ndarray) -> np.ndarray:
    flat = array.reshape(-1)
    flat[7] = flat[7] ^ 0x30 if array.dtype.kind in "iu" else flat[7] + 0.05
    return array


def swap_two_rows(array: np.ndarray) -> np.ndarray:
    array[[2, 5]] = array[[5, 2]]
    return array


def spoil_a_constant(name: str, factor: float) -> Edit:
    def edit(graph: ir.Graph, config: GPTConfig) -> None:
        put(graph, name, (get(graph, name) * np.float32(factor)).astype(np.float32))

    return edit


def swap_biases_of_two_layers(graph: ir.Graph, config: GPTConfig) -> None:
    names = [weight_name(graph, config, layer, "attn.c_proj", "bias") for layer in (0, 1)]
    first, second = (get(graph, name) for name in names)
    put(graph, names[0], second)
    put(graph, names[1], first)


def drop_the_bias_of(layer: int | None, name: str) -> Edit:
    return change_array(layer, name, "bias", np.zeros_like)


def swap_the_caches(graph: ir.Graph, config: GPTConfig) -> None:
    """Keys of layer 0 and of layer 1 change places on their way out."""
    pairs = {value.name: i for i, value in enumerate(graph.outputs)}
    a, b = pairs["present.0.key"], pairs["present.1.key"]
    first, second = graph.outputs[a], graph.outputs[b]
    first.name, second.name = second.name, first.name
    graph.outputs[a], graph.outputs[b] = second, first


ANY_LM = ("lm", "middle")
FAULTS = (
    # over the context and the vocabulary
    Planted(
        "positions off by one in the middle",
        "embedding",
        read_positions_off_by_one_in_the_middle,
        ("middle",),
    ),
    Planted("one id read as another", "embedding", read_one_id_as_another),
    Planted("one position zeroed", "embedding", zero_one_position, ("middle",)),
    Planted("20 rows of the embedding permuted", "embedding", permute_rows_of_the_embedding),
    Planted(
        "a branch x 1.1 in the middle",
        "layer 0, mlp.c_proj",
        scale_a_branch_in_the_middle,
        ("middle",),
    ),
    Planted(
        "a cached step wrong in the middle",
        "layer 0, mlp.c_proj",
        go_wrong_in_a_cached_step,
        ANY_LM,
    ),
    Planted("a dense layer narrowed", "layer 0, attn.attention", narrow_a_dense_layer, ("middle",)),
    Planted(
        "rows of a batch read the first row's ids",
        "embedding",
        give_rows_of_a_batch_the_first_rows_ids,
    ),
    # attributes
    Planted("attention scale x 1.02", "layer 1, attn.attention", scale_attention(1.02)),
    Planted("attention scale x 0.5", "layer 1, attn.attention", scale_attention(0.5)),
    Planted("attention capped softly", "layer 1, attn.attention", set_attention("softcap", 30.0)),
    Planted(
        "a smooth softmax", "layer 1, attn.attention", set_attention("smooth_softmax", 1), ("edge",)
    ),
    Planted(
        "a window off by one",
        "layer 1, attn.attention",
        set_attention("local_window_size", 33),
        ("edge", "lm"),
    ),
    Planted("an epsilon of 1e-6", "layer 0, ln_2", change_an_epsilon),
    Planted("the exact GELU", "layer 1, mlp.activation", use_another_activation, ("tanh",)),
    # arithmetic
    Planted("a branch x 1.02", "layer 1, attn.c_proj", scale_result(1, "attn.c_proj", 1.02)),
    Planted(
        "queries, keys, values x 0.98",
        "layer 0, attn.c_attn",
        scale_result(0, "attn.c_attn", 0.98),
        ("edge",),
    ),
    Planted("an MLP's input x 1.03", "layer 1, mlp.c_fc", scale_result(1, "mlp.c_fc", 1.03)),
    Planted(
        "an activation x 0.99",
        "layer 0, mlp.activation | layer 0, mlp.c_proj",
        scale_result(0, "mlp.activation", 0.99),
    ),
    Planted(
        "attention's result x 1.01",
        "layer 0, attn.attention | layer 0, attn.c_proj",
        scale_result(0, "attn.attention", 1.01),
    ),
    Planted("a norm + 0.01", "layer 1, ln_2 | layer 1, mlp.c_fc", shift_result(1, "ln_2", 0.01)),
    Planted("a branch + 0.02", "layer 0, mlp.c_proj", shift_result(0, "mlp.c_proj", 0.02)),
    Planted(
        "an activation clipped at 3",
        "layer 0, mlp.activation | layer 0, mlp.c_proj",
        clip_result(0, "mlp.activation", 3.0),
    ),
    Planted(
        "a norm clipped at 2.5",
        "layer 1, ln_1 | layer 1, attn.c_attn | layer 1, mlp.c_fc",
        clip_result(1, "ln_1", 2.5),
    ),
    Planted(
        "attention's result in bfloat16",
        "layer 1, attn.attention | layer 1, attn.c_proj",
        round_result(1, "attn.attention"),
    ),
    Planted(
        "a norm in bfloat16",
        "layer 0, ln_2 | layer 0, mlp.c_fc | layer 1, attn.c_attn",
        round_result(0, "ln_2"),
    ),
    Planted("the residual forgotten", "layer 1, mlp.residual", forget_the_residual),
    Planted("attention of the layer before", "layer 1, attn.c_attn", read_the_layer_before),
    Planted("two logits swapped", "head", swap_two_logits, ("outputs",)),
    Planted("logits x 1.02", "head", scale_result(None, "head", 1.02)),
    Planted("logits + 0.2 in one place", "head", shift_result(None, "head", 0.2), ("task",)),
    Planted("other hidden states handed out", "final", hand_out_other_states),
    Planted("two layers' keys exchanged", "layer 0, attn.attention", swap_the_caches, ("lm",)),
    # weights and constants
    Planted(
        "a scale x 1.5",
        "layer 1, mlp.c_proj",
        change_array(1, "mlp.c_proj", "scales", scale_one_scale),
        ("quantized",),
    ),
    Planted(
        "a scale of attention x 1.5",
        "layer 0, attn.c_attn",
        change_array(0, "attn.c_attn", "scales", scale_one_scale),
        ("quantized",),
    ),
    Planted(
        "one weight moved",
        "layer 0, mlp.c_fc",
        change_array(0, "mlp.c_fc", "levels", move_one_level),
    ),
    Planted(
        "two rows of weights swapped",
        "layer 1, attn.c_proj",
        change_array(1, "attn.c_proj", "levels", swap_two_rows),
    ),
    Planted("attention's bias dropped", "layer 0, attn.c_attn", drop_the_bias_of(0, "attn.c_attn")),
    Planted("an MLP's bias dropped", "layer 1, mlp.c_proj", drop_the_bias_of(1, "mlp.c_proj")),
    Planted("biases of two layers exchanged", "layer 0, attn.c_proj", swap_biases_of_two_layers),
    Planted("one gain x 1.2", "layer 1, ln_1", change_norm(1, "ln_1", 0, 1.2)),
    Planted("one shift x 0", "layer 0, ln_2", change_norm(0, "ln_2", 1, 0.0)),
    Planted(
        "the rows' scale 1 % off",
        "layer 0, attn.c_attn",
        spoil_a_constant("inverse_127", 1.01),
        ("row",),
    ),
    Planted(
        "a product's own scale", "layer 0, attn.c_attn", spoil_a_constant("one", 1.01), ("row",)
    ),
    Planted(
        "the head's bias + 0.2",
        "head",
        change_array(None, "task_head", "bias", lambda b: b + np.float32(0.2)),
        ("task",),
    ),
    Planted(
        "the head's rows reversed",
        "head",
        change_array(None, "task_head", "levels", lambda w: np.ascontiguousarray(w[:, ::-1])),
        ("task", "labels"),
    ),
)
