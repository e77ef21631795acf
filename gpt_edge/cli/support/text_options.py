"""Arguments and options that `classify` and `embed` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

# batches to read before the first is computed, so that texts of similar length share a batch
BATCHES_AT_ONCE = 16

TextsPosition = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TEXT|-",
        help="Texts; - reads standard input, one example per line, as does piped input "
        "without TEXT.",
    ),
]
FileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Read examples from this file: one per line, or a CSV or TSV table with a header.",
    ),
]
JsonlOption = Annotated[
    bool,
    typer.Option(
        "--jsonl",
        help="Read JSON lines: objects with the keys named below, lists of texts, or strings.",
    ),
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--text",
        metavar="NAME",
        help="Column of the text in a table, or its key in JSON objects; repeatable, as in "
        "finetune.",
    ),
]
SkipOption = Annotated[
    bool,
    typer.Option(
        "--skip-bad-rows", help="Leave out rows of a table that have a fault, and count them."
    ),
]
BatchOption = Annotated[
    int,
    typer.Option(min=1, help="Examples per batch; 1 answers each line of a stream immediately."),
]
TruncateOption = Annotated[
    Literal["left", "right"] | None,
    typer.Option(
        help="Truncate texts that exceed the context on this side, instead of failing.",
    ),
]


def chunk_size(batch: int) -> int:
    """Return how many examples to read before the first is computed: 1 for a `batch` of 1, so that
    a stream is answered line by line.
    """
    return batch * BATCHES_AT_ONCE if batch > 1 else 1
