"""Sampler: chooses a token id from a row of logits.

A list of logits processors prepares the row, then a token is drawn from its softmax. With no
processors but top-k and temperature, which is nearly always, a faster way gives the same choices. A
vectorised pass finds a bound that the k largest logits reach and proves the row sound: numpy's
maximum propagates NaN and sorts it last, so a finite end means no NaN and no +inf anywhere. A
second pass takes what reaches the bound, hardly more than k logits. The rest is plain Python:
between two steps of the model the caches hold none of this code, and each numpy function that has
to be fetched costs more than it saves on 40 numbers.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from gpt_edge.arrays import FloatArray
from gpt_edge.errors import NumericError
from gpt_edge.generate.logits import (
    LogitsProcessor,
    LogitsRow,
    Temperature,
    TopK,
    cut_to_top_k,
    top_k_bound,
)
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.philox import philox

_FEW = 256  # candidates that plain Python is quicker for


def build_processors(params: SamplingParams) -> list[LogitsProcessor]:
    """The processors that `params` ask for, in the order in which they work.

    First those that change single logits, then TopK, then Temperature, then those that need
    probabilities. TopK comes before Temperature, as a division may round two logits to one.
    """
    processors: list[LogitsProcessor] = []
    if params.effective_top_k is not None and params.effective_temperature is not None:
        processors.append(TopK(params.effective_top_k))
        processors.append(Temperature(params.effective_temperature))
    return processors


class Sampler:
    """Chooses token ids from rows of logits; holds the random state of one generation.

    seed: the one in use, drawn from the operating system when the params name none.
    """

    def __init__(self, params: SamplingParams, extra: Sequence[LogitsProcessor] = ()) -> None:
        """extra: processors that run before those of `params`."""
        self.seed = int.from_bytes(os.urandom(8), "little") if params.seed is None else params.seed
        self._processors = [*extra, *build_processors(params)]
        self._is_greedy = params.is_greedy or params.top_k == 1
        self._is_plain = all(
            isinstance(processor, TopK | Temperature) for processor in self._processors
        )
        self._top_k = params.effective_top_k or 1
        self._temperature = params.effective_temperature or 1.0
        self._random = philox(self.seed)

    def sample(self, logits: FloatArray, history: Sequence[int] = ()) -> int:
        """Return a token id whose probability is above 0; greedy takes the largest logit, the lower
        id in a tie.

        logits: float32 [V], natural-log scale, not changed. -inf means probability 0. history: the
        ids before, the prompt's included; for processors that look at them.
        Raises NumericError for NaN or +inf anywhere, or -inf everywhere.
        """
        if not self._is_plain:
            return self._sample_processed(logits, history)
        if self._is_greedy:
            return _largest(logits)
        return self._sample_top_k(logits)

    def _sample_processed(self, logits: FloatArray, history: Sequence[int]) -> int:
        """Any list of processors, each on the whole row."""
        row: LogitsRow = logits
        for processor in self._processors:
            _check_sound(row, float(row.max()))
            row = processor(history, row)
        if self._is_greedy:
            return _largest(row)
        _check_sound(row, float(row.max()))
        return self._draw(row, 1.0)

    def _sample_top_k(self, logits: FloatArray) -> int:
        """Top-k and temperature alone, without a pass over the row for each."""
        if self._top_k >= logits.size:
            _check_sound(logits, float(logits.max()))
            return self._draw(logits, self._temperature)
        bound, largest = top_k_bound(logits, self._top_k)
        _check_sound(logits, largest)
        ids = (logits >= bound).nonzero()[0]
        if ids.size <= _FEW:
            return self._draw_of_few(ids.tolist(), logits[ids].tolist())
        kept = cut_to_top_k(ids, logits[ids], self._top_k)
        return int(kept[self._draw(logits[kept], self._temperature)])

    def _draw_of_few(self, ids: list[int], values: list[float]) -> int:
        """One of the ascending `ids`, of which those with the `top_k` largest `values` count, as
        `_draw` would choose.
        """
        if len(ids) > self._top_k:
            # stable: ties to the lower id
            order = sorted(range(len(ids)), key=values.__getitem__, reverse=True)
            kept = sorted(order[: self._top_k])
            ids = [ids[index] for index in kept]
            values = [values[index] for index in kept]
        largest = max(values)
        cumulative = list(
            accumulate(math.exp((value - largest) / self._temperature) for value in values)
        )
        total = cumulative[-1]
        index = bisect_right(cumulative, self._uniform() * total)
        if index == len(ids):  # u * total was rounded up to total
            index = bisect_left(cumulative, total)
        return ids[index]

    def _draw(self, logits: LogitsRow, temperature: float) -> int:
        """An index, with the probabilities of softmax(logits / temperature), by inverting their
        cumulative sum.
        """
        values = logits.astype(np.float64)
        values -= values.max()
        # a tiny temperature sends all but the largest to exp(-inf) = 0
        with np.errstate(over="ignore", under="ignore"):
            values /= temperature
            np.exp(values, out=values)
        cumulative = values.cumsum()
        total = cumulative[-1]
        index = int(cumulative.searchsorted(self._uniform() * total, side="right"))
        if index == cumulative.size:  # u * total was rounded up to total
            index = int(cumulative.searchsorted(total, side="left"))
        return index

    def _uniform(self) -> float:
        """A float64 in [0, 1) from the top 53 bits of the next random integer."""
        return (next(self._random) >> 11) * 2.0**-53


def _largest(logits: LogitsRow) -> int:
    best = int(logits.argmax())  # the first NaN, if there is one
    if not math.isfinite(logits[best]):
        raise _unsound(logits)
    return best


def _check_sound(logits: LogitsRow, largest: float) -> None:
    """Raise NumericError unless the largest logit, NaN if one is NaN, is a finite number."""
    if not -math.inf < largest < math.inf:  # NaN is neither
        raise _unsound(logits)


def _unsound(logits: LogitsRow) -> NumericError:
    bad = np.flatnonzero(np.isnan(logits) | (logits == np.inf))
    value = f"{logits[bad[0]]} at token {int(bad[0])}" if bad.size else "-inf for every token"
    return NumericError(
        f"the model's logits hold {value}; finite numbers are expected, so no token can be chosen",
        hint="the weights are corrupt or overflow: run gpt-edge verify on the bundle",
    )
