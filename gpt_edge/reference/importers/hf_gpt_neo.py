"""Hugging Face folders of model_type "gpt_neo" (GPTNeoForCausalLM, GPTNeoModel): GPT-3's dense and
banded layers.

Queries, keys and values are three matrices [out, in] without biases, and q·k is not divided by
sqrt(D).
Source: transformers, models/gpt_neo.
"""

from __future__ import annotations

from pathlib import Path

from gpt_edge.bundle.transformers_config import ACTIVATIONS, neo_attention
from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers.hf_weights import (
    open_model,
    open_weights,
    refuse_unsupported,
)
from gpt_edge.reference.importers.settings import CheckpointSettings
from gpt_edge.reference.importers.tensor_map import Checkpoint, Origin


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
    try:
        return neo_attention(settings.values, settings.whole("num_layers"))
    except ValueError as error:
        raise CheckpointError(f"{settings.where}: {error}") from error
