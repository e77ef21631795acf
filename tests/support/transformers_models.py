"""Random models of transformers, whose shapes are those of `support.models` where a trace can be
shared, and a small byte-level vocabulary beside them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedModel

GPT2 = {"n_layer": 2, "n_head": 4, "n_embd": 64, "n_positions": 96, "vocab_size": 310}
GPT1 = {"n_layer": 2, "n_head": 3, "n_embd": 36, "n_positions": 64, "vocab_size": 214}
NEO = {
    "num_layers": 2,
    "num_heads": 2,
    "hidden_size": 32,
    "max_position_embeddings": 64,
    "vocab_size": 300,
    "attention_types": [[["global", "local"], 1]],
    "window_size": 9,
}
OPT = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_size": 64,
    "word_embed_proj_dim": 64,
    "ffn_dim": 256,
    "max_position_embeddings": 96,
    "vocab_size": 310,
}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT2": ("GPT2Config", GPT2),
    "OpenAIGPT": ("OpenAIGPTConfig", GPT1),
    "GPTNeo": ("GPTNeoConfig", NEO),
    "OPT": ("OPTConfig", OPT),
}
TEXT = (
    "First Citizen: before we proceed any further, hear me speak! All: speak, speak. You are all "
    "resolved rather to die than to famish? Größe, naïve, 中文 and 🙂. "
)


def random_transformers(name: str, head: str = "", seed: int = 0, **config: Any) -> PreTrainedModel:
    """`{name}{head}` with weights that have spread, in evaluation mode. name: a key of SHAPES."""
    config_class, shape = SHAPES[name]
    torch.manual_seed(seed)
    made = getattr(transformers, config_class)(**{**shape, **config})
    model: PreTrainedModel = getattr(transformers, name + head)(made).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def save_vocabulary(folder: Path, size: int = 300) -> None:
    """vocab.json and merges.txt, as ByteLevelBPETokenizer saves them."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        [TEXT * 9], vocab_size=size, special_tokens=["<|endoftext|>"], show_progress=False
    )
    tokenizer.save_model(str(folder))
