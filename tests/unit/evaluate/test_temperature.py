"""The temperature that held-out examples ask for, against a search over all temperatures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gpt_edge.arrays import DoubleArray, IntArray
from gpt_edge.evaluate.temperature import (
    as_binary,
    best_threshold,
    calibrated,
    calibration_figures,
    fit_temperature,
    log_loss,
)
from gpt_edge.runtime.probabilities import softmax
from gpt_edge.tasks import LIKELY, MAX_TEMPERATURE, MIN_TEMPERATURE, TEXT, TaskSpec, new_task


def examples(n: int, n_label: int, sureness: float, seed: int = 1) -> tuple[DoubleArray, IntArray]:
    """Logits whose softmax says how often each class is right, then multiplied by `sureness`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, n_label))
    shares = softmax(logits)
    labels = np.array([rng.choice(n_label, p=row) for row in shares])
    return logits * sureness, labels


def slow_temperature(logits: DoubleArray, labels: IntArray) -> float:
    """The best of many temperatures for the same targets, one by one."""
    n, n_label = logits.shape
    targets = np.full((n, n_label), 1 / (n + 2) / (n_label - 1))
    targets[np.arange(n), labels] = (n + 1) / (n + 2)
    grid = np.geomspace(0.1, 10, 4001)
    losses = [-(targets * np.log(softmax(logits / value))).sum() for value in grid]
    return float(grid[int(np.argmin(losses))])


@pytest.mark.parametrize("sureness", [0.4, 1.0, 3.0])
def test_a_model_that_is_too_sure_by_a_factor_gets_it_as_its_temperature(sureness: float) -> None:
    logits, labels = examples(4000, 3, sureness)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(sureness, rel=0.08)  # 4,000 draws
    assert found == pytest.approx(slow_temperature(logits, labels), rel=2e-3)  # steps of the grid


def test_the_loss_falls_and_labels_stay() -> None:
    logits, labels = examples(500, 5, 4.0)
    task = calibrated(new_task("classification", 9, tuple("abcde")), logits, labels)
    figures = calibration_figures(task, logits, labels)
    assert figures.temperature == task.temperature
    assert figures.log_loss_after < figures.log_loss_before
    assert figures.ece_after < figures.ece_before / 2
    assert figures.log_loss_before == pytest.approx(log_loss(softmax(logits), labels))
    assert figures.to_dict()["n_examples"] == 500


def test_a_few_examples_that_are_all_right_do_not_make_it_infinitely_sure() -> None:
    logits = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    labels = np.array([0, 1, 0])
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(slow_temperature(logits, labels), rel=2e-3)
    # Platt's target of 3 examples is 4/5
    assert 0.6 < softmax(logits / found)[0, 0] < 0.9


def test_missing_answers_count_for_nothing() -> None:
    logits, labels = examples(300, 3, 2.0)
    padded = np.column_stack([logits, np.full(300, -np.inf)])
    assert fit_temperature(padded, labels) == fit_temperature(logits, labels)


def test_extremes_end_at_the_limits() -> None:
    logits = np.array([[5.0, -5.0]] * 4)
    assert fit_temperature(logits, np.array([1, 1, 1, 1])) == MAX_TEMPERATURE
    tiny = logits * 1e-9
    assert fit_temperature(tiny, np.array([0, 0, 0, 0])) == MIN_TEMPERATURE
    assert fit_temperature(np.zeros((3, 2)), np.array([0, 1, 0])) == 1.0


def test_several_labels_are_calibrated_as_examples_of_two_classes() -> None:
    logits, _ = examples(800, 3, 1.0)
    shares = 1 / (1 + np.exp(-logits))
    labels = (np.random.default_rng(2).random(shares.shape) < shares).astype(np.int64)
    task = TaskSpec(TEXT, labels=("a", "b", "c"), problem="multi-label")
    found = calibrated(task, 2.5 * logits, labels)
    assert found.temperature == pytest.approx(2.5, rel=0.1)
    assert found.temperature == fit_temperature(*as_binary(2.5 * logits, labels))
    figures = calibration_figures(found, 2.5 * logits, labels)
    assert (figures.n_examples, figures.ece_after < figures.ece_before) == (800, True)
    expected = np.where(
        labels == 1, 1 / (1 + np.exp(-2.5 * logits)), 1 / (1 + np.exp(2.5 * logits))
    )
    assert figures.log_loss_before == pytest.approx(float(-np.log(expected).mean()))


def slow_f1(shares: DoubleArray, is_true: IntArray, threshold: float) -> float:
    given = shares >= threshold
    both = given.sum() + is_true.sum()
    return 2 * float((given & (is_true == 1)).sum()) / both if both else 0.0


@pytest.mark.parametrize("seed", range(8))
def test_a_threshold_has_the_best_f1_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shares = np.round(rng.random(30), 1 if seed % 2 else 6)  # with ties and without
    is_true = (rng.random(30) < shares**2).astype(np.int64)
    found = best_threshold(shares, is_true)
    grid = np.linspace(0.0005, 0.9995, 1999)
    best = max(slow_f1(shares, is_true, value) for value in grid)
    assert slow_f1(shares, is_true, found) == pytest.approx(best)


def test_a_label_that_is_never_true_has_the_usual_threshold() -> None:
    assert best_threshold(np.array([0.1, 0.9]), np.array([0, 0])) == LIKELY
    assert best_threshold(np.array([0.9, 0.8]), np.array([1, 1])) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((2, 2)), np.array([0]), "as many rows"),
        (np.zeros((0, 2)), np.zeros(0, np.int64), "at least one"),
        (np.zeros((1, 2)), np.array([2]), "from 0 to 1"),
        (np.array([[0.0, -math.inf]]), np.array([1]), "must be finite"),
    ],
)
def test_what_belongs_to_no_examples_is_refused(logits: Any, labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_temperature(logits, labels)
