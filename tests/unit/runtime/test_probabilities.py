"""Logits as probabilities: softmax, sigmoid, temperature."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gpt_edge.runtime.probabilities import given_labels, probabilities
from gpt_edge.tasks import TEXT, TaskSpec, new_task

TASK = new_task("classification", 9, ("a", "b", "c"))


def test_a_temperature_divides_the_logits() -> None:
    logits = np.array([[1.0, 2.0, 4.0]], np.float32)
    hot = dataclasses.replace(TASK, temperature=2.0)
    np.testing.assert_allclose(probabilities(hot, logits), probabilities(TASK, logits / 2))
    assert probabilities(hot, logits).argmax() == 2
    assert probabilities(hot, logits).max() < probabilities(TASK, logits).max()


def test_a_missing_answer_has_no_probability() -> None:
    found = probabilities(new_task("multiple-choice", 9), np.array([1.0, 1.0, -np.inf]))
    np.testing.assert_array_equal(found, [0.5, 0.5, 0.0])


@pytest.mark.parametrize("temperature", [None, 0.5])
def test_each_of_several_labels_has_its_sigmoid_even_far_from_zero(
    temperature: float | None,
) -> None:
    task = TaskSpec(TEXT, labels=("a", "b"), problem="multi-label", temperature=temperature)
    logits = np.array([-1e4, 0.3])
    found = probabilities(task, logits)
    wanted = 1 / (1 + np.exp(-0.3 / (temperature or 1)))
    np.testing.assert_allclose(found, [0.0, wanted], rtol=1e-12)


def test_a_label_at_its_threshold_is_given() -> None:
    task = TaskSpec(TEXT, labels=("a", "b"), problem="multi-label")
    shares = np.array([[0.5, 0.4999], [0.75, 0.5]])
    assert given_labels(task, shares).tolist() == [[True, False], [True, True]]
    own = dataclasses.replace(task, thresholds=(0.75, 0.25))
    assert given_labels(own, shares).tolist() == [[False, True], [True, True]]
    assert given_labels(own, shares, 0.0).all()
    assert given_labels(own, shares, 0.75).tolist() == [[False, False], [True, False]]
