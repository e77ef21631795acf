"""Beam search: the continuations of highest score that a search of limited width finds.

A score is the sum of the tokens' log-probabilities, the end token's included, divided by their
number to the power of `length_penalty`. The rules of when a beam is done and when the search ends
are those of transformers' `generate` (version 4.57), so that both find the same texts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from gpt_edge.arrays import FloatArray
from gpt_edge.generate.completion import Completion, FinishReason, end_tokens_of
from gpt_edge.generate.constraints.processor import ConstraintProcessor
from gpt_edge.generate.logits import LogitsProcessor, check_sound, top_k_ids
from gpt_edge.generate.logprobs import log_softmax
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.processors import build_processors
from gpt_edge.generate.prompt import Prompt
from gpt_edge.generate.read_sequence import IsCancelled, ReadSequence
from gpt_edge.runtime.session import Session
from gpt_edge.tokenizer.spec import Tokenizer

EarlyStopping = Literal["never"] | bool
MAX_BEAMS = 64


@dataclass(frozen=True, slots=True)
class BeamParams:
    """How to search. Raises ValueError naming the field and value.

    early_stopping: True ends the search as soon as `num_beams` texts have ended; False when the
    best that still runs has a lower score, at its length, than the worst of them; "never" only when
    it cannot win at its longest. num_return_sequences: the best so many, at most num_beams.
    length_penalty: above 0 long texts gain, below 0 short ones.
    """

    num_beams: int = 4
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False
    num_return_sequences: int = 1

    def __post_init__(self) -> None:
        _check_count("num_beams", self.num_beams, MAX_BEAMS)
        _check_count("num_return_sequences", self.num_return_sequences, self.num_beams)
        penalty = self.length_penalty
        if isinstance(penalty, bool) or not isinstance(penalty, int | float):
            raise ValueError(f"length_penalty must be a number, got {penalty!r}")
        if not np.isfinite(penalty):
            raise ValueError(f"length_penalty must be a finite number, got {penalty!r}")
        if self.early_stopping not in (True, False, "never"):
            raise ValueError(
                f"early_stopping must be True, False or 'never', got {self.early_stopping!r}"
            )


@dataclass(frozen=True, slots=True)
class _Beam:
    """ids: generated so far, with the end token where there is one. sum: of their logprobs. row:
    of the cache, the one that it continues.
    """

    ids: tuple[int, ...]
    sum: float
    row: int
    is_ended: bool = False

    def score(self, length_penalty: float) -> float:
        return float(self.sum / len(self.ids) ** length_penalty)


class BeamSearch:
    """One search over the continuations of one prompt."""

    def __init__(
        self,
        session: Session,
        tokenizer: Tokenizer,
        prompt: Prompt,
        params: SamplingParams,
        beams: BeamParams,
        end_tokens: Sequence[int] = (),
        processors: Sequence[LogitsProcessor] = (),
        sequence: ReadSequence | None = None,
    ) -> None:
        """params: of which those that sample, and stop strings, are a ValueError. processors:
        after those that `params` ask for. sequence: what was read before, which the search uses up;
        what the prompt shares with its start is not read again.
        """
        if not params.is_greedy or params.stop or params.logprobs is not None:
            raise ValueError("beam search takes no sampling settings, stop strings or logprobs")
        if params.token_healing:
            raise ValueError("beam search takes no token_healing")
        self._session = session
        self._sequence = sequence or ReadSequence(session)
        self._cached_tokens = 0
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._beams = beams
        self._end_tokens = end_tokens_of(params, tokenizer, end_tokens)
        own = build_processors(params, len(prompt.ids), tokenizer, self._end_tokens)
        self._constraint = self._constraint_of(params)
        last = [] if self._constraint is None else [self._constraint]
        self._processors: list[LogitsProcessor] = [*own, *processors, *last]
        # the last token is never processed, so it needs no room in the context
        room = session.config.n_ctx - len(prompt.ids) + 1
        self._limit_reason: FinishReason = (
            "length" if params.max_new_tokens <= room else "context_full"
        )
        self._max_new_tokens = min(params.max_new_tokens, room)
        self._n_kept = max(2, 1 + len(self._end_tokens)) * beams.num_beams
        self._finished: list[_Beam] = []
        self._can_improve = True

    def _constraint_of(self, params: SamplingParams) -> ConstraintProcessor | None:
        if params.constraint is None:
            return None
        if not self._end_tokens:
            raise ValueError("beam search under a constraint needs a model with an end token")
        return ConstraintProcessor(
            params.constraint, self._tokenizer, len(self._prompt.ids), self._end_tokens
        )

    def run(self, cancel: IsCancelled | None = None) -> list[Completion]:
        """Search, and return the best `num_return_sequences`, the best first. cancel: ends it
        before its next token, with the beams as they are; none while the prompt is being read.
        """
        started = time.perf_counter()
        logits = self._read_prompt(cancel)
        if logits is None:
            return []
        cache = self._sequence.cache
        prefill_seconds = time.perf_counter() - started
        running = [_Beam((), 0.0, 0)]
        for length in range(1, self._max_new_tokens + 1):
            candidates = self._continue(running, logits, length)
            running = [beam for beam in candidates if not beam.is_ended][: self._beams.num_beams]
            self._finish(candidates[: self._beams.num_beams])
            if not running or self._is_over(running[0], length):
                break
            rows = [beam.row for beam in running]
            if cancel is not None and cancel.is_set():
                self._finished = sorted([*self._finished, *running], key=self._score, reverse=True)
                break
            if rows != list(range(cache.batch)):
                cache.keep_rows(rows)
            logits = self._session.decode([beam.ids[-1] for beam in running], cache)
        decode_seconds = time.perf_counter() - started - prefill_seconds
        best = self._finished[: self._beams.num_return_sequences]
        return [self._completion(beam, prefill_seconds, decode_seconds) for beam in best]

    def _read_prompt(self, cancel: IsCancelled | None) -> FloatArray | None:
        """Logits [1, V] after the prompt; None if cancelled."""
        self._cached_tokens = self._sequence.keep_prefix(self._prompt.ids)
        logits = self._sequence.read(self._prompt.ids[self._cached_tokens :], cancel)
        if logits is None:
            return None
        self._sequence.remember()
        return logits[None]

    def _continue(self, running: list[_Beam], logits: FloatArray, length: int) -> list[_Beam]:
        """The best continuations of all beams by one token, the best first; of equal ones the
        earlier beam's, then the lower id.
        """
        sums = np.stack(
            [
                self._logprobs(beam, row) + np.float32(beam.sum)
                for beam, row in zip(running, logits, strict=True)
            ]
        )
        n_vocab = sums.shape[1]
        flat = sums.ravel()
        best = top_k_ids(flat, min(self._n_kept, flat.size))
        best = best[np.argsort(-flat[best], kind="stable")]
        best = best[flat[best] > -np.inf]
        return [
            _Beam(
                (*running[index // n_vocab].ids, int(index % n_vocab)),
                float(flat[index]),
                int(index // n_vocab),
                int(index % n_vocab) in self._end_tokens or length == self._max_new_tokens,
            )
            for index in best.tolist()
        ]

    def _logprobs(self, beam: _Beam, row: FloatArray) -> npt.NDArray[np.float32]:
        logits = row[: self._tokenizer.vocab_size]
        check_sound(logits, float(logits.max()))
        logprobs = log_softmax(logits).astype(np.float32)
        history = [*self._prompt.ids, *beam.ids]
        for processor in self._processors:
            logprobs = processor(history, logprobs)
        return logprobs

    def _finish(self, top: list[_Beam]) -> None:
        """Take in those of the best candidates that have ended, and keep the best `num_beams`."""
        n_beams = self._beams.num_beams
        is_full = len(self._finished) == n_beams and self._beams.early_stopping is True
        if is_full or not self._can_improve:
            return
        ended = [beam for beam in top if beam.is_ended]
        merged = sorted([*self._finished, *ended], key=self._score, reverse=True)
        self._finished = merged[:n_beams]

    def _is_over(self, best_running: _Beam, length: int) -> bool:
        """Whether no running beam may still enter the finished ones."""
        if len(self._finished) < self._beams.num_beams:
            return False
        if self._beams.early_stopping is True:
            return True
        penalty = self._beams.length_penalty
        longest = self._beams.early_stopping == "never" and penalty > 0
        best_length = self._max_new_tokens if longest else length
        possible = best_running.sum / best_length**penalty
        self._can_improve = possible > self._score(self._finished[-1])
        return not self._can_improve

    def _score(self, beam: _Beam) -> float:
        return beam.score(self._beams.length_penalty)

    def _completion(self, beam: _Beam, prefill_seconds: float, decode_seconds: float) -> Completion:
        has_end = beam.ids[-1] in self._end_tokens
        ids = beam.ids[:-1] if has_end else beam.ids
        reason: FinishReason = "stop" if has_end else self._limit_reason
        return Completion(
            text=self._tokenizer.decode(ids),
            finish_reason=reason if beam.is_ended else "cancelled",
            ids=ids,
            prompt_tokens=len(self._prompt.ids),
            dropped_tokens=self._prompt.dropped_tokens,
            seed=None,
            prefill_seconds=prefill_seconds,
            decode_seconds=decode_seconds,
            cumulative_logprob=beam.sum,
            score=self._score(beam),
            is_constraint_met=self._is_met(ids),
            cached_tokens=self._cached_tokens,
        )

    def _is_met(self, ids: tuple[int, ...]) -> bool | None:
        if self._constraint is None:
            return None
        return self._constraint.is_met([*self._prompt.ids, *ids])


def _check_count(name: str, value: object, high: int) -> None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or not 1 <= value <= high:  # type: ignore[operator]
        raise ValueError(f"{name} must be a whole number from 1 to {high}, got {value!r}")
