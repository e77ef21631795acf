"""`classify` and `embed`: labels, scores and vectors of texts. Both need the runtime alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.examples import Columns, columns_of, encode_chunks, read_examples
from gpt_edge.cli.support.options import BUNDLE_HELP, complete_bundle

if TYPE_CHECKING:
    from gpt_edge.classify.classifier import Classifier, Prediction
    from gpt_edge.tasks import TaskSpec

# read before the first is computed: texts of like lengths are found among them
BATCHES_AT_ONCE = 16
BundlePosition = Annotated[
    str,
    typer.Argument(
        metavar="BUNDLE",
        help="Bundle folder of a fine-tuned model.",
        autocompletion=complete_bundle,
    ),
]
TextsPosition = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TEXT|-",
        help="Texts; - or nothing reads standard input, an example a line.",
        show_default=False,
    ),
]
FileOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Read examples from a file, one a line.", show_default=False),
]
JsonlOption = Annotated[
    bool,
    typer.Option(
        "--jsonl", help="Lines are JSON: objects with the names below, lists of texts, or texts."
    ),
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--text",
        metavar="NAME",
        help="Name of the text in JSON objects, as in finetune.",
        show_default=False,
    ),
]
BatchOption = Annotated[
    int,
    typer.Option(
        min=1, help="Examples computed at once; 1 answers each line of a stream as it comes."
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        help="Threads to compute with; by default the machine's cores.", show_default=False
    ),
]
TruncateOption = Annotated[
    Literal["left", "right"] | None,
    typer.Option(
        help="Cut texts that do not fit, at this side, instead of refusing them.",
        show_default=False,
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
        typer.Option(
            metavar="NAME", help="Name of the premise in JSON objects.", show_default=False
        ),
    ] = None,
    hypothesis: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Name of the hypothesis in JSON objects.", show_default=False
        ),
    ] = None,
    choice: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Name of the answers' list, or of each answer.", show_default=False
        ),
    ] = None,
    truncate: TruncateOption = None,
    batch: BatchOption = 64,
    threads: ThreadsOption = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print a JSON object for each example, with every probability."
        ),
    ] = False,
) -> None:
    """Label texts with a fine-tuned model.

    TEXT is a text; premise and hypothesis; two texts; or a question and its answers, as the model
    was fine-tuned. In lines they are parted by tabs. Prints a line for each example: the label and
    its probability, the score, or the number of the answer (from 0), its probability and the
    answer. JSON lines in give JSON lines out.
    """
    # loads onnxruntime: only when there is something to do
    from gpt_edge.classify.classifier import Classifier

    model = Classifier.load(bundle, threads=threads)
    columns = columns_of(model.task.kind, text, premise, hypothesis, choice)
    examples = read_examples(model.task.kind, texts or (), file, as_jsonl, columns)
    is_json = as_json or as_jsonl or (file is not None and file.suffix.lower() == ".jsonl")
    size = batch * BATCHES_AT_ONCE if batch > 1 else 1
    for chunk in encode_chunks(examples, lambda parts: model.encode(parts, truncate), size):
        for row in model.predict_encoded(chunk, batch=batch).rows:
            if is_json:
                console.say_json(_as_json(row, model.task))
            else:
                console.say(_as_line(row, model))


def _as_line(row: Prediction, model: Classifier) -> str:
    if row.score is not None:
        return f"{row.score:.4f}"
    number = f"{row.index}\t" if model.task.kind == "multiple-choice" else ""
    label, share = console.visible(row.label or ""), f"{row.probability:.4f}"
    return f"{number}{share}\t{label}" if number else f"{label}\t{share}"


def _as_json(row: Prediction, task: TaskSpec) -> dict[str, Any]:
    common = {"n_tokens": row.n_tokens, "n_cut": row.n_cut}
    if row.score is not None:
        return {"score": round(row.score, 6), **common}
    shares = [round(float(share), 6) for share in row.probabilities]
    if task.kind == "multiple-choice":
        return {
            "answer": row.index,
            "text": row.label,
            "probability": shares[row.index or 0],
            "probabilities": shares,
            **common,
        }
    named = dict(zip(task.labels, shares, strict=True))
    return {
        "label": row.label,
        "probability": shares[row.index or 0],
        "probabilities": named,
        **common,
    }


def embed(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help=BUNDLE_HELP, autocompletion=complete_bundle)
    ],
    texts: TextsPosition = None,
    file: FileOption = None,
    as_jsonl: JsonlOption = False,
    text: ColumnOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npy",
            help="Write a numpy array [texts, width] instead of JSON lines.",
            show_default=False,
        ),
    ] = None,
    pooling: Annotated[
        Literal["mean", "last"],
        typer.Option(help="The mean over the tokens' states, or the last token's."),
    ] = "mean",
    normalize: Annotated[
        bool, typer.Option("--normalize/--no-normalize", help="Scale every vector to length 1.")
    ] = True,
    truncate: TruncateOption = None,
    batch: BatchOption = 64,
    threads: ThreadsOption = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="With --out, print one JSON object about it; else JSON lines come anyway.",
        ),
    ] = False,
) -> None:
    """Turn texts into vectors, with any bundle.

    Prints {"embedding": [...]} for each text, a line each, or writes one numpy file.
    """
    if out is not None and out.suffix != ".npy":
        raise ValueError(f"--out writes a .npy file, got {out}")
    from gpt_edge.classify.embedder import Embedder, save_vectors

    model = Embedder.load(bundle, threads=threads)
    columns = Columns(("text",)) if not text else columns_of("embedding", text)
    examples = read_examples("embedding", texts or (), file, as_jsonl, columns)
    size = batch * BATCHES_AT_ONCE if batch > 1 else 1
    vectors = (
        model.embed_encoded(chunk, pooling=pooling, normalize=normalize, batch=batch)
        for chunk in encode_chunks(examples, lambda parts: model.encode(parts[0], truncate), size)
    )
    if out is None:
        for rows in vectors:
            for row in rows:
                console.say(json.dumps({"embedding": [float(f"{value:.8g}") for value in row]}))
        return
    n_texts = save_vectors(out, vectors, model.size)
    values = {
        "file": str(out),
        "texts": n_texts,
        "width": model.size,
        "pooling": pooling,
        "normalized": normalize,
    }
    if as_json:
        console.say_json(values)
    else:
        console.say(f"{console.visible(str(out))}: {n_texts:,} vectors of {model.size} numbers")
