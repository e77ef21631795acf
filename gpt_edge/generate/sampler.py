"""Sampler: chooses a token id from a row of logits.

Logits processors prepare the row, top-k and the truncations choose which tokens may be drawn, and
one is drawn from their softmax. With top-k alone, which is nearly always, a faster way gives the
same choices. A vectorised pass finds a bound that the k largest logits reach and proves the row
sound: numpy's maximum propagates NaN and sorts it last, so a finite end means no NaN and no +inf
anywhere. A second pass takes what reaches the bound, hardly more than k logits. The rest is plain
Python:
between two steps of the model the caches hold none of this code, and each numpy function that has
to be fetched costs more than it saves on 40 numbers.
"""

from __future__ import annotations

import copy
import math
import os
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from gpt_edge.arrays import FloatArray
from gpt_edge.generate.logits import (
    LogitsProcessor,
    LogitsRow,
    check_processed,
    check_sound,
    cut_to_top_k,
    divide_by_temperature,
    top_k_bound,
    top_k_ids,
    unsound,
)
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.philox import Philox
from gpt_edge.generate.truncation import build_truncations

_FEW = 256  # candidates that plain Python is quicker for
NO_TOP_K = 1 << 62  # more than any vocabulary


class Sampler:
    """Chooses token ids from rows of logits; holds the random state of one generation.

    seed: the one in use, drawn from the operating system when the params name none.
    """

    def __init__(self, params: SamplingParams, processors: Sequence[LogitsProcessor] = ()) -> None:
        """processors: that change a row before the tokens that may be drawn are chosen, in order;
        see `processors.py`.
        """
        self.seed = int.from_bytes(os.urandom(8), "little") if params.seed is None else params.seed
        self._processors = list(processors)
        self._is_greedy = params.is_greedy or params.top_k == 1
        self._top_k = params.effective_top_k or NO_TOP_K
        self._temperature = params.effective_temperature or 1.0
        self._truncations = build_truncations(params)
        self._random = Philox(self.seed)

    def fork(self, processors: Sequence[LogitsProcessor]) -> Sampler:
        """Another with the same settings and the same random numbers from here. processors: its
        own.
        """
        other = copy.copy(self)
        other._processors = list(processors)
        other._random = self._random.fork()
        return other

    def draws_from(self, n_tokens: int) -> bool:
        """Whether a choice among `n_tokens` takes passes of arithmetic over all of them, and calls
        no processor.
        """
        return not (self._processors or self._is_greedy) and self._top_k >= n_tokens

    def sample(self, logits: FloatArray, history: Sequence[int] = ()) -> int:
        """Return a token id whose probability is above 0; greedy takes the largest logit, the lower
        id in a tie.

        logits: float32 [V], natural-log scale, not changed. -inf means probability 0. history: the
        ids before, the prompt's included; for processors that look at them.
        Raises NumericError for NaN or +inf anywhere, or -inf everywhere.
        """
        row: LogitsRow = logits
        if self._processors:
            check_sound(row, float(row.max()))
            for processor in self._processors:
                row = processor(history, row)
            check_processed(row)
        if self._is_greedy:
            return _largest(row)
        if self._truncations:
            return self._sample_truncated(row)
        return self._sample_top_k(row)

    def _sample_truncated(self, logits: LogitsRow) -> int:
        """Top-k, temperature and the truncations, each on what the one before it left."""
        check_sound(logits, float(logits.max()))
        ids = top_k_ids(logits, self._top_k)
        values = divide_by_temperature(logits[ids], self._temperature)
        for truncation in self._truncations:
            kept = truncation(values)
            ids = ids[kept]
            values = values[kept]
        return int(ids[self._draw(values, 1.0)])

    def _sample_top_k(self, logits: LogitsRow) -> int:
        """Top-k and temperature alone, without a pass over the row for each."""
        if self._top_k >= logits.size:
            check_sound(logits, float(logits.max()))
            return self._draw(logits, self._temperature)
        bound, largest = top_k_bound(logits, self._top_k)
        check_sound(logits, largest)
        # fewer than k that are not -inf, as under a constraint
        is_candidate = logits >= bound if bound > -math.inf else logits > bound
        ids = is_candidate.nonzero()[0]
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
        raise unsound(logits)
    return best
