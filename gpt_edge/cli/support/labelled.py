"""Labelled examples of `classify`, and what it says of its answers to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt_edge.arrays import FloatArray
from gpt_edge.cli.support import console
from gpt_edge.cli.support.examples import with_separator
from gpt_edge.data.examples import FORMATS, Columns, Example, read_examples
from gpt_edge.data.labels import label_numbers
from gpt_edge.data.tables import SkippedRows
from gpt_edge.evaluate.answers import answer_figures
from gpt_edge.tasks import TaskSpec

SEPARATOR = "|"  # of several labels, as `finetune` has it by default


def labelled_examples(
    task: TaskSpec,
    texts: Sequence[str] | None,
    file: Path | None,
    as_jsonl: bool,
    columns: Columns,
    skipped: SkippedRows | None,
) -> tuple[list[Example], Sequence[Any]]:
    """The examples of a file, and the label of each as `answer_figures` wants it. Raises ValueError
    for a task without probabilities and for examples that are in no table; TrainingError as
    `read_examples` and `label_numbers`.
    """
    if not task.has_probabilities:
        raise ValueError(f"--label is for probabilities, {task.described} has none")
    format = "jsonl" if as_jsonl or file is None else file.suffix.lower().removeprefix(".")
    if texts or file is None or format not in FORMATS:
        raise ValueError("--label is for a table or JSON lines: --file with a .csv, .tsv or .jsonl")
    if task.is_multi_label:
        columns = with_separator(columns, SEPARATOR)
    examples = read_examples(file, columns, format, skipped)
    return examples, label_numbers(file, examples, task)


def say_figures(
    task: TaskSpec, probabilities: Sequence[FloatArray], labels: Sequence[Any], is_json: bool
) -> None:
    """A last JSON object; or a line that is no result, on standard error."""
    figures = answer_figures(task, probabilities, labels)
    if is_json:
        console.say_json({"summary": figures.to_dict()})
        return
    console.note(
        f"{figures.n_examples:,} examples: {figures.accuracy:.1%} right, mean confidence "
        f"{figures.mean_confidence:.1%}, calibration error {figures.ece:.4f}"
    )
