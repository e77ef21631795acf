"""Quantiles of any number of values in bounded memory: a histogram over the leading bits of
float32.

The bits of a float32, with the sign bit flipped, form a whole number in the order of the values.
Its sign, exponent and first 13 bits of mantissa choose one of 2^22 bins, so a value is known to a
relative 2^-14 (6.1e-5); smallest and largest are exact. A bin in use takes 12 bytes: a few MB in
practice, 50 MB at most. Unlike a sample or a sketch it loses no precision as it grows, and the same
values give the same quantiles in any order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

DROPPED_BITS = 10  # of 23 bits of mantissa
MAX_PENDING = 1 << 16
SIGN = np.uint32(1 << 31)
TINY = 1e-37  # a smaller value counts as 0


class Quantiles:
    """Counts blocks of values; `at` gives the quantiles of all of them."""

    def __init__(self) -> None:
        # the bins in use, ascending
        self._bins, self._counts = np.empty(0, np.uint32), np.empty(0, np.int64)
        self._pending: list[npt.NDArray[np.uint32]] = []  # bins of values that are not counted yet
        self._n_pending = 0
        self.n = 0
        self.smallest, self.largest = math.inf, -math.inf

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Count finite values [R], as float32."""
        if values.size == 0:
            return
        rounded = values.astype(np.float32)
        rounded[np.abs(rounded) < TINY] = 0.0
        bits = rounded.view(np.uint32)
        keys: npt.NDArray[np.uint32] = np.where(bits & SIGN, ~bits, bits | SIGN)
        self._pending.append((keys >> DROPPED_BITS).astype(np.uint32))
        self._n_pending += values.size
        self.n += values.size
        self.smallest = min(self.smallest, float(rounded.min()))
        self.largest = max(self.largest, float(rounded.max()))
        if self._n_pending >= MAX_PENDING:
            self._merge()

    def _merge(self) -> None:
        fresh, counts = np.unique(np.concatenate([self._bins, *self._pending]), return_counts=True)
        # each bin in use was counted once itself
        counts[np.searchsorted(fresh, self._bins)] += self._counts - 1
        self._bins, self._counts = fresh.astype(np.uint32), counts.astype(np.int64)
        self._pending, self._n_pending = [], 0

    def at(self, share: float) -> float:
        """The value that `share` of all values do not exceed, between neighbours by their distance
        (numpy's "linear").

        share: 0 to 1. Raises ValueError where nothing was counted.
        """
        if not self.n or not 0 <= share <= 1:
            raise ValueError(f"no quantile {share} of {self.n} values")
        self._merge()
        rank = share * (self.n - 1)
        below, above = self._at_rank(int(rank)), self._at_rank(math.ceil(rank))
        return below + (above - below) * (rank - int(rank))

    def _at_rank(self, rank: int) -> float:
        if rank in (0, self.n - 1):
            return self.largest if rank else self.smallest
        return self._value(int(self._bins[np.searchsorted(np.cumsum(self._counts), rank, "right")]))

    def _value(self, index: int) -> float:
        """The middle of a bin, limited to the smallest and the largest value."""
        key = np.uint32((index << DROPPED_BITS) | (1 << (DROPPED_BITS - 1)))
        bits = np.array([key ^ SIGN if key & SIGN else ~key], np.uint32)
        value = float(bits.view(np.float32)[0])
        value = 0.0 if abs(value) < TINY else value
        return min(max(value, self.smallest), self.largest)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, from which `from_dict` restores the same histogram."""
        self._merge()
        limits = [self.smallest, self.largest] if self.n else []
        return {"limits": limits, "bins": self._bins.tolist(), "counts": self._counts.tolist()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Quantiles:
        """The inverse of `to_dict`. Raises ValueError, KeyError, TypeError or OverflowError for
        other values.
        """
        quantiles = cls()
        quantiles._bins = np.array(values["bins"], np.uint32)
        quantiles._counts = np.array(values["counts"], np.int64)
        is_sorted = bool((np.diff(quantiles._bins.astype(np.int64)) > 0).all())
        if (
            quantiles._bins.shape != quantiles._counts.shape
            or (quantiles._counts < 1).any()
            or not is_sorted
        ):
            raise ValueError("bins and their counts do not belong together")
        quantiles.n = int(quantiles._counts.sum())
        if quantiles.n:
            quantiles.smallest, quantiles.largest = map(float, values["limits"])
        return quantiles
