"""Hugging Face folders of model_type "gpt_neo" (GPTNeoForCausalLM, GPTNeoModel): GPT-3's dense and
banded layers.

Queries, keys and values are three matrices [out, in] without biases, and q·k is not divided by
sqrt(D).
Source: transformers, models/gpt_neo.
"""

from __future__ import annotations

from pathlib import Path

from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers.hf_weights import (
    ACTIVATIONS,
    open_model,
    open_weights,
    refuse_unsupported,
)
from gpt_edge.reference.importers.settings import CheckpointSettings
from gpt_edge.reference.importers.tensor_map import Checkpoint, Origin

MAX_PERIOD = 8  # of a pattern worth naming; a longer one is kept whole
_KINDS = {"global": "dense", "local": "banded"}


def open_hf_gpt_neo(folder: Path, settings: CheckpointSettings) -> Checkpoint:
    """`settings` is the folder's config.json. Raises CheckpointError as `open_tensors` does."""
    refuse_unsupported(settings)
    attention = _attention(settings)
    config = settings.config(
        n_layer=settings.whole("num_layers"),
        n_head=settings.whole("num_heads"),
        n_embd=settings.whole("hidden_size"),
        n_ctx=settings.whole("max_position_embeddings"),
        vocab_size=settings.whole("vocab_size"),
        attention=attention,
        window=settings.whole("window_size", 256) if "banded" in attention else None,
        n_inner=settings.optional_whole("intermediate_size"),
        activation=settings.choice("activation_function", "gelu_new", ACTIVATIONS),
        layer_norm_epsilon=settings.number("layer_norm_epsilon", 1e-5),
        scale_attention=False,
        tied_embeddings=settings.flag("tie_word_embeddings", True),
    )
    weights = open_weights(folder, "wpe.weight")
    prefix = weights.prefix

    def origin_of(name: str, shape: tuple[int, ...]) -> Origin:
        block = prefix + name.partition(".attn.")[0]
        if name.endswith(".attn.c_attn.weight"):
            square = (shape[1], shape[1])
            return Origin(
                tuple(f"{block}.attn.attention.{part}_proj.weight" for part in "qkv"), square
            )
        if name.endswith(".attn.c_attn.bias"):
            return Origin((), shape)
        return Origin((prefix + name.replace(".attn.c_proj.", ".attn.attention.out_proj."),), shape)

    return open_model("hf-gpt-neo", folder, config, settings, weights, origin_of)


def _attention(settings: CheckpointSettings) -> tuple[str, ...]:
    """The kinds of the layers, as a short pattern where they repeat.

    `attention_layers` lists them; where it is missing `attention_types` is
    [[[kind, ...], repeats], ...].
    """
    n_layer = settings.whole("num_layers")
    names = settings.values.get("attention_layers")
    if names is None:
        names = _expanded(settings.values.get("attention_types"), n_layer)
    if (
        not isinstance(names, list)
        or len(names) != n_layer
        or not all(name in list(_KINDS) for name in names)
    ):
        raise CheckpointError(
            f"{settings.where}: attention_types or attention_layers must say global or local for "
            f"{n_layer} layers"
        )
    kinds = tuple(_KINDS[name] for name in names)
    for period in range(1, min(n_layer, MAX_PERIOD) + 1):
        if all(kind == kinds[layer % period] for layer, kind in enumerate(kinds)):
            return kinds[:period]
    return kinds


def _expanded(types: object, n_layer: int) -> list[object] | None:
    """The list that `attention_types` stands for, or None; it stops growing past n_layer, whatever
    the repeats are.
    """
    names: list[object] = []
    if not isinstance(types, list):
        return None
    for item in types:
        match item:
            case [list(kinds), int(repeats)] if kinds:
                names += kinds * min(repeats, n_layer + 1)
            case _:
                return None
        if len(names) > n_layer:
            break
    return names
