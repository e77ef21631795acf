"""Labels of examples as numbers: classes, scores, and how often each class occurs. A fault is
reported with the file and the line number.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from gpt_edge.data.examples import Example
from gpt_edge.errors import TrainingError
from gpt_edge.tasks import MAX_LABELS, TaskSpec


def class_labels(path: Path, examples: Sequence[Example]) -> tuple[str, ...]:
    """The classes that occur: in numerical order if all are whole numbers, else in alphabetical
    order.

    Raises TrainingError for fewer than two or too many.
    """
    labels = {example.label for example in examples}
    if len(labels) == 1:
        raise TrainingError(
            f"{path}: every example has the label {labels.pop()!r:.80}, expected at least two "
            "classes"
        )
    if len(labels) > MAX_LABELS:
        raise TrainingError(
            f"{path}: {len(labels):,} different labels, expected at most {MAX_LABELS:,}",
            hint="is --label the column of the class?",
        )
    try:
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    except ValueError:
        return tuple(sorted(labels))


def label_numbers(path: Path, examples: Sequence[Example], task: TaskSpec) -> Sequence[float]:
    """The examples' labels as the task has them: scores, or the numbers of classes or answers.
    Raises as `scores` and `class_numbers`.
    """
    if task.score_range is not None:
        return scores(path, examples, task.score_range)
    if task.kind == "multiple-choice":
        return [int(example.label) for example in examples]
    return class_numbers(path, examples, task.labels)


def class_numbers(path: Path, examples: Sequence[Example], labels: Sequence[str]) -> list[int]:
    """The number of each example's class in `labels`. Raises TrainingError, naming the line, for a
    label that is not among them.
    """
    number = {label: i for i, label in enumerate(labels)}
    for example in examples:
        if example.label not in number:
            shown = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
            raise TrainingError(
                f"{path}, line {example.line}: label {example.label!r:.80} does not occur in the "
                "training data",
                hint=f"its labels: {shown}",
            )
    return [number[example.label] for example in examples]


def scores(
    path: Path, examples: Sequence[Example], score_range: tuple[float, float]
) -> list[float]:
    """The examples' scores. Raises TrainingError, naming the line, for one that is not a number in
    the range.
    """
    low, high = score_range
    values = []
    for example in examples:
        try:
            score = float(example.label)
        except ValueError:
            score = math.nan
        if not low <= score <= high:
            raise TrainingError(
                f"{path}, line {example.line}: score {example.label!r:.80}, expected a number from "
                f"{low:g} to {high:g}",
                hint="without --score-range, labels are classes",
            )
        values.append(score)
    return values


def balance(examples: Sequence[Example]) -> dict[str, int]:
    """How often each label occurs, the most frequent first."""
    return dict(Counter(example.label for example in examples).most_common())
