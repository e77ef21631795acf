"""What a classifier reads and says: one example as ids, its prediction, several predictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from gpt_edge.arrays import FloatArray
from gpt_edge.runtime.probabilities import given_labels, probabilities
from gpt_edge.tasks import TaskSpec

NO_VALUES = np.empty(0, np.float32)


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as ids. sequences: see `task_inputs.TaskInput`; answers: those of a question;
    n_truncated: tokens left out.
    """

    sequences: tuple[tuple[int, ...], ...]
    answers: tuple[str, ...] = ()
    n_truncated: int = 0

    @property
    def n_tokens(self) -> int:
        """Of all sequences."""
        return sum(map(len, self.sequences))


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says to one example.

    label: the most likely class, or the text of the answer chosen; None for a score, and where none
    is as likely as `threshold` asks. index: its number, from 0, also then. labels: what is given:
    the label, or of several that may all be true those that reach their thresholds, the most likely
    first.
    probabilities: float32, of the classes in the order of `TaskSpec.labels`, or of the answers;
    empty for a score. They sum to 1, but for a multi-label problem, where each is by itself; they
    are calibrated where the task has a temperature.
    score: of a similarity that is a number, and of a regression with one output. values: float32,
    a regression's outputs in the order of `TaskSpec.labels`; else empty. n_truncated: tokens that
    were cut, because the context is too short.
    """

    label: str | None
    index: int | None
    probabilities: FloatArray
    score: float | None
    n_tokens: int
    n_truncated: int
    values: FloatArray = field(default_factory=lambda: NO_VALUES)
    labels: tuple[str, ...] = ()

    @property
    def probability(self) -> float | None:
        """Of the most likely label, whether it is given or not."""
        return None if self.index is None else float(self.probabilities[self.index])


@dataclass(frozen=True, slots=True)
class Predictions:
    """What the model says to several examples, in their order. `labels, probabilities =
    predictions` takes it apart.
    """

    rows: tuple[Prediction, ...]

    @property
    def labels(self) -> tuple[str | None, ...]:
        """The label of each; None for scores."""
        return tuple(row.label for row in self.rows)

    @property
    def probabilities(self) -> tuple[FloatArray, ...]:
        """Of each, float32 [classes] or [answers]; see Prediction."""
        return tuple(row.probabilities for row in self.rows)

    @property
    def scores(self) -> tuple[float | None, ...]:
        """The score of each; None for labels."""
        return tuple(row.score for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[str | None, ...] | tuple[FloatArray, ...]]:
        return iter((self.labels, self.probabilities))


def prediction_of(
    task: TaskSpec, example: Encoded, logits: FloatArray, threshold: float | None
) -> Prediction:
    """What logits [1, n_label], or of multiple choice [answers, 1], say to an example.

    threshold: as for `Classifier.predict`.
    """
    values = logits.reshape(-1).astype(np.float64)
    counts = (example.n_tokens, example.n_truncated)
    if task.is_score:
        return Prediction(None, None, NO_VALUES, task.score(float(values[0])), *counts)
    if task.problem == "regression":
        score = float(values[0]) if values.size == 1 else None
        return Prediction(None, None, NO_VALUES, score, *counts, values.astype(np.float32))
    index, names = int(values.argmax()), example.answers or task.labels
    shares = probabilities(task, values)
    if task.is_multi_label:
        label: str | None = names[index]
        given = given_labels(task, shares, threshold)
        labels = tuple(names[i] for i in np.argsort(-shares, kind="stable") if given[i])
    else:
        label = None if threshold is not None and shares[index] < threshold else names[index]
        labels = () if label is None else (label,)
    return Prediction(label, index, shares.astype(np.float32), None, *counts, NO_VALUES, labels)
