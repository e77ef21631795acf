"""A task's logits as probabilities, at the temperature that held-out examples asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpt_edge.arrays import BoolArray, DoubleArray
from gpt_edge.tasks import LIKELY, TaskSpec


def probabilities(task: TaskSpec, logits: npt.NDArray[Any]) -> DoubleArray:
    """Probabilities float64 [..., K] from logits [..., K], at the task's temperature.

    A softmax over K classes or answers, where -inf stands for an answer that is not there; of
    several labels that may all be true, a sigmoid of each.
    """
    values = logits.astype(np.float64) / (task.temperature or 1.0)
    if not task.is_multi_label:
        return softmax(values)
    # a softmax over a logit and 0 is its sigmoid, and does not overflow
    return softmax(np.stack([values, np.zeros_like(values)], axis=-1))[..., 0]


def given_labels(task: TaskSpec, shares: DoubleArray, threshold: float | None = None) -> BoolArray:
    """Which of several labels are given, [..., K], by their probabilities: those that reach their
    thresholds.

    threshold: one for all labels in place of the task's own.
    """
    own = np.array(task.thresholds) if task.thresholds else LIKELY
    given: BoolArray = shares >= (own if threshold is None else threshold)
    return given


def softmax(values: DoubleArray) -> DoubleArray:
    """Over the last axis, float64; -inf gives 0."""
    shares = np.exp(values - values.max(-1, keepdims=True))
    result: DoubleArray = shares / shares.sum(-1, keepdims=True)
    return result
