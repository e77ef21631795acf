"""A checkpoint as a base of adapters, and as what an adapter makes of it.

A base has the rows of texts, and rows of zeros for the three tokens of a task, which come from the
adapter; its heads are left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gpt_edge.arrays import FloatArray
from gpt_edge.bundle.gate.adapter import HEAD_BIAS, HEAD_WEIGHT
from gpt_edge.config import GPTConfig
from gpt_edge.errors import ExportError
from gpt_edge.export.weights.source import pad_heads, unpad_heads
from gpt_edge.onnx_contract import TASK_TOKENS
from gpt_edge.reference.importers import Checkpoint
from gpt_edge.reference.importers.tensor_map import reference_shapes
from gpt_edge.reference.trained_adapter import base_hash
from gpt_edge.tasks import N_NEW_TOKENS, TaskSpec, n_text_rows

A, B = ".lora_a", ".lora_b"
EMBEDDINGS = ("wte.weight", "lm_head.weight")


def n_text_of(checkpoint: Checkpoint) -> int:
    """Rows of the embedding that texts use. Raises ExportError for a task whose tokens are not the
    last ones.
    """
    config, task = checkpoint.config, checkpoint.task
    n_text = n_text_rows(config.vocab_size, task)
    if task is not None and task.tokens != tuple(range(n_text, config.vocab_size)):
        raise ExportError(
            f"{checkpoint.path} has a task whose tokens are not the last {N_NEW_TOKENS} of its "
            "vocabulary: it is no base for adapters",
            hint="take the language model that it was fine-tuned from",
        )
    return n_text


def base_config(config: GPTConfig, n_text: int) -> GPTConfig:
    """The shape of a base."""
    return dataclasses.replace(
        config,
        vocab_size=n_text + N_NEW_TOKENS,
        n_label=None,
        tied_embeddings=True,  # there is no head
        takes_adapters=True,
    )


@dataclass(frozen=True)
class BaseSource:
    """The weights of a base; a WeightSource."""

    checkpoint: Checkpoint
    n_text: int

    @property
    def config(self) -> GPTConfig:
        """As WeightSource.config."""
        return base_config(self.checkpoint.config, self.n_text)

    @property
    def task(self) -> TaskSpec | None:
        """None: a task comes with an adapter."""
        return None

    def tensor(self, name: str) -> FloatArray:
        """As WeightSource.tensor."""
        array = self.checkpoint.tensor(name)
        return _with_rows(array, self.n_text) if name in EMBEDDINGS else array

    def release(self, name: str) -> None:
        """As WeightSource.release."""
        self.checkpoint.release(name)

    def weights_hash(self) -> str:
        """What an adapter calls its base by, see `base_hash`."""
        return base_hash(self.checkpoint.config, self.checkpoint.tensor, self.n_text)


@dataclass(frozen=True)
class AdaptedCheckpoint(Checkpoint):
    """A checkpoint with an adapter merged. arrays: of the adapter, by their names, not padded."""

    arrays: Mapping[str, FloatArray] = dataclasses.field(default_factory=dict)
    n_text: int = 0

    def names(self) -> list[str]:
        """As Checkpoint.names."""
        return list(reference_shapes(self.config))

    def tensor(self, name: str) -> FloatArray:
        """As Checkpoint.tensor."""
        if name in (HEAD_WEIGHT, HEAD_BIAS):
            return self.arrays[name]
        array = super().tensor(name)
        module = name.removesuffix(".weight")
        if name in EMBEDDINGS:
            array = _with_rows(array, self.n_text)
            if name == EMBEDDINGS[0]:
                array[self.n_text :] = self.arrays[TASK_TOKENS]
        elif module + A in self.arrays:
            array = array + (self.arrays[module + A] @ self.arrays[module + B]).T
        return array

    def release(self, name: str) -> None:
        """As Checkpoint.release."""
        if name in self.origins:
            super().release(name)


def adapted(
    base: Checkpoint, n_text: int, arrays: Mapping[str, FloatArray], task: TaskSpec
) -> AdaptedCheckpoint:
    """`base` with an adapter merged into it."""
    config = dataclasses.replace(
        base.config, vocab_size=n_text + N_NEW_TOKENS, n_label=task.n_label
    )
    values = {item.name: getattr(base, item.name) for item in dataclasses.fields(Checkpoint)}
    return AdaptedCheckpoint(
        **{**values, "config": config, "task": task, "tied_copy": None},
        arrays=arrays,
        n_text=n_text,
    )


def padded_arrays(
    arrays: Mapping[str, FloatArray], config: GPTConfig, graph: str
) -> dict[str, FloatArray]:
    """An adapter's arrays as a base's graph reads them: heads padded in the edge graph."""
    if graph != "edge":
        return dict(arrays)
    return {name: _reshaped(name, array, config, pad_heads) for name, array in arrays.items()}


def unpadded_arrays(
    arrays: Mapping[str, FloatArray], config: GPTConfig, graph: str
) -> dict[str, FloatArray]:
    """The inverse of `padded_arrays`."""
    if graph != "edge":
        return dict(arrays)
    return {name: _reshaped(name, array, config, unpad_heads) for name, array in arrays.items()}


def _reshaped(name: str, array: FloatArray, config: GPTConfig, change: object) -> FloatArray:
    """Padding of a linear layer's weight [out, in] applied to the matrix that has its axis."""
    assert callable(change)
    if name.endswith(f"attn.c_attn{B}"):  # [rank, out]
        return np.ascontiguousarray(change(name.replace(B, ".weight"), array.T, config).T)
    if name.endswith(f"attn.c_proj{A}"):  # [in, rank]
        return np.ascontiguousarray(change(name.replace(A, ".weight"), array.T, config).T)
    return array


def _with_rows(array: FloatArray, n_text: int) -> FloatArray:
    """The rows of texts, and zeros for a task's tokens."""
    zeros = np.zeros((N_NEW_TOKENS, array.shape[1]), np.float32)
    return np.concatenate([array[:n_text], zeros])
