"""Logits processors that change single logits: bias, penalties and bans.

Each is a callable on (history, row), see `logits.py`, and is what transformers' processor of the
same purpose computes, float for float, where it has one (version 4.57, generation/
logits_process.py). Penalties on presence and frequency are those of OpenAI's API: only the
generated tokens count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpt_edge.generate.logits import LogitsRow


@dataclass(frozen=True, slots=True)
class LogitBias:
    """Adds to the logits of tokens; -inf removes one. pairs: (id, bias)."""

    pairs: tuple[tuple[int, float], ...]

    def __call__(self, history: Sequence[int], logits: LogitsRow) -> LogitsRow:
        changed = logits.copy()
        for id, bias in self.pairs:
            changed[id] += np.float32(bias)
        return changed


@dataclass(frozen=True, slots=True)
class RepetitionPenalty:
    """Divides the positive logits of every token of the history by `penalty`, and multiplies the
    negative ones.

    Source: Keskar et al. 2019 (CTRL), section 4.1.
    """

    penalty: float

    def __call__(self, history: Sequence[int], logits: LogitsRow) -> LogitsRow:
        if not history:
            return logits
        seen = set(history)
        ids = np.fromiter(seen, np.int64, len(seen))
        values = logits[ids]
        changed = logits.copy()
        changed[ids] = np.where(values < 0, values * self.penalty, values / self.penalty)
        return changed


@dataclass(frozen=True, slots=True)
class CountPenalties:
    """Subtracts `presence` once, and `frequency` for each time, from every token of the text after
    the first `n_prompt` ids of the history.
    """

    presence: float
    frequency: float
    n_prompt: int

    def __call__(self, history: Sequence[int], logits: LogitsRow) -> LogitsRow:
        counts = Counter(history[self.n_prompt :])
        if not counts:
            return logits
        ids = np.fromiter(counts.keys(), np.int64, len(counts))
        times = np.fromiter(counts.values(), np.float32, len(counts))
        changed = logits.copy()
        changed[ids] -= self.presence + times * self.frequency
        return changed


@dataclass(frozen=True, slots=True)
class NoRepeatNgram:
    """Removes every token that would complete n tokens that the history has already.

    Source: Paulus, Xiong and Socher 2017, section 2.5.
    """

    n: int

    def __call__(self, history: Sequence[int], logits: LogitsRow) -> LogitsRow:
        if len(history) < self.n:
            return logits
        ids = np.array(history, np.int64)
        n_starts = ids.size - self.n + 1
        is_same = np.ones(n_starts, bool)
        for place in range(self.n - 1):
            is_same &= ids[place : place + n_starts] == ids[ids.size - self.n + 1 + place]
        changed = logits.copy()
        changed[ids[self.n - 1 :][is_same]] = -np.inf
        return changed


@dataclass(frozen=True, slots=True)
class BadWords:
    """Removes the token that would complete one of `sequences` of ids.

    transformers lets a word of n tokens pass where the history is exactly n - 1 tokens long; here
    it never passes.
    """

    sequences: tuple[tuple[int, ...], ...]

    def __call__(self, history: Sequence[int], logits: LogitsRow) -> LogitsRow:
        changed = logits.copy()
        for *start, last in self.sequences:
            if not start or list(history[-len(start) :]) == start:
                changed[last] = -np.inf
        return changed


@dataclass(frozen=True, slots=True)
class MinNewTokens:
    """Removes the end tokens until `n` ids follow the first `n_prompt` of the history."""

    n: int
    n_prompt: int
    end_tokens: tuple[int, ...]

    def __call__(self, history: Sequence[int], logits: LogitsRow) -> LogitsRow:
        if len(history) - self.n_prompt >= self.n:
            return logits
        changed = logits.copy()
        changed[list(self.end_tokens)] = -np.inf
        return changed
