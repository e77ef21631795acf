"""Session: a bundle's graph in onnxruntime. Token ids and a KVCache go in, logits come out; it
knows nothing of text.

One session serves prompts (read in chunks), decoding and scoring, and any number of generations at
once, each with a cache of its own: onnxruntime's Run is thread-safe. Only one graph is loaded, as a
second would pack the weights again.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from gpt_edge import onnx_contract
from gpt_edge.arguments import check_whole
from gpt_edge.arrays import FloatArray, IntArray
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.errors import BundleError, ContextLengthError
from gpt_edge.native.library import Native
from gpt_edge.runtime.edge_runner import EdgeRunner
from gpt_edge.runtime.graph_runner import GraphRunner
from gpt_edge.runtime.kv_cache import WHOLE, KVCache
from gpt_edge.runtime.kv_slots import KVSlots
from gpt_edge.runtime.portable_runner import PortableRunner
from gpt_edge.runtime.tuning import DEFAULT, PREFILL_CHUNK, Tuning
from gpt_edge.system.closable import Closable

MAX_SEVERAL = 8  # ids of one `decode_several`
SEVERAL = (list, tuple, np.ndarray)


class Session(Closable):
    """A loaded model. `name` is that of its `bundle`, `config` its shape, `graph` its kind,
    `threads` how many it uses.

    threads: None takes those of `tuning`. native: the library of custom operators, see
    `native.library.find_library`. Raises ValueError for threads outside 1 to 256, and BundleError
    for a classifier, or a graph that onnxruntime refuses or that lacks an input or
    output of `onnx_contract.py`. A process forked from this one must open its own.
    profile: onnxruntime times every operator, and `end_profile` names the file, whose path begins
    with this one. tuning: how the machine is used, see `tuning.py`.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        native: Native = None,
        profile: Path | None = None,
        tuning: Tuning = DEFAULT,
    ) -> None:
        if bundle.manifest.base is not None:
            _ = bundle.model_path  # says that it has none
        if bundle.task is not None:
            raise BundleError(
                f"{bundle.path} is a classifier ({bundle.task.kind}), not a language model",
                hint="open it with gpt_edge.Classifier.load",
                cli_hint="use gpt-edge classify",
            )
        if bundle.config.takes_adapters:
            raise BundleError(
                f"{bundle.path} is a base for adapters, not a language model",
                hint="open it with gpt_edge.Classifier.load and adapter=",
                cli_hint="use gpt-edge classify with --adapter FOLDER",
            )
        self.name = bundle.manifest.name
        self.config = bundle.config
        self.graph = bundle.graph
        self.bundle = bundle
        self._prefill_chunk = tuning.prefill_chunk
        self._graph_runner = GraphRunner(
            bundle, threads=threads, native=native, profile=profile, tuning=tuning
        )
        self.threads = self._graph_runner.threads
        self._model = (str(bundle.path), self.graph, self.config)
        self._runner: EdgeRunner | PortableRunner
        if self.graph == "edge":
            self._runner = EdgeRunner(self._graph_runner, self.config)
        else:
            self._runner = PortableRunner(self._graph_runner, self.config)

    def __repr__(self) -> str:
        state = ", closed" if self._graph_runner.is_closed else ""
        return (
            f"<Session {self.name}: {self.graph} graph, {self.config.n_layer} layers of width "
            f"{self.config.n_embd}, context of {self.config.n_ctx}, threads {self.threads}{state}>"
        )

    def close(self) -> None:
        """Let go of the weights, as leaving a with-block does; what runs in other threads ends
        first. Using the session or one of its caches afterwards is a ValueError.
        """
        self._graph_runner.close()

    def new_cache(self, batch: int = 1, capacity: int | None = None) -> KVCache:
        """An empty cache for `batch` sequences, with room for `capacity` tokens before it has to
        grow.
        """
        cache = KVCache(self.config, self.graph, batch, capacity, self._runner.cache_dtype)
        cache.model = self._model
        return cache

    @property
    def is_row_exact(self) -> bool:
        """True where a token's logits, keys and values have the same bits however a text is cut
        into calls, and whatever is computed beside it: with custom operators in place of all of
        onnxruntime's that add numbers.
        """
        return self._graph_runner.is_row_exact

    @property
    def gives_hidden_states(self) -> bool:
        """Whether the graph gives what the head reads; files of others and older bundles do not."""
        return onnx_contract.HIDDEN_STATES in self._graph_runner.output_types

    @functools.cached_property
    def weights_hash(self) -> str:
        """The model's identity: SHA-256 over its graph's and weights' files."""
        return self.bundle.weights_hash()

    def new_slots(self, n_slots: int) -> KVSlots:
        """An empty cache of up to `n_slots` sequences that join and leave."""
        slots = KVSlots(self.config, self.graph, n_slots, self._runner.cache_dtype)
        slots.model = self._model
        return slots

    def reserve(self, cache: KVCache, length: int) -> None:
        """Make room for rows of `length` at once: memory that grows chunk by chunk exists twice,
        again and again.
        """
        check_whole("length", length, 0)
        if self.graph == "edge":
            cache.reserve(length)

    def decode(self, ids: Sequence[int] | IntArray, cache: KVCache) -> FloatArray:
        """Append one token to every row of the cache and return what follows: logits
        float32 [B, V].

        The array belongs to the cache: the next call with this cache overwrites it. Rows may have
        different lengths. Raises ValueError for ids that are not one per row or not in the
        vocabulary, ContextLengthError if a row is full.
        """
        self._check_cache(cache)
        if not isinstance(ids, SEVERAL) or len(ids) != cache.batch or not self._are_ids(ids):
            raise self._wrong_ids(ids, cache.batch)
        if cache.length >= self.config.n_ctx:
            raise ContextLengthError(f"the context of {self.config.n_ctx} tokens is full")
        return self._runner.decode(ids, cache)

    def decode_several(self, ids: Sequence[int], cache: KVCache) -> FloatArray:
        """Append ids [T], two to eight, to the only row of a cache and return the logits
        float32 [T, V] after each.

        The array belongs to the cache: the next call with so many ids overwrites it. What `decode`
        prepares once is prepared once here, too, so a small model loses no time to it. Raises
        ValueError for ids that are too many or not in the vocabulary, or a cache of several rows,
        ContextLengthError if they do not fit.
        """
        self._check_cache(cache)
        if not isinstance(ids, SEVERAL):
            raise self._wrong_ids(ids, 1)
        if cache.batch != 1 or not 2 <= len(ids) <= MAX_SEVERAL:
            raise ValueError(
                f"a cache of one row and 2 to {MAX_SEVERAL} ids are expected, got {cache.batch} "
                f"rows and {len(ids)} ids"
            )
        if not self._are_ids(ids):
            raise self._wrong_ids(ids, len(ids))
        self._check_room(cache.length, len(ids))
        if isinstance(self._runner, EdgeRunner):
            return self._runner.decode_several(ids, cache)
        logits: FloatArray = self.forward([ids], cache, "all")[0]
        return logits

    def forward(
        self,
        ids: npt.ArrayLike,
        cache: KVCache,
        logit_rows: Literal["last", "all"] | Sequence[int] | IntArray = "last",
        *,
        row: int | None = None,
        hidden: FloatArray | None = None,
    ) -> FloatArray:
        """Append ids [B, T] to the cache and return logits float32 [B, R, V] of the chosen rows, in
        memory of their own.

        logit_rows: "last", "all", or indices [R] into T, ascending. row: ids [1, T] go to this row
        of the cache alone. hidden: where the hidden states float32 [B, T, C] go, if
        `gives_hidden_states`. Sequences are read one by one in chunks of PREFILL_CHUNK, so none
        depends on its neighbours. Raises ValueError for ids, rows, a row or hidden that do not fit,
        ContextLengthError before any work.
        """
        self._check_cache(cache)
        tokens = self._check_ids(ids)
        if row is not None and not isinstance(row, WHOLE):
            raise ValueError(f"row must be a whole number, got {row!r:.80}")
        rows = range(cache.batch) if row is None else (row,)
        if len(rows) != tokens.shape[0] or not 0 <= rows[0] <= rows[-1] < cache.batch:
            raise ValueError(
                f"ids have {tokens.shape[0]} rows, the cache has {cache.batch}, row is {row}"
            )
        chosen = _check_logit_rows(logit_rows, tokens.shape[1])
        if hidden is not None:
            self._check_hidden(hidden, tokens.shape)
        for index in rows:
            self._check_room(int(cache.lengths[index]), tokens.shape[1])
        self.reserve(cache, max(int(cache.lengths[index]) for index in rows) + tokens.shape[1])
        logits = np.empty((len(rows), chosen.size, self.config.vocab_size), np.float32)
        if tokens.shape[1] == 1 and len(rows) == cache.batch:
            states = None if hidden is None else hidden[:, 0]
            logits[:] = self._runner.decode(tokens[:, 0], cache, states)[:, None]
            return logits
        for place, (sequence, index) in enumerate(zip(tokens, rows, strict=True)):
            states = None if hidden is None else hidden[place]
            self._read(sequence, cache, index, chosen, logits[place], states)
        return logits

    def end_profile(self) -> Path:
        """Stop timing the operators and return the file of onnxruntime's profiler; once, after
        `profile`.
        """
        return self._graph_runner.end_profile()

    def _read(
        self,
        ids: IntArray,
        cache: KVCache,
        row: int,
        chosen: IntArray,
        out: FloatArray,
        hidden: FloatArray | None,
    ) -> None:
        """Append ids [T] chunk by chunk. chosen: rows with logits, ascending [R]; out: [R, V];
        hidden: [T, C].
        """
        unwanted = np.empty((1, self.config.vocab_size), np.float32)
        step = min(self._prefill_chunk, PREFILL_CHUNK)
        for start in range(0, ids.size, step):
            chunk = ids[start : start + step]
            states = None if hidden is None else hidden[start : start + chunk.size]
            first, end = np.searchsorted(chosen, (start, start + chunk.size))
            rows, target = chosen[first:end] - start, out[first:end]
            if first == end:  # the graph computes at least one row
                rows, target = np.array([chunk.size - 1]), unwanted
            self._runner.append(chunk, cache, row, rows, target, states)

    def _check_ids(self, ids: npt.ArrayLike) -> IntArray:
        try:
            tokens = np.asarray(ids)
        except ValueError:  # rows of different lengths
            raise ValueError("ids must be whole numbers [B, T], got rows that differ") from None
        if tokens.ndim != 2 or tokens.size == 0 or tokens.dtype.kind not in "iu":
            raise ValueError(
                f"ids must be whole numbers [B, T], got {tokens.dtype} {list(tokens.shape)}"
            )
        if tokens.min() < 0 or tokens.max() >= self.config.vocab_size:
            raise self._wrong_ids(tokens.ravel(), tokens.size)
        return np.ascontiguousarray(tokens, np.int64)

    def _check_cache(self, cache: KVCache) -> None:
        """Raise ValueError for a cache that another model filled: its keys and values mean nothing
        here, even where they have the shape of this one's.
        """
        if not isinstance(cache, KVCache):
            raise ValueError(f"cache must be one of new_cache, got {type(cache).__name__}")
        if cache.model is not self._model and cache.model != self._model:
            raise ValueError(f"the cache belongs to another model than {self.name}")

    def _check_hidden(self, hidden: FloatArray, shape: tuple[int, ...]) -> None:
        if not self.gives_hidden_states:
            raise BundleError(
                f"{self.bundle.path} gives no hidden states: gpt-edge did not make it, or an older "
                "one did",
                hint="export the model again",
            )
        expected = (*shape, self.config.n_embd)
        if hidden.shape != expected or hidden.dtype != np.float32:
            raise ValueError(
                f"hidden must be float32 {list(expected)}, got {hidden.dtype} {list(hidden.shape)}"
            )

    def _are_ids(self, ids: Sequence[int] | IntArray) -> bool:
        """Whether all are whole numbers within the vocabulary."""
        size = self.config.vocab_size
        return all(isinstance(id, WHOLE) and 0 <= id < size for id in ids)

    def _check_room(self, past: int, new: int) -> None:
        if past + new > self.config.n_ctx:
            raise ContextLengthError(
                f"{past + new} tokens do not fit into the context of {self.config.n_ctx}",
                hint="shorten the prompt, or cut it with truncate='left'",
                cli_hint="shorten the prompt, or cut it with --truncate left",
            )

    def _wrong_ids(self, ids: Sequence[int] | IntArray, expected: int) -> ValueError:
        if not isinstance(ids, SEVERAL):
            return ValueError(f"ids must be a sequence of token ids, got {type(ids).__name__}")
        if len(ids) != expected:
            return ValueError(
                f"expected one id for each row of the cache, {expected}, got {len(ids)}"
            )
        wrong = next(id for id in ids if not self._are_ids((id,)))
        return ValueError(
            f"token ids must be from 0 to {self.config.vocab_size - 1}, got {wrong!s:.80}"
        )


def _check_logit_rows(
    logit_rows: Literal["last", "all"] | Sequence[int] | IntArray, n_tokens: int
) -> IntArray:
    if isinstance(logit_rows, str):
        if logit_rows not in ("last", "all"):
            raise ValueError(f"logit_rows must be 'last', 'all' or indices, got {logit_rows!r}")
        return np.arange(n_tokens if logit_rows == "all" else 1) + (
            0 if logit_rows == "all" else n_tokens - 1
        )
    rows = np.asarray(logit_rows)
    is_whole = rows.ndim == 1 and rows.size > 0 and rows.dtype.kind in "iu"
    if not is_whole or rows[0] < 0 or rows[-1] >= n_tokens or (np.diff(rows) <= 0).any():
        raise ValueError(
            f"logit_rows must be ascending indices below {n_tokens}, got {logit_rows!r}"
        )
    return rows.astype(np.int64)
