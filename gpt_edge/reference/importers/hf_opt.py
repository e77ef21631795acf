"""Hugging Face folders of model_type "opt" (OPTForCausalLM), whose small models are GPT-3-shaped.

Queries, keys and values are three matrices [out, in] with biases; the table of positions begins
with two rows that no token reads. Source: Zhang et al. 2022; transformers, models/opt.
"""

from __future__ import annotations

from pathlib import Path

from gpt_edge.bundle.transformers_config import ACTIVATIONS
from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers.hf_weights import open_model, open_weights, refuse_unsupported
from gpt_edge.reference.importers.settings import CheckpointSettings
from gpt_edge.reference.importers.tensor_map import Checkpoint, Origin

OFFSET = 2  # the first row of the positions that is read
_NAMES = {
    "wte": "embed_tokens",
    "wpe": "embed_positions",
    "ln_f": "final_layer_norm",
    "ln_1": "self_attn_layer_norm",
    "attn.c_proj": "self_attn.out_proj",
    "ln_2": "final_layer_norm",
    "mlp.c_fc": "fc1",
    "mlp.c_proj": "fc2",
}
# what only other sizes than the reference's wiring have, and the value that it needs
_REQUIRED = {
    "do_layer_norm_before": True,
    "enable_bias": True,
    "layer_norm_elementwise_affine": True,
    "_remove_final_layer_norm": False,
}


def open_hf_opt(folder: Path, settings: CheckpointSettings) -> Checkpoint:
    """`settings` is the folder's config.json. Raises CheckpointError as `open_tensors` does, and
    for OPT-350m's wiring.
    """
    refuse_unsupported(settings)
    n_embd = settings.whole("hidden_size")
    is_projected = settings.whole("word_embed_proj_dim", n_embd) != n_embd
    wrong = [name for name, value in _REQUIRED.items() if settings.flag(name, value) != value]
    if wrong or is_projected:
        what = wrong[0] if wrong else "word_embed_proj_dim"
        raise CheckpointError(
            f"{settings.where}: {what} is {settings.values[what]}, as in OPT-350m: another "
            "architecture"
        )
    config = settings.config(
        n_layer=settings.whole("num_hidden_layers"),
        n_head=settings.whole("num_attention_heads"),
        n_embd=n_embd,
        n_ctx=settings.whole("max_position_embeddings"),
        vocab_size=settings.whole("vocab_size"),
        n_inner=settings.whole("ffn_dim"),
        activation=settings.choice("activation_function", "relu", ACTIVATIONS),
        tied_embeddings=settings.flag("tie_word_embeddings", True),
    )
    weights = open_weights(folder, "decoder.embed_positions.weight", "model.")
    prefix = f"{weights.prefix}decoder."

    def origin_of(name: str, shape: tuple[int, ...]) -> Origin:
        module, _, kind = name.rpartition(".")
        if not module.startswith("h."):
            skipped = OFFSET if module == "wpe" else 0
            stored = (shape[0] + skipped, *shape[1:])
            return Origin((f"{prefix}{_NAMES[module]}.{kind}",), stored, first_row=skipped)
        _, layer, part = module.split(".", 2)
        block = f"{prefix}layers.{layer}."
        if part != "attn.c_attn":
            return Origin((f"{block}{_NAMES[part]}.{kind}",), shape)
        names = tuple(f"{block}self_attn.{letter}_proj.{kind}" for letter in "qkv")
        return Origin(names, (n_embd, *shape[1:]))

    return open_model("hf-opt", folder, config, settings, weights, origin_of)
