"""The expected calibration error against figures worked out by hand and a slow version."""

from __future__ import annotations

import numpy as np
import pytest

from gpt_edge.evaluate.calibration import calibration_error, expected_calibration_error


def slow(confidences: np.ndarray, is_right: np.ndarray, bins: int) -> float:
    total = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = [c <= high and (c > low or number == 0) for c in confidences]
        if any(inside):
            gap = abs(confidences[inside].mean() - is_right[inside].mean())
            total += sum(inside) / len(confidences) * gap
    return total


def test_the_error_is_the_gap_of_each_bin_weighted_by_its_rows() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.3, 0.7]])
    # sure of 0.9 and right once in two, sure of 0.7 and always right
    assert expected_calibration_error(probabilities, np.array([0, 1, 1, 1]), 10) == pytest.approx(
        0.5 * (0.9 - 0.5) + 0.5 * (1 - 0.7)
    )


def test_a_model_as_right_as_it_is_sure_has_no_error() -> None:
    confidences = np.full(10, 0.8)
    assert calibration_error(confidences, np.arange(10) < 8) == pytest.approx(0, abs=1e-12)
    assert calibration_error(np.ones(3), np.ones(3, bool)) == 0
    assert calibration_error(np.ones(3), np.zeros(3, bool)) == 1


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_bins_are_those_of_the_slow_version(bins: int) -> None:
    rng = np.random.default_rng(bins)
    ends = np.arange(bins + 1) / bins
    confidences = np.concatenate([rng.random(500), ends])
    is_right = rng.random(confidences.size) < confidences
    expected = slow(confidences, is_right, bins)
    assert calibration_error(confidences, is_right, bins) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.ones((2, 2)), np.array([0]), "as many rows"),
        (np.ones((0, 2)), np.array([], int), "at least one"),
        (np.ones((1, 2)), np.array([2]), "labels must be from 0 to 1"),
        (np.ones((1, 2)), np.array([-1]), "labels must be from 0 to 1"),
        (np.full((1, 2), np.nan), np.array([0]), "from 0 to 1"),
        (np.full((1, 2), 1.5), np.array([0]), "from 0 to 1"),
    ],
)
def test_what_is_no_probability_is_refused(
    probabilities: np.ndarray, labels: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(probabilities, labels)


def test_a_confidence_a_little_above_one_is_in_the_last_bin() -> None:
    confidences, is_right = np.array([1 + 5e-7, 0.99]), np.array([False, True])
    assert calibration_error(confidences, is_right) == pytest.approx(0.495, abs=1e-6)


@pytest.mark.parametrize(
    ("confidences", "is_right", "bins", "words"),
    [
        (np.ones(2), np.ones(2, bool), 0, "bins must be at least 1, got 0"),
        (np.ones((2, 2)), np.ones((2, 2), bool), 5, "lists of one length"),
        (np.ones(2), np.ones(3, bool), 5, "lists of one length"),
        (np.ones(0), np.ones(0, bool), 5, "lists of one length"),
        (np.array([0.5, 1 + 1e-5]), np.ones(2, bool), 5, "from 0 to 1"),
        (np.array([-1e-9, 0.5]), np.ones(2, bool), 5, "from 0 to 1"),
        (np.array([np.nan, 0.5]), np.ones(2, bool), 5, "from 0 to 1"),
    ],
)
def test_what_is_no_list_of_confidences_is_refused(
    confidences: np.ndarray, is_right: np.ndarray, bins: int, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        calibration_error(confidences, is_right, bins)


def test_a_label_without_a_column_is_refused() -> None:
    shares = np.full((5, 2), 0.5)
    for labels in ([0, 1, 2, 0, 1], [0, 1, -1, 0, 1]):
        with pytest.raises(ValueError, match="label"):
            expected_calibration_error(shares, np.array(labels), 10)
