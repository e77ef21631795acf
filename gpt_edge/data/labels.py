"""Labels of examples as numbers: classes, scores, and how often each class occurs. A fault is
reported with the file and the line number.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from gpt_edge.data.examples import Example
from gpt_edge.errors import TrainingError
from gpt_edge.tasks import EMBEDDING, MAX_LABELS, TaskSpec


def class_labels(path: Path, examples: Sequence[Example], several: bool = False) -> tuple[str, ...]:
    """The classes that occur: in numerical order if all are whole numbers, else in alphabetical
    order. several: examples have any number of labels.

    Raises TrainingError for fewer than two, of several labels for none, or too many.
    """
    labels = {example.label for example in examples}
    if several:
        labels = {label for example in examples for label in example.labels}
    if several and not labels:
        raise TrainingError(
            f"{path}: no example has a label", hint="expected a list, or labels with a separator"
        )
    if len(labels) == 1 and not several:
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


def label_numbers(
    path: Path, examples: Sequence[Example], task: TaskSpec
) -> Sequence[float] | list[list[int]]:
    """The examples' labels as the task has them: scores, the numbers of classes or answers, or of
    each of several labels 1 where it is true and else 0. Raises as `scores` and `class_numbers`.
    """
    if task.is_multi_label:
        return label_sets(path, examples, task.labels)
    if task.score_range is not None:
        return scores(path, examples, task.score_range)
    if task.kind == EMBEDDING:  # a pair belongs together, which is all that there is to know
        return [0] * len(examples)
    if task.kind == "multiple-choice":
        return [int(example.label) for example in examples]
    return class_numbers(path, examples, task.labels)


def class_numbers(path: Path, examples: Sequence[Example], labels: Sequence[str]) -> list[int]:
    """The number of each example's class in `labels`. Raises TrainingError, naming the line, for a
    label that is not among them.
    """
    number = {label: i for i, label in enumerate(labels)}
    for example in examples:
        _check_known(path, example, example.label, number)
    return [number[example.label] for example in examples]


def label_sets(path: Path, examples: Sequence[Example], labels: Sequence[str]) -> list[list[int]]:
    """Of each example 1 for each of `labels` that is true of it, else 0. Raises as
    `class_numbers`.
    """
    known = dict.fromkeys(labels)
    for example in examples:
        for label in example.labels:
            _check_known(path, example, label, known)
    return [[int(label in example.labels) for label in labels] for example in examples]


def _check_known(path: Path, example: Example, label: str, known: Mapping[str, object]) -> None:
    if label in known:
        return
    shown = ", ".join(islice(known, 8)) + (", ..." if len(known) > 8 else "")
    raise TrainingError(
        f"{path}, line {example.line}: label {label!r:.80} does not occur in the training data",
        hint=f"its labels: {shown}",
    )


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
    labels = [label for example in examples for label in example.labels or (example.label,)]
    return dict(Counter(filter(None, labels)).most_common())
