"""What a logits processor is, and the arithmetic of temperature and top-k on a row of logits.

A processor is a callable `(history, logits) -> logits`. history: the ids before this row, the
prompt's included. logits: [V], natural-log scale, without NaN or +inf and not all -inf; never
changed in place. -inf removes a token. It keeps nothing between calls, as beams share it. To add
one: a class in `penalties.py`, its field in `SamplingParams`, and one line in
`processors.build_processors`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpt_edge.arrays import IntArray
from gpt_edge.errors import NumericError

LogitsRow = npt.NDArray[Any]  # float32 from the model, float64 after a division
LogitsProcessor = Callable[[Sequence[int], LogitsRow], LogitsRow]

# of the table whose column maxima bound the k-th largest logit; measured best of 8 to 256
_ROWS = 32
_SMALL = 4096  # logits up to which their own k-th largest is the bound


def divide_by_temperature(logits: LogitsRow, temperature: float) -> LogitsRow:
    """Return float64 [V]: (logits - max(logits)) / temperature, so the largest is 0.

    The maximum is subtracted first: a tiny temperature then sends all but the largest to -inf, and
    nothing to +inf or NaN. temperature: above 0.
    """
    scaled = logits.astype(np.float64)
    scaled -= scaled.max()
    with np.errstate(over="ignore", under="ignore"):
        scaled /= temperature
    return scaled


def top_k_ids(logits: LogitsRow, k: int) -> IntArray:
    """The ids of the `k` largest logits, ascending: min(k, V) of them, ties to the lower id.

    logits: [V] without NaN. k: at least 1.
    Source: Fan, Lewis and Dauphin 2018 (top-k sampling); GPT-2 used k = 40.
    """
    if k >= logits.size:
        return np.arange(logits.size)
    candidates = (logits >= top_k_bound(logits, k)[0]).nonzero()[0]
    return cut_to_top_k(candidates, logits[candidates], k)


def top_k_bound(logits: LogitsRow, k: int) -> tuple[float, float]:
    """A number that at least k logits reach, and hardly more; and the largest logit, NaN if one is
    NaN. Wants more than k logits.

    At least k entries reach the k-th largest of the column maxima of a table: the logits in
    32 rows, [V // 32], without the up to 31 entries that are left over.
    """
    width = logits.size // _ROWS
    if logits.size <= _SMALL or k >= width:
        values = logits.copy()
        rest = []
    else:
        values = np.maximum.reduce(logits[: width * _ROWS].reshape(_ROWS, width), axis=0)
        rest = logits[width * _ROWS :].tolist()
    values.partition((values.size - k, values.size - 1))
    bound = float(values[-k])
    largest = float(values[-1])
    if math.isnan(sum(rest)):  # a NaN, or infinities of both signs
        largest = math.nan
    return bound, max([largest, *rest])  # NaN stays where it comes first


def cut_to_top_k(ids: IntArray, values: LogitsRow, k: int) -> IntArray:
    """The `k` of the ascending `ids` with the largest `values`, ascending, ties to the lower id;
    all where there are fewer.
    """
    if ids.size <= k:
        return ids
    threshold = np.partition(values, values.size - k)[values.size - k]
    kept = values > threshold
    ties = (values == threshold).nonzero()[0]
    kept[ties[: k - np.count_nonzero(kept)]] = True
    chosen: IntArray = ids[kept]
    return chosen


def check_sound(logits: LogitsRow, largest: float) -> None:
    """Raise NumericError unless the largest logit, NaN if one is NaN, is a finite number."""
    if not -math.inf < largest < math.inf:  # NaN is neither
        raise unsound(logits)


def check_processed(logits: LogitsRow) -> None:
    """Raise NumericError where processors left no token."""
    if not float(logits.max()) > -math.inf:  # NaN is not
        raise NumericError(
            "-inf for every token is what the logits processors leave, so no token can be chosen",
            hint="loosen logit_bias, bad_words, no_repeat_ngram_size or the constraint",
        )


def unsound(logits: LogitsRow) -> NumericError:
    """The error of a row that `check_sound` refuses."""
    bad = np.flatnonzero(np.isnan(logits) | (logits == np.inf))
    value = f"{logits[bad[0]]} at token {int(bad[0])}" if bad.size else "-inf for every token"
    return NumericError(
        f"the model's logits hold {value}; finite numbers are expected, so no token can be chosen",
        hint="the weights are corrupt or overflow: run gpt-edge verify on the bundle",
    )
