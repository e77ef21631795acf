"""`embed`: embedding vectors of texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.examples import (
    columns_of,
    encode_chunks,
    read_examples,
    source_name,
    tell_skipped,
)
from gpt_edge.cli.support.options import BUNDLE_NAME_HELP, ThreadsOption, complete_bundle
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


def embed(
    bundle: Annotated[
        str,
        typer.Argument(
            metavar="BUNDLE", help=f"{BUNDLE_NAME_HELP}.", autocompletion=complete_bundle
        ),
    ],
    texts: TextsPosition = None,
    file: FileOption = None,
    as_jsonl: JsonlOption = False,
    text: ColumnOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npy",
            help="Write a NumPy array of shape [texts, width] to this file instead of printing "
            "JSON lines.",
        ),
    ] = None,
    pooling: Annotated[
        Literal["mean", "last"],
        typer.Option(
            help="Use the mean of the hidden states of all tokens, or that of the last token."
        ),
    ] = "mean",
    normalize: Annotated[
        bool, typer.Option("--normalize/--no-normalize", help="Scale every vector to unit length.")
    ] = True,
    adapter: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Adapter of a base, as export --base writes it."),
    ] = None,
    skip_bad_rows: SkipOption = False,
    truncate: TruncateOption = None,
    batch: BatchOption = 64,
    threads: ThreadsOption = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="With --out, print one JSON object that describes the file; otherwise the output "
            "is JSON lines already.",
        ),
    ] = False,
) -> None:
    """Convert texts to embedding vectors.

    Prints one line per text, {"embedding": [...]}, or writes one NumPy file. Any bundle will do.
    """
    if out is not None and out.suffix != ".npy":
        raise ValueError(f"--out writes a .npy file, got {out}")
    from gpt_edge.classify.embedder import Embedder, save_vectors

    model = Embedder.load(bundle, adapter=adapter, threads=threads)
    columns = columns_of("embedding", text)
    skipped = SkippedRows() if skip_bad_rows else None
    examples = read_examples("embedding", texts or (), file, as_jsonl, columns, skipped)
    size = chunk_size(batch)
    chunks = encode_chunks(
        examples, source_name(file), lambda parts: model.encode(parts[0], truncate), size
    )
    vectors = (
        model.embed_encoded(chunk, pooling=pooling, normalize=normalize, batch=batch)
        for chunk in chunks
    )
    if out is None:
        for rows in vectors:
            for row in rows:
                console.say(json.dumps({"embedding": [float(f"{value:.8g}") for value in row]}))
        tell_skipped(skipped, source_name(file))
        return
    n_texts = save_vectors(out, vectors, model.size)
    tell_skipped(skipped, source_name(file))
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
