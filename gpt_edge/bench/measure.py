"""Timing of one loaded model through the API that an app uses: Generator for one sequence, Session
for a batch.

Prompts are random ids, new for every measurement, so that nothing can be cached. Decoding is greedy
and ignores end tokens.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from gpt_edge.arrays import IntArray
from gpt_edge.bench.figures import Engine
from gpt_edge.bench.plan import Case
from gpt_edge.bench.traffic import cache_bytes, weight_bytes
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.generate.completion import TokenChoice
from gpt_edge.generate.generator import Generator
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.stream import TokenStream
from gpt_edge.runtime.session import Session
from gpt_edge.tokenizer.spec import Tokenizer

# the time of a token outside onnxruntime does not depend on the context
LOOP_PROMPT, LOOP_TOKENS = 32, 64
TOP_K, SEED = 40, 7


@dataclass(frozen=True, slots=True)
class IdsAlone:
    """Replaces the tokenizer of a bundle without one: no text is needed here."""

    vocab_size: int
    end_token: None = None


class Model:
    """A loaded bundle, ready to be timed."""

    def __init__(self, bundle: Bundle, label: str, threads: int) -> None:
        tokenizer = (
            bundle.load_tokenizer()
            if bundle.manifest.tokenizer
            else IdsAlone(bundle.config.vocab_size)
        )
        self.bundle = bundle
        self.generator = Generator(Session(bundle, threads=threads), cast(Tokenizer, tokenizer))
        self.engine = Engine(label, bundle.scheme, bundle.graph, threads)
        self.weight_bytes = weight_bytes(bundle.model_path)
        self._random = np.random.default_rng(0)

    def time(self, case: Case) -> float:
        """Return the seconds of one run of the case, without its preparation: the past and its
        memory.
        """
        if case.batch > 1 or (case.kind == "prefill" and case.depth > 0):
            return self._time_session(case)
        if case.kind == "prefill":
            stream = self.stream(
                case.n_tokens, SamplingParams(max_new_tokens=1, ignore_end_token=True)
            )
            started = time.perf_counter()
            next(stream)
            return time.perf_counter() - started
        stream = self.stream(
            case.n_past, SamplingParams(max_new_tokens=case.n_tokens + 1, ignore_end_token=True)
        )
        next(stream)
        started = time.perf_counter()
        for _ in range(case.n_tokens):
            next(stream)
        return time.perf_counter() - started

    def stream(self, n_prompt: int, params: SamplingParams) -> TokenStream:
        """Return a stream that continues a random prompt, which it has not processed yet."""
        return self.generator.generate_ids(self._ids(1, n_prompt)[0].tolist(), params)

    def bytes_per_token(self, case: Case) -> float | None:
        """Return the bytes that the machine reads for a token of a decode case, as the mean over
        the case; None if the size of the weights is not known.
        """
        if case.kind == "prefill" or self.weight_bytes is None:
            return None
        n_context = case.n_past + (case.n_tokens + 1) / 2
        session = self.generator.session
        return self.weight_bytes / case.batch + cache_bytes(
            session.config, session.new_cache(), n_context
        )

    def loop_seconds(self, params: SamplingParams) -> float:
        """Return the median seconds of a token outside onnxruntime: the step, less the time inside
        its run. Needs a context of at least 2.
        """
        n_ctx = self.generator.session.config.n_ctx
        n_prompt = min(LOOP_PROMPT, n_ctx // 2)
        n_tokens = min(LOOP_TOKENS, n_ctx - n_prompt)
        stream = self.stream(n_prompt, params)
        next(stream)
        steps = []
        with clocked_runs(self.generator.session) as runs:
            for _ in range(n_tokens):
                started = time.perf_counter()
                next(stream)
                steps.append(time.perf_counter() - started)
        assert len(runs) == len(steps), "a step runs the graph once"
        return float(np.median(np.subtract(steps, runs)))

    def _time_session(self, case: Case) -> float:
        """Time a batch, decoded as by generate_batch, or a prompt after a past."""
        session = self.generator.session
        cache = session.new_cache(case.batch)
        if case.n_past:
            logits = session.forward(self._ids(case.batch, case.n_past), cache)[:, 0]
        if case.kind == "prefill":
            ids = self._ids(case.batch, case.n_tokens)
            started = time.perf_counter()
            session.forward(ids, cache)
            return time.perf_counter() - started
        params = SamplingParams(max_new_tokens=case.n_tokens + 1, ignore_end_token=True)
        tokenizer = self.generator.tokenizer
        rows = [
            TokenChoice(params, [0] * case.n_past, session.config.n_ctx, tokenizer)
            for _ in range(case.batch)
        ]
        for row, own in zip(rows, logits, strict=True):
            row.choose(own)
        started = time.perf_counter()
        for _ in range(case.n_tokens):
            following = session.decode([row.ids[-1] for row in rows], cache)
            for row, own in zip(rows, following, strict=True):
                row.choose(own)
        return time.perf_counter() - started

    def _ids(self, batch: int, n_tokens: int) -> IntArray:
        """int64 [B, T]"""
        return self._random.integers(0, self.generator.tokenizer.vocab_size, (batch, n_tokens))


GREEDY = SamplingParams(max_new_tokens=LOOP_TOKENS + 1, ignore_end_token=True)
TOP_K_PARAMS = SamplingParams(
    max_new_tokens=LOOP_TOKENS + 1, top_k=TOP_K, seed=SEED, ignore_end_token=True
)


class _Clocked:
    """Wraps an onnxruntime session: runs it and records the seconds."""

    def __init__(self, session: Any, seconds: list[float]) -> None:
        self._session = session
        self._seconds = seconds

    def run_with_iobinding(self, *arguments: Any) -> None:
        started = time.perf_counter()
        self._session.run_with_iobinding(*arguments)
        self._seconds.append(time.perf_counter() - started)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


@contextmanager
def clocked_runs(session: Session) -> Iterator[list[float]]:
    """Yield a list to which the seconds of each run of the graph within the block are added. Not
    thread-safe.
    """
    graph_runner = session._graph_runner
    inner = graph_runner._session
    seconds: list[float] = []
    graph_runner._session = _Clocked(inner, seconds)
    try:
        yield seconds
    finally:
        graph_runner._session = inner
