"""The result of a fine-tuning run: figures on dev and test with confidence intervals, and how much
the model forgot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpt_edge.arrays import IntArray
from gpt_edge.evaluate import Score
from gpt_edge.evaluate.classification_metrics import (
    IntervalEstimate,
    choice_metrics,
    class_metrics,
    confusion_matrix,
    found_first,
    micro_f1_of_sets,
    pearson,
    retrieval_metrics,
    score_metrics,
    set_metrics,
)
from gpt_edge.evaluate.temperature import CalibrationFigures, calibration_figures
from gpt_edge.runtime.probabilities import given_labels, probabilities
from gpt_edge.tasks import EMBEDDING, TaskSpec
from gpt_edge.training.finetune.batches import EncodedExamples
from gpt_edge.training.finetune.trainer import TaskPredictions


@dataclass(frozen=True)
class SetFigures:
    """Figures on one set of examples. confusion: int64 [n_label, n_label], of tasks with
    classes. calibration: of a task with probabilities; without a temperature both sides are equal.
    """

    n_examples: int
    loss: float
    metrics: Mapping[str, IntervalEstimate]
    confusion: IntArray | None = None
    calibration: CalibrationFigures | None = None


@dataclass(frozen=True, kw_only=True)
class FinetuneResult:
    """The result of a run. `sets` are the best epoch's figures, in float32; data: see
    `FinetuneInputs.described`.
    """

    checkpoint: Path
    spec: TaskSpec
    epochs: int
    best_epoch: int
    steps: int
    seconds: float  # of training alone
    data: Mapping[str, Any]
    sets: Mapping[str, SetFigures]
    forgetting: tuple[Score, Score] | None  # of the forgetting text, before and after

    def to_dict(self, with_confusion: bool = False) -> dict[str, Any]:
        """Plain JSON values."""
        values: dict[str, Any] = {
            "checkpoint": str(self.checkpoint),
            "task": self.spec.to_dict(),
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
            "steps": self.steps,
            "seconds": round(self.seconds, 1),
            "data": dict(self.data),
        }
        for name, figures in self.sets.items():
            metrics = {metric: estimate.to_dict() for metric, estimate in figures.metrics.items()}
            values[name] = {"n_examples": figures.n_examples, "loss": figures.loss, **metrics}
            if figures.calibration is not None:
                values[name]["calibration"] = figures.calibration.to_dict()
            if with_confusion and figures.confusion is not None:
                values[name]["confusion"] = figures.confusion.tolist()
        if self.forgetting:
            before, after = self.forgetting
            values["forgetting"] = {
                "perplexity_before": math.exp(before.loss),
                "perplexity_after": math.exp(after.loss),
                "bits_per_byte_before": before.bits_per_byte,
                "bits_per_byte_after": after.bits_per_byte,
                "n_tokens": before.n_tokens,
            }
        return values


def set_figures(spec: TaskSpec, data: EncodedExamples, predictions: TaskPredictions) -> SetFigures:
    """Figures of what a model of the task predicts for `data`."""
    n, loss, outputs = len(data), predictions.loss, predictions.outputs
    if spec.kind == EMBEDDING:
        return SetFigures(n, loss, retrieval_metrics(*np.split(outputs, 2, axis=1)))
    if spec.is_score:
        return SetFigures(n, loss, score_metrics(data.labels, outputs))
    if spec.is_multi_label:  # the thresholds may be newer than the predictions
        outputs = given_labels(spec, probabilities(spec, predictions.logits)).astype(np.int64)
    calibration = None
    if spec.has_probabilities:
        calibration = calibration_figures(spec, predictions.logits, data.labels)
    if spec.kind == "multiple-choice":
        metrics = choice_metrics(data.labels, outputs)
        return SetFigures(n, loss, metrics, calibration=calibration)
    if spec.is_multi_label:
        metrics = set_metrics(data.labels, outputs)
        return SetFigures(n, loss, metrics, calibration=calibration)
    metrics = class_metrics(data.labels, outputs, spec.n_label)
    confusion = confusion_matrix(data.labels, outputs, spec.n_label)
    return SetFigures(n, loss, metrics, confusion, calibration)


def primary(
    spec: TaskSpec, gold: npt.NDArray[Any], predicted: npt.NDArray[Any]
) -> tuple[str, float]:
    """The figure that decides which epoch is best: Pearson's correlation of scores, micro F1 of
    several labels, the fraction of pairs that find each other, else accuracy.
    """
    if spec.is_score:
        return "pearson", pearson(gold, predicted)
    if spec.kind == EMBEDDING:
        return "retrieval", float(found_first(*np.split(predicted, 2, axis=1)).mean())
    if spec.is_multi_label:
        return "micro_f1", micro_f1_of_sets(gold, predicted)
    return "accuracy", float((gold == predicted).mean())
