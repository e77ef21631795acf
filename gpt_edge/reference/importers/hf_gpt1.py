"""Hugging Face folders of model_type "openai-gpt" (OpenAIGPTLMHeadModel, OpenAIGPTModel).

Linear weights are Conv1D: stored [in, out]. Its "gelu" is the tanh form, unlike everywhere else in
transformers.
Source: transformers, models/openai (ACT_FNS).
"""

from __future__ import annotations

from pathlib import Path

from gpt_edge.reference.importers.hf_weights import (
    open_model,
    open_weights,
    refuse_unsupported,
)
from gpt_edge.reference.importers.settings import CheckpointSettings
from gpt_edge.reference.importers.tensor_map import LINEAR_WEIGHTS, Checkpoint, Origin

_EMBEDDINGS = {"wte.weight": "tokens_embed.weight", "wpe.weight": "positions_embed.weight"}


def open_hf_gpt1(folder: Path, settings: CheckpointSettings) -> Checkpoint:
    """`settings` is the folder's config.json. Raises CheckpointError as `open_tensors` does."""
    refuse_unsupported(settings)
    config = settings.config(
        n_layer=settings.whole("n_layer"),
        n_head=settings.whole("n_head"),
        n_embd=settings.whole("n_embd"),
        n_ctx=settings.whole("n_positions" if "n_positions" in settings.values else "n_ctx"),
        vocab_size=settings.whole("vocab_size"),
        norm="post",
        activation=settings.choice("afn", "gelu", {"gelu": "gelu_tanh", "relu": "relu"}),
        layer_norm_epsilon=settings.number("layer_norm_epsilon", 1e-5),
        tied_embeddings=settings.flag("tie_word_embeddings", True),
    )
    weights = open_weights(folder, "positions_embed.weight")
    prefix = weights.prefix

    def origin_of(name: str, shape: tuple[int, ...]) -> Origin:
        is_conv1d = name.endswith(LINEAR_WEIGHTS)
        return Origin(
            (prefix + _EMBEDDINGS.get(name, name),), shape[::-1] if is_conv1d else shape, is_conv1d
        )

    return open_model("hf-openai-gpt", folder, config, settings, weights, origin_of)
