"""Arguments and options that `classify` and `embed` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

BATCHES_AT_ONCE = (
    16  # read before the first is computed: texts of like lengths are found among them
)

TextsPosition = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TEXT|-",
        help="Texts; - or nothing reads standard input, an example a line.",
    ),
]
FileOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Read examples from a file, one a line."),
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
    typer.Option(help="Threads to compute with; by default the machine's cores."),
]
TruncateOption = Annotated[
    Literal["left", "right"] | None,
    typer.Option(
        help="Cut texts that do not fit, at this side, instead of refusing them.",
    ),
]


def chunk_size(batch: int) -> int:
    """Examples to read before the first is computed; 1 for `batch` 1, so that a stream is answered
    line by line.
    """
    return batch * BATCHES_AT_ONCE if batch > 1 else 1
