"""Calibration: how far a model's confidence is from the fraction of its answers that are right.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2 (expected calibration
error with bins of equal width). Knows nothing of models and texts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpt_edge.arrays import BoolArray, DoubleArray, IntArray

N_BINS = 15


def expected_calibration_error(
    probabilities: npt.NDArray[Any], labels: IntArray, bins: int = N_BINS
) -> float:
    """Expected calibration error of the most likely class, from 0 (as often right as it is sure)
    to 1.

    probabilities: [N, K], each row of sum 1; a row with fewer answers is filled up with zeros.
    labels: int [N], the right class of each row. bins: see `calibration_error`. Raises ValueError
    for other shapes, for no row, and for labels outside 0 .. K - 1.
    """
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or labels.size == 0:
        raise ValueError(
            f"probabilities [N, K] and labels [N] must have as many rows, at least one, got "
            f"{list(probabilities.shape)} and {list(labels.shape)}"
        )
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(f"labels must be from 0 to {probabilities.shape[1] - 1}")
    confidences = probabilities.max(1).astype(np.float64)
    return calibration_error(confidences, probabilities.argmax(1) == labels, bins)


def calibration_error(confidences: DoubleArray, is_right: BoolArray, bins: int = N_BINS) -> float:
    """sum over bins of (rows in the bin / N) |mean confidence - fraction right|.

    confidences: float64 [N] from 0 to 1; is_right: bool [N]. bins: of equal width, each without
    its lower and with its upper end, 0 in the first. Few rows in many bins overstate the error:
    a bin of one row is off by its whole confidence. Raises ValueError for no row, arrays of
    different lengths, a confidence outside 0 to 1, and fewer than one bin.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    if confidences.ndim != 1 or confidences.shape != is_right.shape or confidences.size == 0:
        raise ValueError(
            f"confidences and is_right must be lists of one length, at least 1, got "
            f"{list(confidences.shape)} and {list(is_right.shape)}"
        )
    # a softmax in float32 may sum to a little more than 1
    if not (confidences.min() >= 0 and confidences.max() <= 1 + 1e-6):
        raise ValueError("a confidence must be from 0 to 1")
    which = np.clip(np.ceil(confidences * bins).astype(np.int64) - 1, 0, bins - 1)
    surplus = np.bincount(which, confidences - is_right, minlength=bins)
    return float(np.abs(surplus).sum() / confidences.size)
