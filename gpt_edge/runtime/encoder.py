"""Encoder: a graph that processes whole sequences, many at once, in one forward without a cache.

Of a fine-tuned bundle, and of a base with an adapter, it gives the task's logits, of any bundle
hidden states, pooled to one vector for each sequence. A sequence's result does not depend on what
is computed beside it: every operator works row by row, and attention ends where the sequence ends.
Knows nothing of text.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gpt_edge import onnx_contract
from gpt_edge.arrays import FloatArray, IntArray
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.errors import BundleError, ContextLengthError, NumericError
from gpt_edge.native.library import Native
from gpt_edge.runtime.adapter import Adapter, no_adapter, open_adapter
from gpt_edge.runtime.batching import batches, equal_batches, pad
from gpt_edge.runtime.graph_runner import GraphRunner, bind_memory
from gpt_edge.system.closable import Closable

BATCH = 64  # examples at once, at most
Pooling = Literal["last", "mean"]
Ids = Sequence[Sequence[int]]


class Encoder(Closable):
    """A loaded model. Thread-safe: a call keeps nothing. A process forked from this one must open
    its own.

    threads, native: as for `Session`. adapter: what a base computes with; `with_adapter` is the
    same base with another one. Raises ValueError for threads outside 1 to 256, and BundleError as
    `Session`, and for an adapter that is none of this base.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        native: Native = None,
        adapter: Bundle | Adapter | None = None,
    ) -> None:
        self.bundle = bundle
        self.path = bundle.path
        self.config = bundle.config
        self.graph = bundle.graph
        self.task = bundle.task
        self.adapter: Adapter | None = None
        if adapter is not None:  # before the graph is loaded
            self._take(adapter)
        self._graph_runner = GraphRunner(bundle, threads=threads, native=native)
        self._inputs = set(self._graph_runner.input_types)
        # Optimum's graphs of classifiers look for the last token themselves, by an id that may be
        # part of a text
        self._may_pad = not bundle.is_optimum_export
        self._has_states = onnx_contract.HIDDEN_STATES in self._graph_runner.output_types
        self._no_adapter: dict[str, Any] = {}
        if self.config.takes_adapters:
            self._no_adapter = no_adapter(self.config, self.graph)

    def with_adapter(self, adapter: Bundle | Adapter | None) -> Encoder:
        """The same loaded base with another adapter, or with none. Closing one closes the others:
        they share the graph. Raises BundleError as the constructor.
        """
        other = copy.copy(self)
        other.adapter, other.path, other.task = None, self.bundle.path, self.bundle.task
        if adapter is not None:
            other._take(adapter)
        return other

    def _take(self, adapter: Bundle | Adapter) -> None:
        if isinstance(adapter, Bundle):
            adapter = open_adapter(adapter, self.bundle)
        self.adapter, self.path, self.task = adapter, adapter.path, adapter.task

    @property
    def threads(self) -> int:
        """How many threads it uses."""
        return self._graph_runner.threads

    def close(self) -> None:
        """Let go of the weights; using it afterwards is a ValueError."""
        self._graph_runner.close()

    def describe(self) -> str:
        """What the model is, for the repr of what stands on it."""
        state = ", closed" if self._graph_runner.is_closed else ""
        return (
            f"vectors of {self.config.n_embd}, context of {self.config.n_ctx}, threads "
            f"{self.threads}{state}"
        )

    def logits(self, sequences: Ids, *, batch: int = BATCH) -> FloatArray:
        """The task's logits float32 [E, n_label] of each example; for multiple choice [E, 1], E the
        number of answers; for token-classification and embedding E is the number of all tokens, in
        order.

        sequences: as `task_inputs.transform` makes them, for similarity an example's two orders one
        after the other. batch: examples at once. Raises ValueError for ids that are none,
        ContextLengthError for a sequence longer than n_ctx, BundleError for a language model,
        NumericError for logits that are NaN or infinite.
        """
        if self.task is None and self.config.takes_adapters:
            raise BundleError(
                f"{self.path} is a base without an adapter: it has no task to answer",
                hint="open it with adapter=, a folder that gpt-edge export --base wrote",
                cli_hint="give an adapter with --adapter FOLDER",
            )
        if self.task is None:
            raise BundleError(
                f"{self.path} is a language model: it has no task to answer",
                hint="open it with gpt_edge.load",
                cli_hint="use gpt-edge generate",
            )
        self._check(sequences)
        if self.task.reads_every_token:
            found = self._token_logits(sequences, self.task.n_label, batch)
        else:
            found = self._example_logits(sequences, self.task.n_label, batch)
        if not np.isfinite(found).all():
            raise NumericError(f"{self.path} gave NaN or infinite logits")
        return found

    def _example_logits(self, sequences: Ids, n_label: int, batch: int) -> FloatArray:
        per_example = 2 if self.task is not None and self.task.kind == "similarity" else 1
        found = np.empty((len(sequences) // per_example, n_label), np.float32)
        sizes = [len(ids) for ids in sequences]
        parts = batches(sizes, batch, per_example) if self._may_pad else equal_batches(sizes, batch)
        for rows in parts:
            ids, lengths = pad([sequences[row] for row in rows])
            logits = self._logits_of(ids, lengths, lengths[:, None] - 1, per_example)
            found[rows[::per_example] // per_example] = logits.reshape(-1, n_label)
        return found

    def _token_logits(self, sequences: Ids, n_label: int, batch: int) -> FloatArray:
        """Logits [N, n_label] of the N tokens of all sequences, one after the other."""
        sizes = [len(ids) for ids in sequences]
        ends = np.cumsum(sizes)
        found = np.empty((int(ends[-1]) if sizes else 0, n_label), np.float32)
        for rows in batches(sizes, batch):
            ids, lengths = pad([sequences[row] for row in rows])
            every_row = np.repeat(np.arange(ids.shape[1])[None], len(ids), 0)
            logits = self._logits_of(ids, lengths, every_row)
            for row, length, of_tokens in zip(rows, lengths, logits, strict=True):
                found[ends[row] - length : ends[row]] = of_tokens[:length]
        return found

    def _logits_of(
        self, ids: IntArray, lengths: IntArray, rows: IntArray, per_example: int = 1
    ) -> FloatArray:
        """Logits [E, R, n_label] of the chosen rows [B, R]: the graph's own, or of an adapter's
        head. A portable task has chosen its rows itself.
        """
        if self.adapter is None:
            return self._run(ids, lengths, onnx_contract.LOGITS, rows)
        states = self._run(ids, lengths, onnx_contract.HIDDEN_STATES, rows)
        if self.graph == "portable":
            states = np.take_along_axis(states, rows[:, :, None], 1)
        if per_example == 2:  # the two orders of a similarity
            states = states[0::2] + states[1::2]
        logits = self.adapter.logits(states.reshape(-1, states.shape[2]))
        return logits.reshape(*states.shape[:2], -1)

    def vectors(self, sequences: Ids, *, batch: int = BATCH) -> FloatArray:
        """The vectors float32 [S, dimensions] of a model that was trained for them: the mean of its
        logits over each sequence's tokens. Raises as `logits`.
        """
        sizes = np.array([len(ids) for ids in sequences], np.int64)
        if not sizes.size:
            return np.empty((0, self.task.n_label if self.task else 0), np.float32)
        logits = self.logits(sequences, batch=batch)
        starts = np.cumsum(sizes) - sizes
        sums = np.add.reduceat(logits, starts, axis=0, dtype=np.float64)
        means: FloatArray = (sums / sizes[:, None]).astype(np.float32)
        return means

    def states(
        self, sequences: Ids, pooling: Pooling = "mean", *, batch: int = BATCH
    ) -> FloatArray:
        """Hidden states float32 [S, C] after the final norm: of each sequence's last token, or the
        mean over its tokens.

        Raises as `logits`, and BundleError for a language model whose graph gives no hidden states.
        """
        if pooling not in ("last", "mean"):
            raise ValueError(f"pooling must be 'last' or 'mean', got {pooling!r}")
        if not self._has_states:
            raise BundleError(
                f"{self.path} gives no hidden states: gpt-edge did not make it, or an older one "
                "did",
                hint="make it again with gpt-edge export",
            )
        self._check(sequences)
        found = np.empty((len(sequences), self.config.n_embd), np.float32)
        # the graph adds pairs
        per_example = 2 if self.task is not None and self.task.kind == "similarity" else 1
        for rows in batches([len(ids) for ids in sequences], batch):
            chosen = rows if rows.size % per_example == 0 else np.append(rows, rows[-1])
            ids, lengths = pad([sequences[row] for row in chosen])
            found[rows] = self._pooled(ids, lengths, pooling)[: rows.size]
        if not np.isfinite(found).all():
            raise NumericError(f"{self.path} gave NaN or infinite hidden states")
        return found

    def _pooled(self, ids: IntArray, lengths: IntArray, pooling: Pooling) -> FloatArray:
        places = np.arange(ids.shape[1])[None]
        rows = lengths[:, None] - 1 if pooling == "last" else np.repeat(places, len(ids), 0)
        states = self._run(ids, lengths, onnx_contract.HIDDEN_STATES, rows)
        has_all_rows = not self.config.is_encoder or self.graph == "portable"
        if pooling == "last":
            return states[np.arange(len(ids)), lengths - 1] if has_all_rows else states[:, 0]
        weights = (places < lengths[:, None]) / lengths[:, None]
        mean: FloatArray = np.einsum("btc,bt->bc", states, weights, dtype=np.float64).astype(
            np.float32
        )
        return mean

    def _run(self, ids: IntArray, lengths: IntArray, output: str, rows: IntArray) -> FloatArray:
        """One output of the graph on padded ids [B, T]; rows [B, R]: those that go through a task's
        last layer.
        """
        n_rows, width = ids.shape
        feeds: dict[str, npt.NDArray[Any]] = {
            onnx_contract.INPUT_IDS: ids,
            onnx_contract.POSITION_IDS: np.repeat(np.arange(width)[None], n_rows, 0),
            onnx_contract.ATTENTION_MASK: (np.arange(width) < lengths[:, None]).astype(np.int64),
            onnx_contract.SEQLENS_K: (lengths - 1).astype(np.int32),
            onnx_contract.TOTAL_SEQUENCE_LENGTH: np.array([width], np.int32),
            onnx_contract.LOGIT_ROWS: np.ascontiguousarray(rows)
            if self.config.is_encoder
            else np.zeros((n_rows, 1), np.int64),
        }
        binding = self._graph_runner.new_binding()
        bind_memory(
            binding, {name: value for name, value in feeds.items() if name in self._inputs}, {}
        )
        binding.bind_output(output)
        for name, value in (self.adapter.values if self.adapter else self._no_adapter).items():
            binding.bind_ortvalue_input(name, value)
        if not self.config.is_encoder:
            self._bind_past(binding, n_rows, width)
        self._graph_runner.run(binding)
        result: FloatArray = binding.get_outputs()[0].numpy()
        return result

    def _bind_past(self, binding: Any, n_rows: int, width: int) -> None:
        """A language model's empty past: of the edge graph memory for `width` tokens, which it
        writes into.
        """
        size = onnx_contract.cache_head_size(self.config, self.graph)
        shape = (n_rows, self.config.n_head, width if self.graph == "edge" else 0, size)
        for layer in range(self.config.n_layer):
            for past, present in (
                (onnx_contract.past_key, onnx_contract.present_key),
                (onnx_contract.past_value, onnx_contract.present_value),
            ):
                array = np.zeros(shape, self._graph_runner.cache_dtype)
                shared = {present(layer): array} if self.graph == "edge" else {}
                bind_memory(binding, {past(layer): array}, shared)

    def _check(self, sequences: Ids) -> None:
        for ids in sequences:
            if not ids or min(ids) < 0 or max(ids) >= self.config.vocab_size:
                raise ValueError(
                    f"a sequence must hold one or more ids from 0 to {self.config.vocab_size - 1}"
                )
            if len(ids) > self.config.n_ctx:
                raise ContextLengthError(
                    f"{len(ids)} tokens do not fit into the context of {self.config.n_ctx}"
                )
