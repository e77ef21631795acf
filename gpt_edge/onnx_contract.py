"""The ONNX contract: names, axes and dtypes of what goes in and out of the two graphs, and the
operators they must hold.

Of a language model `edge` writes keys and values in place: past and present of a layer are bound to
the same memory, `S` positions long, of which the first `seqlens_k + 1` count after the call.
`portable` returns present tensors that grow, as Optimum's files do. A task's graphs
(`GPTConfig.n_label` is set) have no past: one call reads whole sequences, padded at their ends. So
do a base's (`GPTConfig.takes_adapters`), whose inputs are an adapter's matrices, too.
Knows nothing of onnx or onnxruntime.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpt_edge.config import GPTConfig
from gpt_edge.schemes import SCHEMES
from gpt_edge.tasks import N_NEW_TOKENS

GRAPHS = ("edge", "portable")
# the axis of the sequences, as transformers.js looks for it in a portable graph
BATCH_AXIS = {"edge": "batch", "portable": "batch_size"}
# of the edge graph
ACTIVATION_OPERATORS = {"gelu_tanh": "FastGelu", "gelu": "Gelu", "relu": "Relu"}

INPUT_IDS = "input_ids"
POSITION_IDS = "position_ids"
ATTENTION_MASK = "attention_mask"
SEQLENS_K = "seqlens_k"
TOTAL_SEQUENCE_LENGTH = "total_sequence_length"
LOGIT_ROWS = "logit_rows"
LOGITS = "logits"
HIDDEN_STATES = "hidden_states"
TASK_TOKENS = "wte.task_tokens"  # an adapter's rows of the task's tokens
RANK = "rank"  # the axis between an adapter's two matrices
# the linear layers of a layer, beside each of which an adapter has two matrices
LINEARS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")

# GroupQueryAttention refuses other head sizes; heads are padded with zeros inside the graph
HEAD_SIZE_MULTIPLE = 8


def lora_a(layer: int, linear: str) -> str:
    """Input name of an adapter's first matrix beside a layer's `linear`, such as "mlp.c_fc"."""
    return f"h.{layer}.{linear}.lora_a"


def lora_b(layer: int, linear: str) -> str:
    """Input name of its second matrix."""
    return f"h.{layer}.{linear}.lora_b"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, numpy dtype and axes of one graph input or output; an axis is a size or a name."""

    name: str
    dtype: str
    axes: tuple[int | str, ...]


def past_key(layer: int) -> str:
    """Input name of a layer's keys."""
    return f"past_key_values.{layer}.key"


def past_value(layer: int) -> str:
    """Input name of a layer's values."""
    return f"past_key_values.{layer}.value"


def present_key(layer: int) -> str:
    """Output name of a layer's keys."""
    return f"present.{layer}.key"


def present_value(layer: int) -> str:
    """Output name of a layer's values."""
    return f"present.{layer}.value"


def cache_head_size(config: GPTConfig, graph: str) -> int:
    """Width of one head in the cache: the edge graph pads it to a multiple of 8, the portable one
    does not.
    """
    if graph == "portable":
        return config.head_size
    return -(-config.head_size // HEAD_SIZE_MULTIPLE) * HEAD_SIZE_MULTIPLE


def _cache(
    config: GPTConfig, graph: str, axis: str, names: tuple[str, ...]
) -> tuple[TensorSpec, ...]:
    axes = (BATCH_AXIS[graph], config.n_head, axis, cache_head_size(config, graph))
    return tuple(TensorSpec(name, "float32", axes) for name in names)


def _layers(config: GPTConfig, past: bool) -> tuple[str, ...]:
    key, value = (past_key, past_value) if past else (present_key, present_value)
    return tuple(name(layer) for layer in range(config.n_layer) for name in (key, value))


def inputs(config: GPTConfig, graph: str) -> tuple[TensorSpec, ...]:
    """Inputs in order.

    edge: input_ids and position_ids int64 [B, T]; seqlens_k int32 [B], each row's length after this
    call minus one; total_sequence_length int32 [1], the longest row's length after this call;
    logit_rows int64 [B, R], which of the T rows get logits (the last one alone while decoding, all
    of them for scoring); past float32 [B, H, S, D'], S >= total. B > 1 with T > 1 is allowed only
    where no row has a past. portable: input_ids, attention_mask int64 [B, P + T] (0 for padding),
    position_ids, past float32 [B, H, P, D]. Of a task, edge: input_ids, seqlens_k,
    total_sequence_length, logit_rows as above, the extract token's row for a task's logits;
    portable: input_ids, attention_mask. Padding lies at the ends; of similarity, rows 2i and 2i +
    1 are one example's two orders. Of a base as of a task, without attention_mask; and
    `adapter_inputs`.
    """
    if config.takes_adapters:
        return (*_base_inputs(graph), *adapter_inputs(config, graph))
    if config.n_label is not None:
        return _task_inputs(graph)
    batch = BATCH_AXIS[graph]
    ids = TensorSpec(INPUT_IDS, "int64", (batch, "sequence"))
    positions = TensorSpec(POSITION_IDS, "int64", (batch, "sequence"))
    if graph == "portable":
        mask = TensorSpec(ATTENTION_MASK, "int64", (batch, "total_sequence"))
        return (
            ids,
            mask,
            positions,
            *_cache(config, graph, "past_sequence", _layers(config, past=True)),
        )
    return (
        ids,
        positions,
        TensorSpec(SEQLENS_K, "int32", (batch,)),
        TensorSpec(TOTAL_SEQUENCE_LENGTH, "int32", (1,)),
        TensorSpec(LOGIT_ROWS, "int64", (batch, "rows")),
        *_cache(config, graph, "capacity", _layers(config, past=True)),
    )


def outputs(config: GPTConfig, graph: str) -> tuple[TensorSpec, ...]:
    """Outputs in order: logits float32 [B, R or T, V], present keys and values of every layer, and
    hidden_states float32 [B, T, C], what the head reads: after the final norm, where there is one.
    An older bundle lacks them.

    Of a task: logits float32 [E, R, n_label], portable [E, n_label], for each of the E examples, or
    for multiple choice for each answer; then hidden_states float32 [B, R, C], portable [B, T, C].
    Of a base hidden_states alone.
    """
    if config.takes_adapters:
        return (_encoder_states(config, graph),)
    if config.n_label is not None:
        return _task_outputs(config, graph)
    batch = BATCH_AXIS[graph]
    rows, axis = ("rows", "capacity") if graph == "edge" else ("sequence", "total_sequence")
    logits = TensorSpec(LOGITS, "float32", (batch, rows, config.vocab_size))
    hidden = TensorSpec(HIDDEN_STATES, "float32", (batch, "sequence", config.n_embd))
    return (logits, *_cache(config, graph, axis, _layers(config, past=False)), hidden)


def _task_inputs(graph: str) -> tuple[TensorSpec, ...]:
    batch = BATCH_AXIS[graph]
    ids = TensorSpec(INPUT_IDS, "int64", (batch, "sequence"))
    if graph == "portable":
        return (ids, TensorSpec(ATTENTION_MASK, "int64", (batch, "sequence")))
    return (
        ids,
        TensorSpec(SEQLENS_K, "int32", (batch,)),
        TensorSpec(TOTAL_SEQUENCE_LENGTH, "int32", (1,)),
        TensorSpec(LOGIT_ROWS, "int64", (batch, "rows")),
    )


def _task_outputs(config: GPTConfig, graph: str) -> tuple[TensorSpec, ...]:
    assert config.n_label is not None
    rows = ("rows",) if graph == "edge" else ()
    return (
        TensorSpec(LOGITS, "float32", ("examples", *rows, config.n_label)),
        _encoder_states(config, graph),
    )


def _encoder_states(config: GPTConfig, graph: str) -> TensorSpec:
    axes = (BATCH_AXIS[graph], "rows" if graph == "edge" else "sequence", config.n_embd)
    return TensorSpec(HIDDEN_STATES, "float32", axes)


def _base_inputs(graph: str) -> tuple[TensorSpec, ...]:
    return tuple(spec for spec in _task_inputs(graph) if spec.name != ATTENTION_MASK)


def adapter_inputs(config: GPTConfig, graph: str) -> tuple[TensorSpec, ...]:
    """What a base reads of an adapter: the rows of the task's tokens float32 [4, C], the first of
    them zeros, which any other token gets; and of each linear layer A [in, rank] and B [rank, out],
    whose product is added to the layer's: y + (x A) B. Heads are padded as in the cache.
    """
    heads = config.n_head * cache_head_size(config, graph)
    sizes = {
        "attn.c_attn": (config.n_embd, 3 * heads),
        "attn.c_proj": (heads, config.n_embd),
        "mlp.c_fc": (config.n_embd, config.inner_size),
        "mlp.c_proj": (config.inner_size, config.n_embd),
    }
    specs = [TensorSpec(TASK_TOKENS, "float32", (N_NEW_TOKENS + 1, config.n_embd))]
    for layer in range(config.n_layer):
        for linear in LINEARS:
            n_in, n_out = sizes[linear]
            specs.append(TensorSpec(lora_a(layer, linear), "float32", (n_in, RANK)))
            specs.append(TensorSpec(lora_b(layer, linear), "float32", (RANK, n_out)))
    return tuple(specs)


def operators(config: GPTConfig, graph: str, scheme: str) -> dict[str, int]:
    """How many nodes of each characteristic operator the graph must hold: one fewer means that a
    fusion was lost.

    A task has a small head in float32 instead of the language model's, a base none but the products
    of adapters. Of a mixed scheme the plan
    decides which operators hold weights, so only the others are counted.
    """
    counts = _unweighted_operators(config, graph)
    for name, count in SCHEMES[scheme].operators.get(graph, {}).items():
        counts[name] = count.total(config.n_layer, is_task=config.is_encoder)
        if config.takes_adapters:
            counts[name] -= count.task_head
    if config.takes_adapters and graph == "edge":
        counts["MatMul"] += 2 * len(LINEARS) * config.n_layer
    return counts


def _unweighted_operators(config: GPTConfig, graph: str) -> dict[str, int]:
    """The operators that hold no quantized weight: attention, norms, and activations."""
    n_norms = 2 * config.n_layer + (1 if config.norm == "pre" else 0)
    if graph == "portable":
        return {"Attention": config.n_layer, "LayerNormalization": n_norms}
    return {
        "GroupQueryAttention": config.n_layer,
        "SkipLayerNormalization": n_norms,
        "LayerNormalization": 0,
        ACTIVATION_OPERATORS[config.activation]: config.n_layer,
    }
