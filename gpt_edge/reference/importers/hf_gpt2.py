"""Hugging Face folders of model_type "gpt2" (GPT2LMHeadModel, GPT2Model).

Linear weights are Conv1D: stored [in, out]. Source: transformers, models/gpt2.
"""

from __future__ import annotations

from pathlib import Path

from gpt_edge.bundle.transformers_config import ACTIVATIONS
from gpt_edge.reference.importers.hf_weights import (
    open_model,
    open_weights,
    query_scale,
    refuse_unsupported,
)
from gpt_edge.reference.importers.settings import CheckpointSettings
from gpt_edge.reference.importers.tensor_map import LINEAR_WEIGHTS, Checkpoint, Origin


def open_hf_gpt2(folder: Path, settings: CheckpointSettings) -> Checkpoint:
    """`settings` is the folder's config.json. Raises CheckpointError as `open_tensors` does."""
    refuse_unsupported(settings)
    config = settings.config(
        n_layer=settings.whole("n_layer"),
        n_head=settings.whole("n_head"),
        n_embd=settings.whole("n_embd"),
        n_ctx=settings.whole("n_positions" if "n_positions" in settings.values else "n_ctx"),
        vocab_size=settings.whole("vocab_size"),
        n_inner=settings.optional_whole("n_inner"),
        activation=settings.choice("activation_function", "gelu_new", ACTIVATIONS),
        layer_norm_epsilon=settings.number("layer_norm_epsilon", 1e-5),
        scale_attention=settings.flag("scale_attn_weights", True),
        tied_embeddings=settings.flag("tie_word_embeddings", True),
    )
    scale_of = query_scale(settings)
    weights = open_weights(folder, "wpe.weight")
    prefix = weights.prefix

    def origin_of(name: str, shape: tuple[int, ...]) -> Origin:
        if not name.endswith((*LINEAR_WEIGHTS, "c_attn.bias")):
            return Origin((prefix + name,), shape)
        return Origin(
            (prefix + name,), shape[::-1], is_transposed=len(shape) == 2, query_scale=scale_of(name)
        )

    return open_model("hf-gpt2", folder, config, settings, weights, origin_of)
