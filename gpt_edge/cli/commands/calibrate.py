"""`calibrate`: make a classifier's probabilities mean what they say, with labelled examples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpt_edge.cli.commands.classify import BundlePosition
from gpt_edge.cli.support import console
from gpt_edge.cli.support.column_options import (
    AnswersOption,
    FormatOption,
    HypothesisOption,
    PremiseOption,
    SkipBadRowsOption,
)
from gpt_edge.cli.support.examples import columns_of, tell_skipped, with_separator
from gpt_edge.cli.support.options import JsonOption, ThreadsOption
from gpt_edge.cli.support.tables import calibration_line, describe
from gpt_edge.data.tables import SkippedRows


def calibrate(
    bundle: BundlePosition,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Labelled examples that the model did not learn from: TSV or CSV with a header, "
            "or JSON lines.",
        ),
    ],
    test: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Other examples to measure the probabilities on."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write a calibrated copy here; by default BUNDLE itself is replaced.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing bundle at --out.")
    ] = False,
    text: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Column of the text; repeatable, as in finetune."),
    ] = None,
    premise: PremiseOption = None,
    hypothesis: HypothesisOption = None,
    choice: AnswersOption = None,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of the label or right answer.")
    ] = None,
    label_separator: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="Separator between the labels of a multi-label classifier."
        ),
    ] = "|",
    format: FormatOption = None,
    skip_bad_rows: SkipBadRowsOption = False,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Calibrate the probabilities of a classifier.

    Finds the temperature that suits labelled examples best and writes it into the manifest. The
    weights and the labels that classify gives stay the same.
    """
    # imports onnxruntime: only when this command runs
    from gpt_edge.bundle.bundle import Bundle
    from gpt_edge.data.examples import read_examples
    from gpt_edge.data.labels import label_numbers
    from gpt_edge.evaluate.calibrate import calibrate as run
    from gpt_edge.evaluate.calibrate import checked_task, measure_calibration

    if force and out is None:
        raise ValueError("--force is for --out DIR; without it, BUNDLE is replaced anyway")
    task = checked_task(Bundle.open(bundle))
    columns = columns_of(task.kind, text, premise, hypothesis, choice, label)
    if task.is_multi_label:
        columns = with_separator(columns, label_separator)
    sets = []
    for path in (data, test) if test is not None else (data,):
        skipped = SkippedRows() if skip_bad_rows else None
        examples = read_examples(path, columns, format, skipped)
        tell_skipped(skipped, str(path))
        numbers = label_numbers(path, examples, task)
        labels = [example.labels for example in examples] if task.is_multi_label else numbers
        sets.append(([example.texts for example in examples], labels))
    made, figures = run(bundle, *sets[0], out=out, force=force, threads=threads)
    tested = measure_calibration(made, *sets[1], threads=threads) if test is not None else None
    if as_json:
        on_test = {"test": tested.to_dict()} if tested else {}
        console.say_json({**describe(made), "calibration": figures.to_dict(), **on_test})
        return
    console.say(f"{made.path}: {calibration_line(figures)}; {figures.n_examples:,} examples")
    if tested is not None:
        console.say(f"{test}: {calibration_line(tested)}; {tested.n_examples:,} examples")
