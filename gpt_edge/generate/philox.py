"""The random numbers of sampling: Philox4x64-10 (Salmon, Moraes, Dror and Shaw, "Parallel random
numbers: as easy as 1, 2, 3", 2011).

Our own, because numpy promises stable bit generators, but not stable methods on top of them: the
same seed gives the same choices across numpy releases.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

# names the algorithm: text is reproducible between equal names
GENERATOR = "philox4x64-10/inverse-cdf-by-id/1"
MASK = (1 << 64) - 1


class Philox(Iterator[int]):
    """Uniform 64-bit integers of Philox4x64-10 with key (seed, 0) and counter 1, 2, ...: numpy's
    Philox(key=seed).
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._counter = 0
        self._rest: tuple[int, ...] = ()

    def __next__(self) -> int:
        if not self._rest:
            self._counter += 1
            self._rest = _block(self._seed, self._counter)
        number, *rest = self._rest
        self._rest = tuple(rest)
        return number

    def fork(self) -> Self:
        """Another that gives the same numbers from here."""
        other = type(self)(self._seed)
        other._counter = self._counter
        other._rest = self._rest
        return other


def _block(seed: int, counter: int) -> tuple[int, int, int, int]:
    """The four integers of one counter, after ten rounds."""
    a, b, c, d = counter & MASK, (counter >> 64) & MASK, 0, 0
    key_0, key_1 = seed & MASK, 0
    for _ in range(10):
        low, high = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b, c, d = (high >> 64) ^ b ^ key_0, high & MASK, (low >> 64) ^ d ^ key_1, low & MASK
        key_0, key_1 = (key_0 + 0x9E3779B97F4A7C15) & MASK, (key_1 + 0xBB67AE8584CAA73B) & MASK
    return a, b, c, d
