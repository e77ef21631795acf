"""SamplingParams, which say how to choose tokens and when to stop, and Sampler, which chooses one
from a row of logits.

Knows nothing of text or models. A vectorised pass finds a bound that the k largest logits reach and
proves the row sound: numpy's maximum hands NaN on, and sorts it last, so a finite end means no NaN
and no +inf anywhere. A second one takes what reaches the bound, which is little more than k; the
rest is plain Python, as between two steps of the model the caches hold none of this code, and each
numpy function that has to be fetched costs more than it saves on 40 numbers.

The random numbers are our own Philox4x64-10 (Salmon, Moraes, Dror and Shaw, "Parallel random
numbers: as easy as 1, 2, 3", 2011), because numpy promises stable bit generators, but not stable
methods on top of them: the same seed gives the same choices across numpy releases.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from gpt_edge.arrays import FloatArray, IntArray
from gpt_edge.errors import NumericError

DEFAULT_TOP_K = 40  # what GPT-2's published samples used
DEFAULT_TEMPERATURE = 1.0
MAX_SEED = (1 << 64) - 1
MAX_STOP_STRINGS = 4
MAX_STOP_CHARACTERS = 64
# names the algorithm: text is reproducible between equal names
GENERATOR = "philox4x64-10/inverse-cdf-by-id/1"

# of the table whose column maxima bound the k-th largest logit; measured best of 8 to 256
_ROWS = 32
_SMALL = 4096  # logits up to which their own k-th largest is the bound
_FEW = 256  # candidates that plain Python is quicker for


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose tokens and when to stop. The default is greedy; a temperature or a top_k makes
    it sample.

    Raises ValueError for values that mean nothing: the message names the field and the value.
    """

    max_new_tokens: int = 256
    temperature: float | None = None  # None is 1.0 with a top_k, else greedy; 0 is greedy
    # None is 40 when sampling; the vocabulary's size or more keeps every token
    top_k: int | None = None
    seed: int | None = None  # 0 to 2**64 - 1; None draws one from the operating system
    # at most 4 strings of 1 to 64 characters; the text ends before the first one found
    stop: tuple[str, ...] = ()
    ignore_end_token: bool = False  # go on through end tokens, as a benchmark wants

    def __post_init__(self) -> None:
        _check_whole("max_new_tokens", self.max_new_tokens, 1, None)
        if self.top_k is not None:
            _check_whole("top_k", self.top_k, 1, None)
        if self.seed is not None:
            _check_whole("seed", self.seed, 0, MAX_SEED)
        if self.temperature is not None:
            _check_temperature(self.temperature)
        _check_stop(self.stop)
        object.__setattr__(self, "stop", tuple(self.stop))

    @property
    def is_greedy(self) -> bool:
        """True when the most likely token is always taken."""
        return self.temperature == 0 or (self.temperature is None and self.top_k is None)


def _check_whole(name: str, value: object, low: int, high: int | None) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or value < low
        or (high is not None and value > high)
    ):
        wanted = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be a whole number {wanted}, got {value!r}")


def _check_temperature(value: object) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and math.isfinite(value) and value >= 0):  # type: ignore[arg-type, operator]
        raise ValueError(f"temperature must be a finite number >= 0, got {value!r}")


def _check_stop(stop: object) -> None:
    if not isinstance(stop, tuple | list):
        raise ValueError(f"stop must be a tuple of strings, got {stop!r}")
    if len(stop) > MAX_STOP_STRINGS:
        raise ValueError(f"stop takes at most {MAX_STOP_STRINGS} strings, got {len(stop)}")
    for text in stop:
        if not isinstance(text, str) or not 1 <= len(text) <= MAX_STOP_CHARACTERS:
            raise ValueError(
                f"a stop string must have 1 to {MAX_STOP_CHARACTERS} characters, got {text!r}"
            )


def keep_top_k(logits: FloatArray, k: int) -> FloatArray:
    """Return `logits` with all but the `k` largest set to -inf.

    logits: float32 [V], natural-log scale, without NaN, not changed in place.
    Exactly min(k, V) entries are kept: a tie at the k-th place goes to the lower token id.
    Raises ValueError if k < 1.
    Source: Fan, Lewis and Dauphin 2018 (top-k sampling); GPT-2 used k = 40.
    """
    kept = top_k_ids(logits, k)
    filtered = np.full_like(logits, -np.inf)
    filtered[kept] = logits[kept]
    return filtered


def top_k_ids(logits: FloatArray, k: int) -> IntArray:
    """The ids of the `k` largest logits, ascending: min(k, V) of them, ties to the lower id. Raises
    ValueError if k < 1.

    logits: float32 [V] without NaN.
    """
    if k < 1:
        raise ValueError(f"top_k must be at least 1, got {k}")
    if k >= logits.size:
        return np.arange(logits.size)
    candidates = (logits >= _bound(logits, k)[0]).nonzero()[0]
    return _cut(candidates, logits[candidates], k)


def _bound(logits: FloatArray, k: int) -> tuple[float, float]:
    """A number that k logits or hardly more reach, of more than k; and the largest logit, NaN if
    one is NaN.

    At least k entries reach the k-th largest of the column maxima of a table: the logits in
    32 rows, [V // 32], without the up to 31 entries that are left over.
    """
    width = logits.size // _ROWS
    if logits.size <= _SMALL or k >= width:
        values, rest = logits.copy(), []
    else:
        values = np.maximum.reduce(logits[: width * _ROWS].reshape(_ROWS, width), axis=0)
        rest = logits[width * _ROWS :].tolist()
    values.partition((values.size - k, values.size - 1))
    bound, largest = float(values[-k]), float(values[-1])
    if math.isnan(sum(rest)):  # a NaN, or infinities of both signs
        largest = math.nan
    return bound, max([largest, *rest])  # NaN stays where it comes first


def _cut(ids: IntArray, values: FloatArray, k: int) -> IntArray:
    """The `k` of the ascending `ids` with the largest `values`, ascending, ties to the lower id."""
    if ids.size == k:
        return ids
    threshold = np.partition(values, values.size - k)[values.size - k]
    kept = values > threshold
    ties = (values == threshold).nonzero()[0]
    kept[ties[: k - np.count_nonzero(kept)]] = True
    chosen: IntArray = ids[kept]
    return chosen


def philox(seed: int) -> Iterator[int]:
    """Uniform 64-bit integers of Philox4x64-10 with key (seed, 0) and counter 1, 2, ...: numpy's
    Philox(key=seed).
    """
    mask = (1 << 64) - 1
    counter = 0
    while True:
        counter += 1
        a, b, c, d = counter & mask, (counter >> 64) & mask, 0, 0
        key_0, key_1 = seed & mask, 0
        for _ in range(10):
            low, high = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
            a, b, c, d = (high >> 64) ^ b ^ key_0, high & mask, (low >> 64) ^ d ^ key_1, low & mask
            key_0, key_1 = (key_0 + 0x9E3779B97F4A7C15) & mask, (key_1 + 0xBB67AE8584CAA73B) & mask
        yield from (a, b, c, d)


class Sampler:
    """Chooses token ids from rows of logits; holds the random state of one generation.

    seed: the one in use, drawn from the operating system when the params name none.
    """

    def __init__(self, params: SamplingParams) -> None:
        self.seed = int.from_bytes(os.urandom(8), "little") if params.seed is None else params.seed
        self._top_k = 1 if params.is_greedy else params.top_k or DEFAULT_TOP_K
        self._temperature = (
            DEFAULT_TEMPERATURE if params.temperature is None else float(params.temperature)
        )
        self._random = philox(self.seed)

    def sample(self, logits: FloatArray) -> int:
        """Return a token id whose probability is above 0; greedy takes the largest logit, the lower
        id in a tie.

        logits: float32 [V], natural-log scale, not changed. -inf means probability 0.
        Raises NumericError for NaN or +inf anywhere, or -inf everywhere.
        """
        if self._top_k == 1:
            best = int(logits.argmax())  # the first NaN, if there is one
            if not math.isfinite(logits[best]):
                raise _unsound(logits)
            return best
        is_whole = self._top_k >= logits.size
        bound, largest = (
            (-math.inf, float(logits.max())) if is_whole else _bound(logits, self._top_k)
        )
        if not -math.inf < largest < math.inf:  # NaN is neither
            raise _unsound(logits)
        if is_whole:
            return self._draw(logits)
        ids = (logits >= bound).nonzero()[0]
        if ids.size <= _FEW:
            return self._draw_of_few(ids.tolist(), logits[ids].tolist())
        kept = _cut(ids, logits[ids], self._top_k)
        return int(kept[self._draw(logits[kept])])

    def _draw_of_few(self, ids: list[int], values: list[float]) -> int:
        """One of the ascending `ids`, of which those with the `top_k` largest `values` count, as
        `_draw` would choose.
        """
        if len(ids) > self._top_k:
            # stable: ties to the lower id
            order = sorted(range(len(ids)), key=values.__getitem__, reverse=True)
            kept = sorted(order[: self._top_k])
            ids, values = [ids[place] for place in kept], [values[place] for place in kept]
        largest = max(values)
        cumulative = list(
            accumulate(math.exp((value - largest) / self._temperature) for value in values)
        )
        total = cumulative[-1]
        place = bisect_right(cumulative, self._uniform() * total)
        return ids[place if place < len(ids) else bisect_left(cumulative, total)]

    def _draw(self, logits: FloatArray) -> int:
        """An index, with the probabilities of softmax(logits / temperature), by inverting their
        cumulative sum.
        """
        values = logits.astype(np.float64)
        values -= values.max()
        with np.errstate(
            over="ignore", under="ignore"
        ):  # a tiny temperature sends all but the largest to exp(-inf) = 0
            values /= self._temperature
            np.exp(values, out=values)
        cumulative = values.cumsum()
        total = cumulative[-1]
        place = int(cumulative.searchsorted(self._uniform() * total, side="right"))
        if place == cumulative.size:  # u * total was rounded up to total
            place = int(cumulative.searchsorted(total, side="left"))
        return place

    def _uniform(self) -> float:
        """A float64 in [0, 1) from the top 53 bits of the next random integer."""
        return (next(self._random) >> 11) * 2.0**-53


def _unsound(logits: FloatArray) -> NumericError:
    bad = np.flatnonzero(np.isnan(logits) | (logits == np.inf))
    found = f"{logits[bad[0]]} at token {int(bad[0])}" if bad.size else "-inf for every token"
    return NumericError(
        f"the model's logits hold {found}; finite numbers were wanted, so no token can be chosen",
        hint="the weights are damaged or overflow: run gpt-edge verify on the bundle",
    )
