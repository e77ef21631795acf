"""PortableRunner: runs the portable graph, and GPT-2 files that Optimum exported, whose present
tensors grow.

Feeds the inputs that the file has: position_ids and use_cache_branch are optional. Rows of a batch
lie at the start of the cache's arrays; the attention mask hides what is beyond a shorter row's end.
Same methods as `EdgeRunner`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpt_edge import onnx_contract
from gpt_edge.arrays import FloatArray, IntArray
from gpt_edge.config import GPTConfig
from gpt_edge.errors import BundleError
from gpt_edge.runtime.graph_runner import GraphRunner, bind_memory
from gpt_edge.runtime.kv_cache import CacheArray, KVCache
from gpt_edge.runtime.open_graph import USE_CACHE_BRANCH

DTYPE_OF = {"tensor(float)": "float32", "tensor(float16)": "float16"}


class PortableRunner:
    """Runs prefill chunks and decode steps of a graph with growing keys and values."""

    def __init__(self, graph_runner: GraphRunner, config: GPTConfig) -> None:
        self._graph_runner = graph_runner
        self._config = config
        self._inputs = set(graph_runner.input_types)
        self.cache_dtype = _dtype(onnx_contract.past_key(0), graph_runner.input_types)
        self._logits_dtype = _dtype(onnx_contract.LOGITS, graph_runner.output_types)

    def decode(
        self, ids: Sequence[int] | IntArray, cache: KVCache, hidden: FloatArray | None = None
    ) -> FloatArray:
        """Append one token per row; see Session.decode. hidden: where hidden states [B, C] go."""
        column = np.asarray(ids, np.int64).reshape(cache.batch, 1)
        past = cache.length
        is_ragged = bool((cache.lengths != past).any())
        if is_ragged and (
            onnx_contract.POSITION_IDS not in self._inputs or self._config.window is not None
        ):
            return self._decode_rows(column, cache, hidden)
        pasts = [_first(array, past) for array in cache.arrays]
        mask = np.ones((cache.batch, past + 1), np.int64)
        mask[:, :past] = np.arange(past) < cache.lengths[:, None]
        positions = cache.lengths.reshape(-1, 1).copy()
        out = None if hidden is None else hidden[:, None]
        logits, presents = self._forward(column, positions, mask, pasts, out)
        if is_ragged:  # the new token of a shorter row belongs right behind its last one
            rows = np.arange(cache.batch)
            for present in presents:
                present[rows, :, cache.lengths] = present[rows, :, past]
        cache.arrays = presents
        cache.lengths += 1
        return logits[:, 0]

    def _decode_rows(
        self, column: IntArray, cache: KVCache, hidden: FloatArray | None
    ) -> FloatArray:
        """Rows of different lengths one by one: without position_ids the file counts from the
        mask's width, and a band is counted in places of the cache, of which a shorter row leaves
        some empty before its new token.
        """
        logits = np.empty((cache.batch, self._config.vocab_size), np.float32)
        for row in range(cache.batch):
            out = None if hidden is None else hidden[row : row + 1]
            self.append(column[row], cache, row, np.zeros(1, np.int64), logits[row : row + 1], out)
        return logits

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
        pasts = [_first(array[row : row + 1], past) for array in cache.arrays]
        positions = np.arange(past, total, dtype=np.int64)[None]
        states = None if hidden is None else hidden[None]
        mask = np.ones((1, total), np.int64)
        logits, presents = self._forward(ids[None], positions, mask, pasts, states)
        out[:] = logits[0, logit_rows]
        if cache.batch == 1:
            cache.arrays = presents
        else:
            cache.reserve(total)
            for array, present in zip(cache.arrays, presents, strict=True):
                array[row, :, :total] = present[0]
        cache.lengths[row] = total

    def _forward(
        self,
        ids: IntArray,
        positions: IntArray,
        mask: IntArray,
        pasts: list[CacheArray],
        hidden: FloatArray | None,
    ) -> tuple[FloatArray, list[CacheArray]]:
        """Logits float32 [B, T, V] and the new keys and values [B, H, P + T, D], in memory of their
        own; hidden states go to hidden [B, T, C].
        """
        batch, heads, past, width = pasts[0].shape
        new = ids.shape[1]
        logits = np.empty((batch, new, self._config.vocab_size), self._logits_dtype)
        presents = [np.empty((batch, heads, past + new, width), self.cache_dtype) for _ in pasts]
        values = {
            onnx_contract.INPUT_IDS: ids,
            onnx_contract.ATTENTION_MASK: mask,
            onnx_contract.POSITION_IDS: positions,
        }
        values[USE_CACHE_BRANCH] = np.array([past > 0])
        inputs: dict[str, npt.NDArray[Any]] = {
            name: value for name, value in values.items() if name in self._inputs
        }
        outputs: dict[str, npt.NDArray[Any]] = {onnx_contract.LOGITS: logits}
        if hidden is not None:
            outputs[onnx_contract.HIDDEN_STATES] = hidden
        for layer in range(self._config.n_layer):
            inputs[onnx_contract.past_key(layer)], inputs[onnx_contract.past_value(layer)] = pasts[
                2 * layer : 2 * layer + 2
            ]
            (
                outputs[onnx_contract.present_key(layer)],
                outputs[onnx_contract.present_value(layer)],
            ) = presents[2 * layer : 2 * layer + 2]
        binding = self._graph_runner.new_binding()
        bind_memory(binding, inputs, outputs)
        self._graph_runner.run(binding)
        return logits.astype(np.float32, copy=False), presents


def _dtype(name: str, types: dict[str, str]) -> str:
    if types[name] not in DTYPE_OF:
        raise BundleError(
            f"the graph's {name} is {types[name]}, expected one of {', '.join(DTYPE_OF)}"
        )
    return DTYPE_OF[types[name]]


def _first(array: CacheArray, length: int) -> CacheArray:
    """The first `length` positions, contiguous; a copy only where there are more."""
    return np.ascontiguousarray(array[:, :, :length])
