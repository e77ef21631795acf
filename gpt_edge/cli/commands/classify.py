"""`classify`: labels and scores of texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.examples import columns_of, encode_chunks, read_examples, source_name
from gpt_edge.cli.support.options import ThreadsOption, complete_bundle
from gpt_edge.cli.support.text_options import (
    BatchOption,
    ColumnOption,
    FileOption,
    JsonlOption,
    TextsPosition,
    TruncateOption,
    chunk_size,
)

if TYPE_CHECKING:
    from gpt_edge.classify.classifier import Classifier, Prediction
    from gpt_edge.tasks import TaskSpec

BundlePosition = Annotated[
    str,
    typer.Argument(
        metavar="BUNDLE",
        help="Bundle folder of a fine-tuned model.",
        autocompletion=complete_bundle,
    ),
]


def classify(
    bundle: BundlePosition,
    texts: TextsPosition = None,
    file: FileOption = None,
    as_jsonl: JsonlOption = False,
    text: ColumnOption = None,
    premise: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Key of the premise in JSON objects."),
    ] = None,
    hypothesis: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Key of the hypothesis in JSON objects."),
    ] = None,
    choice: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Key of the list of answers, or of each answer (repeatable)."
        ),
    ] = None,
    truncate: TruncateOption = None,
    batch: BatchOption = 64,
    threads: ThreadsOption = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON object per example, with the probability of every label."
        ),
    ] = False,
) -> None:
    """Label or score texts with a fine-tuned model.

    An example has the texts that the model was fine-tuned on: one text, a premise and a hypothesis,
    two texts, or a question and its answers. On a line, tabs separate them.

    Prints one line per example: the label and its probability; or the score; or the index of the
    answer (from 0), its probability and its text. JSON lines as input give JSON lines as output.
    """
    # imports onnxruntime: only when this command runs
    from gpt_edge.classify.classifier import Classifier

    model = Classifier.load(bundle, threads=threads)
    columns = columns_of(model.task.kind, text, premise, hypothesis, choice)
    examples = read_examples(model.task.kind, texts or (), file, as_jsonl, columns)
    is_json = as_json or as_jsonl or (file is not None and file.suffix.lower() == ".jsonl")
    size = chunk_size(batch)
    source = source_name(file)
    for chunk in encode_chunks(examples, source, lambda parts: model.encode(parts, truncate), size):
        for row in model.predict_encoded(chunk, batch=batch).rows:
            if is_json:
                console.say_json(_as_json(row, model.task))
            else:
                console.say(_as_line(row, model))


def _as_line(row: Prediction, model: Classifier) -> str:
    if row.score is not None:
        return f"{row.score:.4f}"
    number = f"{row.index}\t" if model.task.kind == "multiple-choice" else ""
    label = console.visible(row.label or "")
    probability = f"{row.probability:.4f}"
    return f"{number}{probability}\t{label}" if number else f"{label}\t{probability}"


def _as_json(row: Prediction, task: TaskSpec) -> dict[str, Any]:
    common = {"n_tokens": row.n_tokens, "n_truncated": row.n_truncated}
    if row.score is not None:
        return {"score": round(row.score, 6), **common}
    probabilities = [round(float(probability), 6) for probability in row.probabilities]
    if task.kind == "multiple-choice":
        return {
            "answer": row.index,
            "text": row.label,
            "probability": probabilities[row.index or 0],
            "probabilities": probabilities,
            **common,
        }
    by_label = dict(zip(task.labels, probabilities, strict=True))
    return {
        "label": row.label,
        "probability": probabilities[row.index or 0],
        "probabilities": by_label,
        **common,
    }
