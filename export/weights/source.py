"""Where weights come from, one tensor at a time, and how heads are padded for the edge graph."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from gpt_edge import onnx_contract
from gpt_edge.arrays import FloatArray
from gpt_edge.config import GPTConfig
from gpt_edge.tasks import TaskSpec


class WeightSource(Protocol):
    """Where weights come from: a checkpoint, or an fp32 bundle."""

    @property
    def config(self) -> GPTConfig:
        """The model's shape."""
        ...

    @property
    def task(self) -> TaskSpec | None:
        """The task of a fine-tuned model."""
        ...

    def tensor(self, name: str) -> FloatArray:
        """The parameter `name` of `GPT.state_dict()`, float32; of a task also those of its head."""
        ...

    def release(self, name: str) -> None:
        """Give back the memory behind a tensor that was read; the caller is done with it."""
        ...


def pad_heads(name: str, array: FloatArray, config: GPTConfig) -> FloatArray:
    """Return a parameter of an attention layer with every head padded with zeros to the cache's
    head size.

    c_attn: [3C, C] -> [3HD', C], its bias [3C] -> [3HD']; c_proj: [C, C] -> [C, HD']. Others come
    back as they are.
    """
    heads, size, padded = (
        config.n_head,
        config.head_size,
        onnx_contract.cache_head_size(config, "edge"),
    )
    if size == padded or ".attn." not in name:
        return array
    extra = padded - size
    if name.endswith("c_attn.weight"):
        rows = array.reshape(3, heads, size, -1)
        return np.pad(rows, ((0, 0), (0, 0), (0, extra), (0, 0))).reshape(3 * heads * padded, -1)
    if name.endswith("c_attn.bias"):
        return np.pad(array.reshape(3, heads, size), ((0, 0), (0, 0), (0, extra))).reshape(-1)
    if name.endswith("c_proj.weight"):
        columns = array.reshape(-1, heads, size)
        return np.pad(columns, ((0, 0), (0, 0), (0, extra))).reshape(-1, heads * padded)
    return array


def unpad_heads(name: str, array: FloatArray, config: GPTConfig) -> FloatArray:
    """The inverse of `pad_heads`."""
    heads, size, padded = (
        config.n_head,
        config.head_size,
        onnx_contract.cache_head_size(config, "edge"),
    )
    if size == padded or ".attn." not in name:
        return array
    if name.endswith("c_attn.weight"):
        return array.reshape(3, heads, padded, -1)[:, :, :size].reshape(3 * heads * size, -1)
    if name.endswith("c_attn.bias"):
        return array.reshape(3, heads, padded)[:, :, :size].reshape(-1)
    if name.endswith("c_proj.weight"):
        return array.reshape(-1, heads, padded)[:, :, :size].reshape(-1, heads * size)
    return array
