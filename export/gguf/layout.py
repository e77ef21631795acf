"""The reference as llama.cpp's architecture "gpt2": which models it can compute, and the name and
type of every tensor.

Sources: llama.cpp, src/models/gpt2.cpp and gguf-py/gguf/constants.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpt_edge.config import GPTConfig
from gpt_edge.errors import ExportError
from gpt_edge.reference.importers.tensor_map import reference_shapes

TYPES = ("f32", "f16", "q8_0")
BLOCK = 32  # weights of a block of Q8_0, with one scale in float16
_NAMES = {
    "wte": "token_embd",
    "wpe": "position_embd",
    "ln_f": "output_norm",
    "lm_head": "output",
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
_HINT = "export it as a bundle instead: leave out --to gguf"


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """One tensor of the file. origin: the reference's name; type: one of TYPES."""

    name: str
    shape: tuple[int, ...]
    origin: str
    type: str

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Of the array that is written: of q8_0 in bytes, 34 for a block."""
        if self.type != "q8_0":
            return self.shape
        return (*self.shape[:-1], self.shape[-1] // BLOCK * (BLOCK + 2))

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of that array."""
        return np.dtype({"f32": np.float32, "f16": np.float16, "q8_0": np.uint8}[self.type])

    @property
    def n_bytes(self) -> int:
        """Of that array."""
        return int(np.prod(self.stored_shape)) * self.dtype.itemsize


def check_computable(config: GPTConfig) -> tuple[str, ...]:
    """Notes on a model for llama.cpp. Raises ExportError for one that its gpt2 cannot compute."""
    reasons = {
        "it is post-norm, as GPT-1": config.norm != "pre",
        "it has banded layers": set(config.attention) != {"dense"},
        "it does not divide attention by the root of the head's size": not config.scale_attention,
        "it has ReLU": config.activation == "relu",
    }
    for reason, is_true in reasons.items():
        if is_true:
            raise ExportError(f"llama.cpp's gpt2 cannot compute this model: {reason}", hint=_HINT)
    if config.activation == "gelu":
        return ("llama.cpp computes the tanh form of GELU, the model has the exact one",)
    return ()


def gguf_tensors(config: GPTConfig, type: str) -> list[GGUFTensor]:
    """Every tensor of the file, in its order. Vectors and positions stay float32, as llama.cpp's
    own converter keeps them; a matrix whose rows are no whole blocks is f16 in q8_0's place.
    """
    tensors = []
    for origin, shape in reference_shapes(config).items():
        is_matrix = len(shape) == 2 and origin != "wpe.weight"
        kind = type if is_matrix else "f32"
        if kind == "q8_0" and shape[-1] % BLOCK:
            kind = "f16"
        tensors.append(GGUFTensor(gguf_name(origin), shape, origin, kind))
    return tensors


def gguf_name(origin: str) -> str:
    """The name in the file of a tensor of the reference."""
    module, _, kind = origin.rpartition(".")
    if not module.startswith("h."):
        return f"{_NAMES[module]}.{kind}"
    _, layer, part = module.split(".", 2)
    return f"blk.{layer}.{_NAMES[part]}.{kind}"
