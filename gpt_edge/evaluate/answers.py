"""How often a classifier's answers to labelled examples are right, and how sure it was of them.
Knows nothing of models and texts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpt_edge.arrays import FloatArray
from gpt_edge.evaluate.calibration import expected_calibration_error
from gpt_edge.tasks import TaskSpec

N_DIGITS = 6  # of figures that are shown as JSON


@dataclass(frozen=True, slots=True)
class AnswerFigures:
    """Figures of `n_examples` examples. accuracy: the fraction of answers that are right;
    mean_confidence: the mean probability of the answers; ece: expected calibration error, see
    `calibration_error`. Of several labels that may all be true, each label of each example is an
    answer: whether it is more likely than not.
    """

    n_examples: int
    accuracy: float
    mean_confidence: float
    ece: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        figures = dataclasses.asdict(self)
        return {
            name: float(f"{value:.{N_DIGITS}g}") if isinstance(value, float) else value
            for name, value in figures.items()
        }


def answer_figures(
    task: TaskSpec, probabilities: Sequence[FloatArray], labels: Sequence[Any]
) -> AnswerFigures:
    """Figures of a task with probabilities.

    probabilities: of each example float [K], of multiple choice as many as it has answers. labels:
    the number of the right class or answer of each; of several labels a list [K] of 0 and 1. Raises
    ValueError as `expected_calibration_error`.
    """
    rows = np.zeros((len(probabilities), max(map(len, probabilities), default=0)))
    for row, shares in zip(rows, probabilities, strict=True):
        row[: len(shares)] = shares
    classes = np.asarray(labels, np.int64)
    if task.is_multi_label:
        each = rows.reshape(-1)
        rows = np.stack([1 - each, each], axis=1)
        classes = classes.reshape(-1)
    ece = expected_calibration_error(rows, classes)
    is_right = rows.argmax(1) == classes
    return AnswerFigures(len(probabilities), float(is_right.mean()), float(rows.max(1).mean()), ece)
