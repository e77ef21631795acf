"""EdgeRunner: runs the edge graph on a KVCache, whose arrays onnxruntime writes in place.

Everything a decode step needs is bound once and stays bound until the cache moves: a step writes
the ids, runs, and adds one to the lengths, which are themselves the bound positions. Shapes and
checks belong to `session.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpt_edge import onnx_contract
from gpt_edge.arrays import FloatArray, IntArray
from gpt_edge.config import GPTConfig
from gpt_edge.runtime.graph_runner import GraphRunner, bind_memory
from gpt_edge.runtime.kv_cache import CacheArray, KVCache


class _Step:
    """A binding for calls that append `n_new` tokens to every row, and the memory that it reads and
    writes.
    """

    def __init__(
        self,
        graph_runner: GraphRunner,
        config: GPTConfig,
        cache: KVCache,
        n_new: int,
        with_hidden: bool,
    ) -> None:
        batch = cache.batch
        self.ids = np.zeros((batch, n_new), np.int64)
        self.seqlens_k = np.zeros(batch, np.int32)
        self.total = np.zeros(1, np.int32)
        self.logits: FloatArray = np.zeros((batch, n_new, config.vocab_size), np.float32)
        self.hidden: FloatArray = np.zeros((batch, n_new, config.n_embd), np.float32)
        # the next position of a row is its length
        self.positions = cache.lengths.reshape(batch, 1)
        if n_new > 1:
            self.positions = np.zeros((batch, n_new), np.int64)
        self.binding = graph_runner.new_binding()
        inputs: dict[str, npt.NDArray[Any]] = {
            onnx_contract.INPUT_IDS: self.ids,
            onnx_contract.POSITION_IDS: self.positions,
            onnx_contract.SEQLENS_K: self.seqlens_k,
            onnx_contract.TOTAL_SEQUENCE_LENGTH: self.total,
            onnx_contract.LOGIT_ROWS: np.tile(np.arange(n_new, dtype=np.int64), (batch, 1)),
        }
        outputs: dict[str, npt.NDArray[Any]] = {onnx_contract.LOGITS: self.logits}
        if with_hidden:
            outputs[onnx_contract.HIDDEN_STATES] = self.hidden
        bind_memory(self.binding, inputs, outputs)
        _bind_cache(self.binding, cache.arrays)


def _bind_cache(binding: Any, arrays: list[CacheArray]) -> None:
    """Bind past and present of each layer to the same memory."""
    for layer in range(len(arrays) // 2):
        names = (
            (onnx_contract.past_key, onnx_contract.present_key),
            (onnx_contract.past_value, onnx_contract.present_value),
        )
        for (past, present), array in zip(names, arrays[2 * layer : 2 * layer + 2], strict=True):
            bind_memory(binding, {past(layer): array}, {present(layer): array})


class EdgeRunner:
    """Runs prefill chunks and decode steps of the edge graph."""

    def __init__(self, graph_runner: GraphRunner, config: GPTConfig) -> None:
        self.cache_dtype = graph_runner.cache_dtype
        self._graph_runner = graph_runner
        self._config = config

    def decode(
        self, ids: Sequence[int] | IntArray, cache: KVCache, hidden: FloatArray | None = None
    ) -> FloatArray:
        """Append one token per row; see Session.decode. hidden: where hidden states [B, C] go."""
        longest = cache.length + 1
        cache.reserve(longest)
        step = self._step(cache, 1, hidden is not None)
        step.ids[:, 0] = ids
        step.seqlens_k[:] = cache.lengths
        step.total[0] = longest
        self._graph_runner.run(step.binding)
        cache.lengths += 1
        if hidden is not None:
            hidden[:] = step.hidden[:, 0]
        logits: FloatArray = step.logits[:, 0]
        return logits

    def decode_several(self, ids: Sequence[int], cache: KVCache) -> FloatArray:
        """Append a few tokens to the only row; see Session.decode_several."""
        past = cache.length
        total = past + len(ids)
        cache.reserve(total)
        step = self._step(cache, len(ids))
        step.ids[0] = ids
        step.positions[0] = np.arange(past, total)
        step.seqlens_k[0] = total - 1
        step.total[0] = total
        self._graph_runner.run(step.binding)
        cache.lengths[0] = total
        logits: FloatArray = step.logits[0]
        return logits

    def _step(self, cache: KVCache, n_new: int, with_hidden: bool = False) -> _Step:
        """The binding for so many new tokens a row, made once for the cache's memory."""
        if not isinstance(cache.bound, dict):
            cache.bound = {}
        steps: dict[tuple[int, bool], _Step] = cache.bound
        key = n_new, with_hidden
        if key not in steps:
            steps[key] = _Step(self._graph_runner, self._config, cache, n_new, with_hidden)
        return steps[key]

    def append(
        self,
        ids: IntArray,
        cache: KVCache,
        row: int,
        logit_rows: IntArray,
        out: FloatArray,
        hidden: FloatArray | None = None,
    ) -> None:
        """Append ids [T] to one row of the cache; the logits of `logit_rows` [R] go to out
        [R, V], and hidden states to hidden [T, C].
        """
        past = int(cache.lengths[row])
        total = past + ids.size
        cache.reserve(total)
        inputs: dict[str, npt.NDArray[Any]] = {
            onnx_contract.INPUT_IDS: ids[None],
            onnx_contract.POSITION_IDS: np.arange(past, total, dtype=np.int64)[None],
            onnx_contract.SEQLENS_K: np.array([total - 1], np.int32),
            onnx_contract.TOTAL_SEQUENCE_LENGTH: np.array([total], np.int32),
            onnx_contract.LOGIT_ROWS: logit_rows[None],
        }
        binding = self._graph_runner.new_binding()
        outputs: dict[str, npt.NDArray[Any]] = {onnx_contract.LOGITS: out[None]}
        if hidden is not None:
            outputs[onnx_contract.HIDDEN_STATES] = hidden[None]
        bind_memory(binding, inputs, outputs)
        _bind_cache(binding, [array[row : row + 1] for array in cache.arrays])
        self._graph_runner.run(binding)
        cache.lengths[row] = total
