"""Temperature scaling: one number, learned from held-out examples, by which logits are divided
before they become probabilities. Labels stay as they are.

Source: Guo et al. 2017, On calibration of modern neural networks, section 4.2. The targets are
Platt's (1999, section 2.2), so that a few examples that are all answered correctly do not make the
model infinitely sure. Knows nothing of texts, models and files.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpt_edge.arrays import DoubleArray, IntArray
from gpt_edge.evaluate.calibration import expected_calibration_error
from gpt_edge.runtime.probabilities import probabilities, softmax
from gpt_edge.tasks import LIKELY, MAX_TEMPERATURE, MIN_TEMPERATURE, TaskSpec

N_HALVINGS = 60  # of the interval of log temperatures: exact to the last digits of a float
N_DIGITS = 6  # of a temperature and of figures that are stored


@dataclass(frozen=True, slots=True)
class CalibrationFigures:
    """How a temperature changes the probabilities of some examples. log_loss: mean of -log of the
    right class's probability, in nats; ece: expected calibration error.
    """

    n_examples: int
    temperature: float
    log_loss_before: float
    log_loss_after: float
    ece_before: float
    ece_after: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, figures with N_DIGITS digits."""
        figures = dataclasses.asdict(self)
        n_examples = figures.pop("n_examples")
        short = {name: float(f"{value:.{N_DIGITS}g}") for name, value in figures.items()}
        return {"n_examples": n_examples, **short}


def calibrated(task: TaskSpec, logits: DoubleArray, labels: IntArray) -> TaskSpec:
    """The task with the temperature that suits its logits best, and of several labels that may all
    be true with a threshold for each.

    logits: float64 [N, K], -inf where an example has fewer answers. labels: int [N], the right
    class of each; of several labels that may all be true [N, K], 0 or 1. Raises ValueError for a
    task without probabilities, and as `fit_temperature`.
    """
    if not task.is_multi_label:
        return dataclasses.replace(task, temperature=fit_temperature(logits, labels))
    temperature = fit_temperature(*as_binary(logits, labels))
    warm = dataclasses.replace(task, temperature=temperature)
    shares = probabilities(warm, logits)
    thresholds = tuple(map(best_threshold, shares.T, labels.T))
    return dataclasses.replace(warm, thresholds=thresholds)


def best_threshold(shares: DoubleArray, is_true: IntArray) -> float:
    """The threshold with the best F1 of one label: in the middle between two probabilities; of
    equal ones the nearest to LIKELY.

    shares: float64 [N], probabilities; is_true: int [N], 0 or 1. LIKELY where the label is never
    true. Source: Lipton, Elkan and Naryanaswamy 2014, Optimal thresholding of classifiers to
    maximize F1 measure: each label has its own.
    """
    n_true = int(is_true.sum())
    if n_true == 0:
        return LIKELY
    order = np.argsort(-shares, kind="stable")
    values = shares[order]
    n_given = np.arange(1, len(values) + 1)
    f1 = 2 * np.cumsum(is_true[order]) / (n_given + n_true)
    middles = (values + np.append(values[1:], 0.0)) / 2
    # between two equal probabilities there is no threshold
    f1[np.append(values[1:] == values[:-1], False)] = -1.0
    best = middles[f1 == f1.max()]
    chosen = float(best[np.argmin(np.abs(best - LIKELY))])
    return min(max(float(f"{chosen:.{N_DIGITS}g}"), 10.0**-N_DIGITS), 1 - 10.0**-N_DIGITS)


def calibration_figures(
    task: TaskSpec, logits: DoubleArray, labels: IntArray
) -> CalibrationFigures:
    """What the task's temperature changes. logits, labels: as for `calibrated`."""
    before, after = (
        _shares(spec, logits, labels)
        for spec in (dataclasses.replace(task, temperature=None), task)
    )
    classes = labels.reshape(-1)
    return CalibrationFigures(
        n_examples=len(labels),
        temperature=task.temperature or 1.0,
        log_loss_before=log_loss(before, classes),
        log_loss_after=log_loss(after, classes),
        ece_before=expected_calibration_error(before, classes),
        ece_after=expected_calibration_error(after, classes),
    )


def _shares(task: TaskSpec, logits: DoubleArray, labels: IntArray) -> DoubleArray:
    shares = probabilities(task, logits)
    if not task.is_multi_label:
        return shares
    each = shares.reshape(-1)
    return np.stack([1 - each, each], axis=1)


def log_loss(shares: DoubleArray, labels: IntArray) -> float:
    """Mean of -log of the right class's probability, in nats. shares: [N, K]; labels: int [N]."""
    of_right = shares[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(of_right, np.finfo(np.float64).tiny)).mean())


def fit_temperature(logits: DoubleArray, labels: IntArray) -> float:
    """The temperature, from MIN_TEMPERATURE to MAX_TEMPERATURE, with the smallest log loss.

    logits: float64 [N, K], -inf where a row has fewer answers; labels: int [N], the right class of
    each row. The loss is convex in 1 / temperature, so halving finds the only minimum. Of logits
    that say nothing any temperature is as good: 1. Raises ValueError for no row, shapes that do not
    belong together, and labels that are no row's class.
    """
    _check(logits, labels)
    targets = _targets(logits, labels)
    finite = np.where(np.isfinite(logits), logits, 0.0)

    def slope(log_temperature: float) -> float:
        """Of the loss over 1 / temperature."""
        shares = softmax(logits / math.exp(log_temperature))
        return float(((shares - targets) * finite).sum())

    if slope(0.0) == 0.0:
        return 1.0
    low, high = math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)
    for _ in range(N_HALVINGS):
        middle = (low + high) / 2
        if slope(middle) > 0:  # a smaller 1 / temperature is better
            low = middle
        else:
            high = middle
    return float(f"{math.exp((low + high) / 2):.{N_DIGITS}g}")


def as_binary(logits: DoubleArray, labels: IntArray) -> tuple[DoubleArray, IntArray]:
    """Several labels, each true or not, as examples of two classes.

    logits: [N, K]; labels: [N, K], 0 or 1. Returns [N * K, 2], where the second is the label's, and
    [N * K].
    """
    values = logits.reshape(-1)
    return np.stack([np.zeros_like(values), values], axis=1), labels.reshape(-1)


def _targets(logits: DoubleArray, labels: IntArray) -> DoubleArray:
    """(N + 1) / (N + 2) for the right class, the rest for the others, in equal parts."""
    n = len(labels)
    exists = np.isfinite(logits)
    n_others = np.maximum(exists.sum(1, keepdims=True) - 1, 1)
    targets: DoubleArray = exists / n_others / (n + 2)
    targets[np.arange(n), labels] = (n + 1) / (n + 2)
    return targets


def _check(logits: DoubleArray, labels: IntArray) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or labels.size == 0:
        raise ValueError(
            f"logits [N, K] and labels [N] must have as many rows, at least one, got "
            f"{list(logits.shape)} and {list(labels.shape)}"
        )
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels must be from 0 to {logits.shape[1] - 1}")
    if not np.isfinite(logits[np.arange(len(labels)), labels]).all():
        raise ValueError("the logit of a right class must be finite")
