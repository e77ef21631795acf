"""Speculation: reading several likely ids at once, and keeping those that the model itself chooses.

A proposer guesses the next ids. One call of the model reads them all, which costs little more than
reading one, since the weights are read once. Each token is then chosen from its own row of logits,
by the same sampler with the same random numbers as without speculation; the first that differs from
the guess ends the run, and the cache forgets what follows. So the text is that of plain decoding,
greedy or sampled, and only the time differs.

Source: Leviathan, Kalman and Matias 2023, "Fast inference from transformers via speculative
decoding", section 2; there tokens are accepted by a test that keeps the distribution, here by
drawing them from the model's own distribution, which also keeps the text of a seed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gpt_edge.arrays import FloatArray
from gpt_edge.generate.read_sequence import ReadSequence
from gpt_edge.generate.sampler import Sampler
from gpt_edge.runtime.session import Session
from gpt_edge.tokenizer.spec import Tokenizer

# With the id before them 2, 4 or 8 rows of a call: our operators take four rows in one reading of
# the weights, so other numbers gain little, and each needs memory that is bound once.
GUESSES = (1, 3, 7)
EXPECTED_COST = 0.25  # of a row beyond the first, in steps, before it was measured
# of the time of plain decoding so far, that wrong guesses may have cost in all
LOSS_LIMIT = 0.01


class Proposer(Protocol):
    """Guesses what follows; one generation, one proposer."""

    def propose(self, ids: Sequence[int], n: int) -> list[int]:
        """Up to `n` ids that may follow `ids`, the whole text so far; [] where it has no guess."""


@dataclass(slots=True)
class SpeculationStats:
    """What speculation did. guessed: ids read ahead; accepted: of them, those that were right;
    calls: of the model.
    """

    guessed: int = 0
    accepted: int = 0
    calls: int = 0


class SpeculativeReader:
    """Gives the logits after each id, as `ReadSequence.step`, from rows that were read ahead."""

    def __init__(
        self, sequence: ReadSequence, proposer: Proposer, history: Sequence[int], limit: int
    ) -> None:
        """history: the ids of the text, which its owner adds to. limit: how many it may have at
        most; nothing is read ahead beyond it.
        """
        self.stats = SpeculationStats()
        self._sequence = sequence
        self._proposer = proposer
        self._history = history
        # the last token is chosen, and never read
        self._limit = min(limit, sequence.session.config.n_ctx + 1)
        self._pace = Pace()
        self._rows: list[FloatArray] = []  # after each guess that may still prove right
        self._guesses: list[int] = []
        self._has_guessed = False

    def step(self, id: int) -> FloatArray:
        """Logits [V] after `id`, the last token chosen; the next call may overwrite them."""
        if self._guesses and self._guesses[0] == id:
            self._guesses.pop(0)
            self.stats.accepted += 1
            self._pace.note_guess(is_right=True)
            return self._rows.pop(0)
        if self._guesses:
            self._sequence.crop(len(self._sequence.ids) - len(self._guesses))
            self._pace.note_guess(is_right=False)
        self._rows = []
        self._guesses = []
        return self._call(id)

    def _call(self, id: int) -> FloatArray:
        """Read `id`, and guesses after it where they promise to save time."""
        guesses, guessing = self._guess()
        self.stats.calls += 1
        started = time.perf_counter()
        if not guesses:
            self._pace.note_no_guess(guessing)
            logits = self._sequence.step(id)
            self._pace.note_call(1, time.perf_counter() - started)
            return logits
        rows = self._sequence.read_rows([id, *guesses])
        self.stats.guessed += len(guesses)
        self._pace.note_call(len(rows), time.perf_counter() - started + guessing)
        self._guesses = guesses
        self._rows = list(rows[1:])
        first: FloatArray = rows[0]
        return first

    def _guess(self) -> tuple[list[int], float]:
        """Guesses, and the seconds that they took: 0 for the first ones, before which a draft reads
        the prompt.
        """
        room = self._limit - len(self._history) - 1
        n = min(self._pace.n_guesses(), room)
        if n <= 0:
            return [], 0.0
        started = time.perf_counter()
        guesses = self._proposer.propose(self._history, n)
        seconds = time.perf_counter() - started if self._has_guessed else 0.0
        self._has_guessed = True
        return guesses, seconds


class Pace:
    """How many ids to guess: the number that promises most tokens a second, by the share of right
    guesses and by what calls cost so far; none while wrong guesses have cost too much.
    """

    def __init__(self) -> None:
        self._share = 0.8  # of guesses that are right; a smoothed mean
        # of calls by their number of rows, in seconds: smoothed means, 0 while unknown
        self._seconds = dict.fromkeys((1, *(n + 1 for n in GUESSES)), 0.0)
        self._is_warm: set[int] = set()
        self._best = GUESSES[-1]  # the number that promises most
        self._promise = 2.0  # tokens that it promises in the time of a step
        self._n_tokens = 0
        self._lost_steps = 0.0  # time of calls, in steps, less the tokens that they gave

    def n_guesses(self) -> int:
        """0 or one of GUESSES."""
        if not self._seconds[1] or self._lost_steps > 1 + LOSS_LIMIT * self._n_tokens:
            return 0
        # where little is lost, there is time to find out if guesses are better now
        may_try = self._lost_steps < LOSS_LIMIT * self._n_tokens / 2
        return self._best if self._promise > 1 or may_try else 0

    def note_call(self, n_rows: int, seconds: float) -> None:
        """A call of so many rows took so long; it gives one token at least."""
        self._n_tokens += 1
        if n_rows not in self._is_warm:  # the first call binds memory, and is slower
            self._is_warm.add(n_rows)
            return
        if n_rows > 1:
            self._lost_steps += seconds / self._seconds[1] - 1
        if n_rows not in self._seconds:  # fewer guesses than were asked for
            return
        known = self._seconds[n_rows]
        # a busy machine makes some calls slow, and nothing makes one fast
        weight = 0.3 if seconds < known else 0.05
        self._seconds[n_rows] += (weight if known else 1.0) * (seconds - known)

    def note_no_guess(self, seconds: float) -> None:
        """Looking for a guess took so long, and gave none."""
        if self._seconds[1]:
            self._lost_steps += seconds / self._seconds[1]

    def note_guess(self, is_right: bool) -> None:
        """A guess proved right or wrong; a right one saves a step."""
        self._share += 0.1 * (is_right - self._share)
        if is_right:
            self._n_tokens += 1
            self._lost_steps -= 1
        self._best = max(GUESSES, key=self._tokens_a_step)
        self._promise = self._tokens_a_step(self._best)

    def _tokens_a_step(self, n: int) -> float:
        """Expected tokens of a call with `n` guesses, for each step's time that it takes."""
        tokens = sum(self._share**place for place in range(n + 1))
        seconds = self._seconds[n + 1] or self._seconds[1] * (1 + EXPECTED_COST * n)
        return tokens * self._seconds[1] / seconds


class DraftModel:
    """Guesses what a smaller model with the same tokenizer chooses, with the same random numbers;
    it stops at a token of which that model is not sure.

    guesser: gives a sampler that chooses as the text's own will next. n_tokens: how many ids the
    vocabulary has.
    """

    def __init__(
        self, session: Session, guesser: Callable[[], Sampler], n_tokens: int, sure: float = 0.35
    ) -> None:
        self._sequence = ReadSequence(session)
        self._guesser = guesser
        self._n_tokens = n_tokens
        self._sure = sure

    def propose(self, ids: Sequence[int], n: int) -> list[int]:
        """See Proposer. A text beyond the draft's context has no guesses."""
        if len(ids) + n > self._sequence.session.config.n_ctx:
            return []
        logits = self._read(ids)
        sampler = self._guesser()
        history = list(ids)
        while True:
            row = logits[: self._n_tokens]
            id = sampler.sample(row, history)
            if probability(row, id) < self._sure:
                break
            history.append(id)
            if len(history) == len(ids) + n:
                break
            logits = self._sequence.step(id)
        return history[len(ids) :]

    def _read(self, ids: Sequence[int]) -> FloatArray:
        """Logits after `ids`, of which the sequence has read a beginning, and perhaps wrong guesses
        after it.
        """
        n_same = 0
        for own, wanted in zip(self._sequence.ids, ids[:-1], strict=False):
            if own != wanted:
                break
            n_same += 1
        self._sequence.crop(n_same)
        if len(ids) - n_same == 1:
            return self._sequence.step(ids[-1])
        logits = self._sequence.read(ids[n_same:])
        assert logits is not None  # nothing cancels it
        return logits


def probability(logits: FloatArray, id: int) -> float:
    """The probability of `id` after a row of logits [V], in float32: quick, and exact enough to
    compare.
    """
    shares = np.exp(logits - logits.max())
    return float(shares[id] / shares.sum())


class PromptLookup:
    """Guesses that a text goes on as it did where its last tokens stood before; for texts that
    repeat their prompt or themselves, such as code, tables and rewritten texts.

    Source: Saxena 2023, "Prompt lookup decoding". longest, shortest: how many tokens must be the
    same.
    """

    def __init__(self, longest: int = 4, shortest: int = 3) -> None:
        self._lengths = range(longest, shortest - 1, -1)
        # of each length, where the tokens after an n-gram begin: its latest place
        self._places: dict[int, dict[tuple[int, ...], int]] = {n: {} for n in self._lengths}
        self._n_known = 0  # places up to here are in the tables

    def propose(self, ids: Sequence[int], n: int) -> list[int]:
        """See Proposer."""
        self._learn(ids)
        for length in self._lengths:
            place = self._places[length].get(tuple(ids[-length:]))
            if place is not None:
                # a text of short period goes on from its own guess
                period = len(ids) - place
                return [ids[place + offset % period] for offset in range(n)]
        return []

    def _learn(self, ids: Sequence[int]) -> None:
        """Take in what follows each n-gram that ends before the last id. Ids only ever get more:
        a wrong guess is none of them.
        """
        for end in range(self._n_known + 1, len(ids)):
            for length in self._lengths:
                if end >= length:
                    self._places[length][tuple(ids[end - length : end])] = end
        self._n_known = len(ids) - 1


def check_same_tokens(draft: Tokenizer, own: Tokenizer) -> None:
    """Raise ValueError, naming the first token that differs, unless both tokenizers have the same
    tokens.
    """
    if draft is own:
        return
    if (draft.kind, draft.vocab_size) != (own.kind, own.vocab_size):
        raise ValueError(
            f"the draft's tokenizer ({draft.kind}, {draft.vocab_size} tokens) is not the model's "
            f"({own.kind}, {own.vocab_size} tokens)"
        )
    for id in range(own.vocab_size):
        if draft.token_bytes(id) != own.token_bytes(id):
            raise ValueError(
                f"the draft's tokenizer is not the model's: token {id} is "
                f"{draft.token_bytes(id)!r}, the model's is {own.token_bytes(id)!r}"
            )
