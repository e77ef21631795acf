"""`classify`: labels and scores of texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.examples import (
    columns_of,
    encode_chunks,
    read_examples,
    source_name,
    tell_skipped,
)
from gpt_edge.cli.support.options import SpecialOption, ThreadsOption, complete_bundle
from gpt_edge.cli.support.stdin import note_special_token
from gpt_edge.cli.support.text_options import (
    BatchOption,
    ColumnOption,
    FileOption,
    JsonlOption,
    SkipOption,
    TextsPosition,
    TruncateOption,
    chunk_size,
)
from gpt_edge.data.tables import SkippedRows
from gpt_edge.tasks import FINETUNED, TOKENS

if TYPE_CHECKING:
    from gpt_edge.arrays import FloatArray
    from gpt_edge.classify.classifier import Classifier, Truncate
    from gpt_edge.classify.prediction import Encoded, Prediction, Predictions
    from gpt_edge.classify.token_labels import TokenLabel
    from gpt_edge.tasks import TaskSpec

NONE = "-"  # in place of a label where none is likely enough
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
    label: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Column of the right label in --file: say how many are right, how sure the model "
            "is, and its calibration error.",
        ),
    ] = None,
    skip_bad_rows: SkipOption = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="PROBABILITY",
            help="Give no label that is less likely; - means none of them.",
        ),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER",
            help="Adapter of a base, as export --base writes it; repeatable, for a line of each.",
        ),
    ] = None,
    truncate: TruncateOption = None,
    special: SpecialOption = False,
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
    answer (from 0), its probability and its text. Of a model with several labels at once, those
    above 0.5. Of a model that labels tokens, one line per token (first and last character, label,
    probability, text), and an empty line after each example. With several adapters, one line of
    each, beginning with its name. JSON lines as input give JSON lines as output. With --label a
    line on standard error, or a last object "summary", says how many are right and how far the
    probabilities are from that.
    """
    # imports onnxruntime: only when this command runs
    from gpt_edge.classify.classifier import Classifier
    from gpt_edge.cli.support.labelled import labelled_examples, say_figures

    first = adapter[0] if adapter else None
    model = Classifier.load(bundle, adapter=first, threads=threads)
    models = [model, *(model.with_adapter(folder) for folder in (adapter or ())[1:])]
    _check_together(models, label)
    columns = columns_of(model.task.kind, text, premise, hypothesis, choice, label)
    skipped = SkippedRows() if skip_bad_rows else None
    labels: Sequence[Any] = ()
    if label is None:
        examples = read_examples(model.task.kind, texts or (), file, as_jsonl, columns, skipped)
    else:
        labelled, labels = labelled_examples(model.task, texts, file, as_jsonl, columns, skipped)
        examples = iter(labelled)
    is_json = as_json or as_jsonl or (file is not None and file.suffix.lower() == ".jsonl")
    size = chunk_size(batch)
    source = source_name(file)
    encode = _encoder(model, truncate, special)

    shares: list[FloatArray] = []
    for chunk in encode_chunks(examples, source, encode, size):
        encoded = [example for _, example in chunk]
        if model.task.kind == TOKENS:
            texts_of_chunk = [text for text, _ in chunk]
            rows_of_tokens = model.tag_encoded(
                texts_of_chunk, encoded, truncate, batch=batch, special=special
            )
            for example, tokens in zip(encoded, rows_of_tokens, strict=True):
                _say_tokens(tokens, example, is_json)
            continue
        answers = [one.predict_encoded(encoded, batch=batch, threshold=threshold) for one in models]
        _say_answers(answers, models, threshold, is_json)
        if label is not None:
            shares += answers[0].probabilities
    if label is not None:
        say_figures(model.task, shares, labels, is_json)
    tell_skipped(skipped, source)


def _encoder(
    model: Classifier, truncate: Truncate | None, special: bool
) -> Callable[[tuple[str, ...]], tuple[str, Encoded]]:
    """From an example's texts to the first of them and the ids of all. Notes the first text that
    spells a special token which the model may have been trained on.
    """
    is_silent = special or model.task.kind in FINETUNED

    def encode(parts: tuple[str, ...]) -> tuple[str, Encoded]:
        nonlocal is_silent
        if not is_silent:
            is_silent = note_special_token(parts[0], model.tokenizer, "a text")
        return parts[0], model.encode(parts, truncate, special=special)

    return encode


def _check_together(models: Sequence[Classifier], label: str | None) -> None:
    """Raise ValueError for adapters that read examples of different kinds, and for the figures of
    several.
    """
    if label is not None and len(models) > 1:
        raise ValueError("--label: figures are of one adapter, give one --adapter")
    kinds = {model.task.kind for model in models}
    if len(kinds) > 1:
        raise ValueError(
            f"--adapter: all must read the same texts, these are for {', '.join(sorted(kinds))}"
        )


def _say_answers(
    answers: Sequence[Predictions],
    models: Sequence[Classifier],
    threshold: float | None,
    is_json: bool,
) -> None:
    """For each example the answer of each model."""
    for rows in zip(*(answer.rows for answer in answers), strict=True):
        for model, row in zip(models, rows, strict=True):
            name = _name(model) if len(models) > 1 else None
            _say(row, model, threshold, is_json, name)


def _name(model: Classifier) -> str:
    adapter = model.encoder.adapter
    return "" if adapter is None else adapter.name


def _say(
    row: Prediction, model: Classifier, threshold: float | None, is_json: bool, name: str | None
) -> None:
    """One answer. name: of the adapter, where there are several."""
    if is_json:
        values = _as_json(row, model.task)
        console.say_json(values if name is None else {"adapter": name, **values})
        return
    line = _as_line(row, model, threshold)
    console.say(line if name is None else f"{name}\t{line}")


def _say_tokens(tokens: Sequence[TokenLabel], example: Encoded, is_json: bool) -> None:
    """One line a token, and an empty line after each text; or one object a text."""
    if is_json:
        counts = {"n_tokens": example.n_tokens, "n_truncated": example.n_truncated}
        rows = [
            {**dataclasses.asdict(token), "probability": round(token.probability, 6)}
            for token in tokens
        ]
        console.say_json({"tokens": rows, **counts})
        return
    for token in tokens:
        place = f"{token.start}\t{token.end}"
        label = console.visible(token.label)
        console.say(f"{place}\t{label}\t{token.probability:.4f}\t{console.visible(token.text)}")
    console.say()


def _as_line(row: Prediction, model: Classifier, threshold: float | None) -> str:
    if row.score is not None:
        return f"{row.score:.4f}"
    task = model.task
    if task.problem == "regression":
        return _pairs(task.labels, row.values.tolist())
    if task.is_multi_label and (len(task.labels) > 1 or task.thresholds or threshold is not None):
        return _given_labels(row, task, threshold)
    number = f"{row.index}\t" if model.task.kind == "multiple-choice" else ""
    label = console.visible(row.label or NONE)
    probability = f"{row.probability:.4f}"
    return f"{number}{probability}\t{label}" if number else f"{label}\t{probability}"


def _given_labels(row: Prediction, task: TaskSpec, threshold: float | None) -> str:
    """Of several labels that may all be true those that are given, the most likely first. Where
    none is: NONE, or of a model without thresholds the most likely label.
    """
    if not row.labels and not task.thresholds and threshold is None:
        return _pairs([row.label or NONE], [row.probability or 0.0])
    if not row.labels:
        return _pairs([NONE], [row.probability or 0.0])
    shares = dict(zip(task.labels, row.probabilities.tolist(), strict=True))
    return _pairs(row.labels, [shares[label] for label in row.labels])


def _pairs(labels: Sequence[str], values: Sequence[float]) -> str:
    pairs = zip(labels, values, strict=True)
    return "\t".join(f"{console.visible(label)}\t{value:.4f}" for label, value in pairs)


def _as_json(row: Prediction, task: TaskSpec) -> dict[str, Any]:
    common = {"n_tokens": row.n_tokens, "n_truncated": row.n_truncated}
    if task.problem == "regression" and row.score is None:
        values = [round(float(value), 6) for value in row.values]
        return {"values": dict(zip(task.labels, values, strict=True)), **common}
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
        **({"labels": list(row.labels)} if task.is_multi_label else {}),
        "probability": probabilities[row.index or 0],
        "probabilities": by_label,
        **common,
    }
