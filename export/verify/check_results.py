"""Is an operator's result what is expected, but for errors whose size is known? Each value, the
scale of all, and the mean of each output.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gpt_edge.arrays import FloatArray

SIGMAS = 8.0  # of the quantization noise of a product's input
MAX_SLOPE = 0.01  # a product that is scaled by more was not only quantized
# of the energy of a product: where quantization makes more noise, a slope means nothing
MAX_NOISE = 0.01
MIN_ROWS = 16  # rows that make a mean
MAX_BIAS = 1e-3  # of the largest value: the error of quantization on average


@dataclass(frozen=True, slots=True)
class OperatorCheck:
    """How far an operator's result is from the reference's: the worst value, as a fraction of what
    is explained.

    noise: root mean square of what quantizing the operator's input explains; 0 where it is float.
    """

    share: float
    fault: str = ""
    noise: float = 0.0


def compare(
    actual: FloatArray, expected: FloatArray, allowed: FloatArray, n_past: int
) -> OperatorCheck:
    """The value of a result [T, N] that is farthest off. n_past: the position of its first row."""
    if actual.shape != expected.shape:
        return OperatorCheck(
            math.inf,
            f"the result is {list(actual.shape)}, the reference's is {list(expected.shape)}",
        )
    difference = np.abs(actual - expected)
    share = np.nan_to_num(difference / allowed, nan=np.inf)
    row, column = (int(index) for index in np.unravel_index(int(share.argmax()), share.shape))
    worst = float(share[row, column])
    if worst <= 1:
        return OperatorCheck(worst)
    size = float(difference[row, column])
    limit = float(allowed[row, column])
    text = f"off by {size:.3g} at position {n_past + row}, where {limit:.2g} is explained"
    return OperatorCheck(
        worst, f"{text}; {int((share > 1).sum()):,} of {share.size:,} values are off"
    )


def check_slope(
    actual: FloatArray, expected: FloatArray, allowed: FloatArray
) -> OperatorCheck | None:
    """A product whose every value is within the quantization noise may still be scaled: regress it
    on what is expected.
    """
    energy = float(np.square(expected).sum())
    noise = float(np.square(allowed / SIGMAS).sum())
    if energy == 0 or noise > MAX_NOISE * energy:
        return None
    slope = float(((actual - expected) * expected).sum()) / energy
    limit = MAX_SLOPE + SIGMAS * math.sqrt(noise / energy / expected.size)
    if abs(slope) <= limit:
        return None
    return OperatorCheck(
        abs(slope) / limit,
        f"scaled by {1 + slope:.4g}, where {limit:.2g} more or less is explained",
    )


def check_shift(
    actual: FloatArray,
    expected: FloatArray,
    allowed: FloatArray,
    alike: Callable[[], FloatArray],
) -> OperatorCheck | None:
    """Quantization is unbiased: the mean over the rows of each output must be nearer than each of
    its values. Where it is not, rows may be alike, as those that attend to the same token: their
    errors are one error, which no mean makes smaller.

    alike: the variance of the mean of each output [N], as a fraction of that of one row.
    """
    if len(actual) < MIN_ROWS:
        return None
    shift = np.abs((actual - expected).mean(0))
    variance = np.square(allowed).mean(0)
    spare = MAX_BIAS * np.abs(expected).max()
    limit = np.sqrt(variance / len(actual)) + spare
    if (shift > limit).any():
        limit = np.sqrt(variance * alike()) + spare
    worst = int((shift / limit).argmax())
    if shift[worst] <= limit[worst]:
        return None
    text = (
        f"output {worst} is shifted by {shift[worst]:.3g} in all rows, where {limit[worst]:.2g} is "
        "explained"
    )
    return OperatorCheck(float(shift[worst] / limit[worst]), text)
