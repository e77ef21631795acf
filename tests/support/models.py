"""Random models of every kind, wide enough in their weights that logits have spread and greedy
tokens mean something.
"""

from __future__ import annotations

from pathlib import Path

import torch

from gpt_edge.config import GPTConfig
from gpt_edge.reference.checkpoint import save_checkpoint
from gpt_edge.reference.model import GPT

TINY = {
    "gpt1": GPTConfig(
        n_layer=2, n_head=3, n_embd=36, n_ctx=64, vocab_size=211, norm="post"
    ),  # heads of 12: padded to 16
    "gpt2": GPTConfig(n_layer=2, n_head=4, n_embd=64, n_ctx=96, vocab_size=307),
    "gpt3": GPTConfig(
        n_layer=3,
        n_head=2,
        n_embd=32,
        n_ctx=128,
        vocab_size=127,
        attention=("dense", "banded"),
        window=9,
    ),
}

ODD = {
    "one of everything": GPTConfig(n_layer=1, n_head=1, n_embd=1, n_ctx=1, vocab_size=1),
    "primes": GPTConfig(
        n_layer=1, n_head=1, n_embd=7, n_ctx=9, vocab_size=3, n_inner=5, activation="gelu"
    ),
    "untied, unscaled": GPTConfig(
        n_layer=1,
        n_head=2,
        n_embd=34,
        n_ctx=33,
        vocab_size=19,
        tied_embeddings=False,
        scale_attention=False,
    ),
    "relu, all banded, post": GPTConfig(
        n_layer=1,
        n_head=5,
        n_embd=40,
        n_ctx=20,
        vocab_size=65,
        norm="post",
        attention=("banded",),
        window=1,
        activation="relu",
    ),
}


def random_model(config: GPTConfig, seed: int = 0, std: float = 0.15) -> GPT:
    """A GPT with normal weights of `std`, layer-norm gains around 1, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    model = GPT(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_gain = ".ln_" in f".{name}" and name.endswith("weight")
            parameter.normal_(1.0 if is_gain else 0.0, 0.1 if is_gain else std, generator=generator)
    return model


def save_random(folder: Path, config: GPTConfig, seed: int = 0, std: float = 0.15) -> Path:
    """A gpt-edge checkpoint of a random model, without a tokenizer."""
    save_checkpoint(folder, config, random_model(config, seed, std).state_dict(), None, {})
    return folder
