"""Faults to plant: each makes a good bundle wrong in one place, by editing its graph or weights
with onnx_ir.

The broken bundle has right checksums and loads, and most of them still write plausible text, so
that reading it shows nothing. A fault says where it lies, and the verifier has to name that place.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.writer import new_bundle
from gpt_edge.config import GPTConfig

Edit = Callable[[ir.Graph, GPTConfig], None]
MODEL, DATA = "model.onnx", "model.onnx.data"


@dataclass(frozen=True)
class Fault:
    """A fault and the bundle it is planted in. place: where the verifier has to find it."""

    name: str
    place: str
    edit: Edit
    kind: str = "gpt2"
    graph: str = "edge"
    scheme: str = "int8"

    def __str__(self) -> str:
        return f"{self.name} ({self.kind} {self.graph} {self.scheme})"


def plant(bundle: Bundle, out: Path, edit: Edit) -> Bundle:
    """A copy of `bundle` at `out` with the fault, its manifest and checksums as if it had been
    exported so.
    """
    with new_bundle(out) as writer:
        model = ir.load(bundle.model_path)
        edit(model.graph, bundle.config)
        model.graph.sort()
        model.opset_imports.setdefault("com.microsoft", 1)
        ir.save(model, writer.path / MODEL, external_data=DATA)
        for name in set(bundle.manifest.files) - {MODEL, DATA}:
            shutil.copyfile(bundle.path / name, writer.path / name)
        writer.finalize(dataclasses.replace(bundle.manifest, name="faulty"))
    return Bundle.open(out)


# Tools


def value(graph: ir.Graph, name: str) -> ir.Value:
    return graph.initializers[name]


def get(graph: ir.Graph, name: str) -> np.ndarray:
    tensor = value(graph, name).const_value
    assert tensor is not None
    return np.array(tensor.numpy())


def put(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Replace or add an initializer."""
    if name not in graph.initializers:
        graph.register_initializer(ir.Value(name=name, const_value=ir.tensor(array, name=name)))
    found = value(graph, name)
    found.const_value = ir.tensor(np.array(array, order="C"), name=name)
    found.shape, found.type = (
        ir.Shape(array.shape),
        ir.TensorType(ir.DataType.from_numpy(array.dtype)),
    )
    return found


def nodes(graph: ir.Graph, *operators: str) -> list[ir.Node]:
    return [node for node in graph if node.op_type in operators]


def reader(graph: ir.Graph, name: str) -> ir.Node:
    """The node that computes with an initializer."""
    return value(graph, name).uses()[0].node


def insert(
    graph: ir.Graph,
    node: ir.Node,
    index: int,
    operator: str,
    *others: ir.Value,
    **attributes: object,
) -> None:
    """Put an operator between a node and its input."""
    before = node.inputs[index]
    new = ir.node(operator, [before, *others], attributes=attributes)
    graph.insert_before(node, new)
    node.replace_input_with(index, new.outputs[0])


def map_all(graph: ir.Graph, prefix: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change every initializer whose name begins so, along its outputs: levels, scales and bias of
    an edge projection.
    """
    for name in [name for name in graph.initializers if name.startswith(prefix)]:
        array = get(graph, name)
        is_transposed = array.ndim == 2 and array.dtype == np.int8  # [K, N], of products by rows
        put(graph, name, change(array.T).T if is_transposed else change(array))


def number(graph: ir.Graph, content: object, dtype: type = np.float32) -> ir.Value:
    return put(graph, f"planted_{len(graph.initializers)}", np.array(content, dtype))


# Weights


def zero_a_layer(graph: ir.Graph, config: GPTConfig) -> None:
    for name in ("attn.c_proj", "mlp.c_proj"):
        put(graph, f"h.1.{name}.weight_q8", np.zeros_like(get(graph, f"h.1.{name}.weight_q8")))
        put(graph, f"h.1.{name}.bias", np.zeros_like(get(graph, f"h.1.{name}.bias")))


def swap_rows_of_the_embedding(graph: ir.Graph, config: GPTConfig) -> None:
    order = np.arange(config.vocab_size)
    order[[17, 203]] = order[[203, 17]]
    map_all(graph, "wte.weight", lambda array: array[order])


def shift_the_positions(graph: ir.Graph, config: GPTConfig) -> None:
    put(graph, "wpe.weight", np.roll(get(graph, "wpe.weight"), 1, axis=0))


def exchange_two_layers(graph: ir.Graph, config: GPTConfig) -> None:
    for name in [name for name in graph.initializers if name.startswith("h.0.")]:
        other = name.replace("h.0.", "h.1.", 1)
        first, second = get(graph, name), get(graph, other)
        put(graph, name, second)
        put(graph, other, first)


def spoil_the_scale_of_one_block(graph: ir.Graph, config: GPTConfig) -> None:
    scales = get(graph, "h.1.mlp.c_fc.weight_scales")
    scales.reshape(-1)[5] *= 1.02
    put(graph, "h.1.mlp.c_fc.weight_scales", scales)


def spoil_the_scale_of_one_block_of_the_head(graph: ir.Graph, config: GPTConfig) -> None:
    scales = get(graph, "wte.weight_scales")
    scales.reshape(-1)[-1] *= 1.1
    put(graph, "wte.weight_scales", scales)


def drop_a_bias(graph: ir.Graph, config: GPTConfig) -> None:
    use = value(graph, "h.0.mlp.c_fc.bias").uses()[0]
    use.node.replace_input_with(use.idx, None)


def transpose_a_square_projection(graph: ir.Graph, config: GPTConfig) -> None:
    put(graph, "h.1.attn.c_proj.weight", get(graph, "h.1.attn.c_proj.weight").T)


def swap_queries_and_keys(graph: ir.Graph, config: GPTConfig) -> None:
    def swap(array: np.ndarray) -> np.ndarray:
        q, k, v = np.split(array, 3)
        return np.concatenate([k, q, v])

    map_all(graph, "h.0.attn.c_attn.", swap)


def move_the_zero_point(graph: ir.Graph, config: GPTConfig) -> None:
    """Of blocks, around 128, and of whole rows, around 0."""
    node, n = (
        reader(graph, "h.1.attn.c_attn.weight_q8"),
        get(graph, "h.1.attn.c_attn.weight_scales").shape,
    )
    if node.op_type == "MatMulNBits":
        node.replace_input_with(3, number(graph, np.full(n, 129), np.uint8))
        return
    node.resize_inputs(6)
    node.replace_input_with(5, number(graph, np.ones(n), np.int8))


def move_the_zero_point_of_the_activations(graph: ir.Graph, config: GPTConfig) -> None:
    reader(graph, "h.0.mlp.c_fc.weight_q8").replace_input_with(4, number(graph, 127, np.uint8))


def round_activations_for_the_whole_call(graph: ir.Graph, config: GPTConfig) -> None:
    """One scale for all rows, that of the largest: what makes a token depend on its neighbours
    (onnxruntime#10322).
    """
    node = nodes(graph, "ReduceMax")[0]
    users = list(node.outputs[0].uses())
    shape = ir.node("Shape", [node.outputs[0]])
    largest = ir.node("ReduceMax", [node.inputs[0], number(graph, [0, 1, 2], np.int64)])
    full = ir.node("Expand", [largest.outputs[0], shape.outputs[0]])
    for new in (full, shape, largest):
        graph.insert_after(node, new)
    for use in users:
        use.node.replace_input_with(use.idx, full.outputs[0])


def move_the_zero_point_of_a_portable_bundle(graph: ir.Graph, config: GPTConfig) -> None:
    node = reader(graph, "h.1.mlp.c_proj.weight_q8")
    node.resize_inputs(3)
    node.replace_input_with(
        2, number(graph, np.ones(get(graph, "h.1.mlp.c_proj.weight_scales").shape), np.int8)
    )


def permute_the_weights_of_one_head(graph: ir.Graph, config: GPTConfig) -> None:
    weight = get(graph, "h.0.attn.c_proj.weight")  # [C, C], a head's inputs are rows
    size = config.head_size
    weight[size : 2 * size] = weight[size : 2 * size][::-1].copy()
    put(graph, "h.0.attn.c_proj.weight", weight)


def forget_a_gain(graph: ir.Graph, config: GPTConfig) -> None:
    put(graph, "h.1.ln_1.weight", np.ones_like(get(graph, "h.1.ln_1.weight")))


def read_the_head_from_another_table(graph: ir.Graph, config: GPTConfig) -> None:
    levels = get(graph, "wte.weight_q8")
    levels[[3, 4]] = levels[[4, 3]]
    head = graph.outputs[0].producer()
    assert head is not None
    head.replace_input_with(1, put(graph, "another_q8", levels))


# Wiring and attributes


def count_positions_from_one(graph: ir.Graph, config: GPTConfig) -> None:
    gather = reader(graph, "wpe.weight")
    insert(graph, gather, 1, "Add", number(graph, 1, np.int64))
    insert(graph, gather, 1, "Min", number(graph, config.n_ctx - 1, np.int64))


def count_positions_anew_in_each_call(graph: ir.Graph, config: GPTConfig) -> None:
    gather = reader(graph, "wpe.weight")
    first = ir.node(
        "Gather", [gather.inputs[1], number(graph, [0], np.int64)], attributes={"axis": 1}
    )
    graph.insert_before(gather, first)
    insert(graph, gather, 1, "Sub", first.outputs[0])


def use_the_exact_gelu(graph: ir.Graph, config: GPTConfig) -> None:
    fast = nodes(graph, "FastGelu")[1]
    if len(fast.inputs) > 1 and (bias := fast.inputs[1]) is not None:
        insert(graph, fast, 0, "Add", bias)
    exact = ir.node("Gelu", [fast.inputs[0]])
    graph.insert_before(fast, exact)
    fast.outputs[0].replace_all_uses_with(exact.outputs[0])
    graph.remove(fast)


def leave_out_the_final_norm(graph: ir.Graph, config: GPTConfig) -> None:
    norm = reader(graph, "ln_f.weight")
    if len(norm.inputs) > 4 and (bias := norm.inputs[4]) is not None:
        insert(graph, norm, 0, "Add", bias)
    total = ir.node("Add", norm.inputs[:2])
    graph.insert_before(norm, total)
    total.outputs[0].name = norm.outputs[0].name  # it may be an output of the graph
    norm.outputs[0].replace_all_uses_with(total.outputs[0], replace_graph_outputs=True)
    graph.remove(norm)


def scale_attention_a_little_wrong(graph: ir.Graph, config: GPTConfig) -> None:
    node = nodes(graph, "GroupQueryAttention")[0]
    node.attributes["scale"] = ir.AttrFloat32("scale", config.attention_scale * 1.01)


def scale_attention_by_the_width(graph: ir.Graph, config: GPTConfig) -> None:
    node = nodes(graph, "Attention")[1]
    node.attributes["scale"] = ir.AttrFloat32("scale", config.n_embd**-0.5)


def widen_the_band(graph: ir.Graph, config: GPTConfig) -> None:
    node = nodes(graph, "GroupQueryAttention")[1]
    assert config.window is not None
    node.attributes["local_window_size"] = ir.AttrInt64("local_window_size", config.window + 1)


def let_one_head_see_the_next_token(graph: ir.Graph, config: GPTConfig) -> None:
    """The portable mask [1, 1, T, S] becomes [1, H, T, S], wider by one for the last head of layer
    1.
    """
    node = nodes(graph, "Attention")[1]
    lookup = next(n for n in nodes(graph, "LessOrEqual") if len(n.outputs[0].uses()) > 0)
    keys, queries = lookup.inputs
    wider = ir.node("Add", [queries, number(graph, 1, np.int64)])
    seen = ir.node("LessOrEqual", [keys, wider.outputs[0]])
    is_last = number(
        graph, (np.arange(config.n_head) == config.n_head - 1).reshape(1, -1, 1, 1), np.bool_
    )
    more = ir.node("And", [is_last, seen.outputs[0]])
    mask = ir.node("Or", [more.outputs[0], node.inputs[3]])
    for new in (wider, seen, more, mask):
        graph.insert_before(node, new)
    node.replace_input_with(3, mask.outputs[0])


def hide_the_own_token_from_one_head(graph: ir.Graph, config: GPTConfig) -> None:
    """The edge graph's mask is inside its operator: a bias takes the own position away from one
    head.
    """
    node = nodes(graph, "GroupQueryAttention")[1]
    positions = next(value for value in graph.inputs if value.name == "position_ids")  # [B, T]
    total = next(value for value in graph.inputs if value.name == "total_sequence_length")
    cast = ir.node("Cast", [total], attributes={"to": ir.DataType.INT64})
    length = ir.node("Squeeze", [cast.outputs[0]])
    keys = ir.node(
        "Range", [number(graph, 0, np.int64), length.outputs[0], number(graph, 1, np.int64)]
    )
    queries = ir.node("Unsqueeze", [positions, number(graph, [1, 3], np.int64)])  # [B, 1, T, 1]
    own = ir.node("Equal", [queries.outputs[0], keys.outputs[0]])
    is_first = number(graph, (np.arange(config.n_head) == 0).reshape(1, -1, 1, 1), np.bool_)
    hidden = ir.node("And", [own.outputs[0], is_first])
    bias = ir.node("Where", [hidden.outputs[0], number(graph, -30.0), number(graph, 0.0)])
    for new in (cast, length, keys, queries, own, hidden, bias):
        graph.insert_before(node, new)
    node.resize_inputs(11)
    node.replace_input_with(10, bias.outputs[0])


def look_ahead(graph: ir.Graph, config: GPTConfig) -> None:
    """Every head of the first layer sees all tokens."""
    node = nodes(graph, "Attention")[0]
    everything = ir.node("Or", [node.inputs[3], number(graph, True, np.bool_)])
    graph.insert_before(node, everything)
    node.replace_input_with(3, everything.outputs[0])


def wire_post_norm_as_pre_norm(graph: ir.Graph, config: GPTConfig) -> None:
    """x = ln(x + f(x)) becomes x = x + f(ln(x)), in every layer."""
    for norm in nodes(graph, "LayerNormalization"):
        total = norm.inputs[0]
        assert total is not None
        add = total.producer()
        assert add is not None
        stream, normed = add.inputs[0], norm.outputs[0]
        assert stream is not None
        for use in list(normed.uses()):
            use.node.replace_input_with(use.idx, total)
        for use in list(stream.uses()):
            if use.node is not add:
                use.node.replace_input_with(use.idx, normed)
        norm.replace_input_with(0, stream)


def change_an_epsilon(graph: ir.Graph, config: GPTConfig) -> None:
    reader(graph, "h.1.ln_2.weight").attributes["epsilon"] = ir.AttrFloat32("epsilon", 1e-6)


def scale_the_residual(graph: ir.Graph, config: GPTConfig) -> None:
    insert(graph, reader(graph, "h.1.ln_2.weight"), 1, "Mul", number(graph, 1.001))


def scale_a_branch(graph: ir.Graph, config: GPTConfig) -> None:
    insert(graph, reader(graph, "h.1.ln_2.weight"), 0, "Mul", number(graph, 1.03))


def pass_by_the_last_layer(graph: ir.Graph, config: GPTConfig) -> None:
    """It is computed, and its keys and values are stored, but nothing reads what it returns."""
    norms = nodes(graph, "LayerNormalization")
    norms[4].replace_input_with(0, norms[2].inputs[0])


def cut_the_vocabulary(graph: ir.Graph, config: GPTConfig) -> None:
    """The last eight tokens can never be chosen."""
    head = graph.outputs[0].producer()
    assert head is not None
    n_cut = 8
    old, head_output = graph.outputs[0], head.outputs[0]
    head_output.name = "all_logits"
    zero, end, last = (number(graph, [n], np.int64) for n in (0, config.vocab_size - n_cut, -1))
    cut = ir.node("Slice", [head_output, zero, end, last])
    pads = number(graph, [0, 0, 0, 0, 0, n_cut], np.int64)
    full = ir.node("Pad", [cut.outputs[0], pads, number(graph, -100.0)])
    full.outputs[0].name, full.outputs[0].shape, full.outputs[0].type = (
        "logits",
        old.shape,
        old.type,
    )
    graph.extend([cut, full])
    graph.outputs[0] = full.outputs[0]


def lose_rows_of_the_head(graph: ir.Graph, config: GPTConfig) -> None:
    """The product knows fewer tokens than the graph promises: it cannot even be run as a bundle."""
    head = graph.outputs[0].producer()
    assert head is not None
    kept = config.vocab_size - 8
    head.replace_input_with(1, put(graph, "short_q8", get(graph, "wte.weight_q8")[:kept]))
    head.replace_input_with(2, put(graph, "short_scales", get(graph, "wte.weight_scales")[:kept]))
    head.attributes["N"] = ir.AttrInt64("N", kept)


def answer_for_the_token_before(graph: ir.Graph, config: GPTConfig) -> None:
    """Logits of the row before the one that is asked for."""
    rows = next(value for value in graph.inputs if value.name == "logit_rows")
    before = ir.node("Sub", [rows, number(graph, 1, np.int64)])
    clipped = ir.node("Max", [before.outputs[0], number(graph, 0, np.int64)])
    user = rows.uses()[0].node
    for new in (before, clipped):
        graph.insert_before(user, new)
    user.replace_input_with(0, clipped.outputs[0])


def join_the_cache_the_wrong_way_round(graph: ir.Graph, config: GPTConfig) -> None:
    """New values before old ones: right as long as the cache is empty."""
    node = next(n for n in nodes(graph, "Concat") if n.outputs[0].name == "present.1.value")
    past, new = node.inputs
    node.replace_input_with(0, new)
    node.replace_input_with(1, past)


PORTABLE = {"graph": "portable", "scheme": "fp32"}
FAULTS = (
    Fault("a layer zeroed", "layer 1, attn.c_proj", zero_a_layer),
    Fault("two rows of the embedding swapped", "embedding", swap_rows_of_the_embedding),
    Fault(
        "two rows of the embedding swapped", "embedding", swap_rows_of_the_embedding, scheme="fp32"
    ),
    Fault("position rows moved by one", "embedding", shift_the_positions),
    Fault("two layers exchanged", "layer 0, ln_1", exchange_two_layers),
    Fault("one scale of one block 2 % wrong", "layer 1, mlp.c_fc", spoil_the_scale_of_one_block),
    Fault(
        "one scale of one block 2 % wrong",
        "layer 1, mlp.c_fc",
        spoil_the_scale_of_one_block,
        scheme="int8-block",
    ),
    Fault(
        "one scale of one block 2 % wrong",
        "layer 1, mlp.c_fc",
        spoil_the_scale_of_one_block,
        scheme="int4",
    ),
    Fault("one scale of the table wrong", "embedding", spoil_the_scale_of_one_block_of_the_head),
    Fault("a bias dropped", "layer 0, mlp.c_fc", drop_a_bias),
    Fault("a bias dropped", "layer 0, mlp.c_fc", drop_a_bias, scheme="int8-block"),
    Fault(
        "a square projection transposed",
        "layer 1, attn.c_proj",
        transpose_a_square_projection,
        scheme="fp32",
    ),
    Fault("queries and keys swapped", "layer 0, attn.c_attn", swap_queries_and_keys),
    Fault("an int8 zero point off by one", "layer 1, attn.c_attn", move_the_zero_point),
    Fault(
        "an int8 zero point off by one",
        "layer 1, attn.c_attn",
        move_the_zero_point,
        scheme="int8-block",
    ),
    Fault(
        "the activations' zero point off by one",
        "layer 0, mlp.c_fc",
        move_the_zero_point_of_the_activations,
    ),
    Fault(
        "an int8 zero point off by one",
        "layer 1, mlp.c_proj",
        move_the_zero_point_of_a_portable_bundle,
        graph="portable",
    ),
    Fault(
        "one head's weights permuted",
        "layer 0, attn.c_proj",
        permute_the_weights_of_one_head,
        scheme="fp32",
    ),
    Fault(
        "one activation scale for the whole call",
        "layer 0, attn.c_attn",
        round_activations_for_the_whole_call,
    ),
    Fault("a layer norm's gain forgotten", "layer 1, ln_1", forget_a_gain),
    Fault("the tied head reads another table", "lm_head", read_the_head_from_another_table),
    Fault("positions counted from one", "embedding", count_positions_from_one),
    Fault("positions counted anew in each call", "embedding", count_positions_anew_in_each_call),
    Fault("exact instead of tanh GELU", "layer 1, mlp.activation", use_the_exact_gelu),
    Fault("ln_f missing", "ln_f", leave_out_the_final_norm),
    Fault("attention scale 1 % wrong", "layer 0, attn.attention", scale_attention_a_little_wrong),
    Fault(
        "attention scaled by the width",
        "layer 1, attn.attention",
        scale_attention_by_the_width,
        **PORTABLE,
    ),
    Fault("the band one token too wide", "layer 1, attn.attention", widen_the_band, kind="gpt3"),
    Fault(
        "the mask off by one on one head",
        "layer 1, attn.attention",
        let_one_head_see_the_next_token,
        **PORTABLE,
    ),
    Fault(
        "the own token hidden from one head",
        "layer 1, attn.attention",
        hide_the_own_token_from_one_head,
    ),
    Fault("no mask in one layer", "layer 0, attn.attention", look_ahead, **PORTABLE),
    Fault(
        "post-norm wired as pre-norm",
        "layer 0, attn.c_attn",
        wire_post_norm_as_pre_norm,
        kind="gpt1",
        **PORTABLE,
    ),
    Fault("a layer norm's epsilon changed", "layer 1, ln_2", change_an_epsilon),
    Fault("a residual scaled by 1.001", "layer 1, attn.residual", scale_the_residual),
    Fault("a branch scaled by 1.03", "layer 1, attn.c_proj", scale_a_branch),
    Fault("the last layer passed by", "ln_f", pass_by_the_last_layer, **PORTABLE),
    Fault("the last tokens of the vocabulary cut off", "lm_head", cut_the_vocabulary),
    Fault("a head with fewer rows", "lm_head", lose_rows_of_the_head),
    Fault("logits of the token before", "lm_head", answer_for_the_token_before),
    Fault(
        "the cache joined the wrong way round",
        "layer 1, attn.c_attn",
        join_the_cache_the_wrong_way_round,
        **PORTABLE,
    ),
)
