"""Options that say where the examples of a labelled file are; `finetune` and `calibrate` share
them.
"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

PremiseOption = Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of the premise.")]
HypothesisOption = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Column of the hypothesis.")
]
AnswersOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMN",
        help="Column of the list of answers, or of each answer (repeatable).",
    ),
]
FormatOption = Annotated[
    Literal["csv", "tsv", "jsonl"] | None,
    typer.Option(help="Format of the files; by default from their names."),
]
SkipBadRowsOption = Annotated[
    bool,
    typer.Option(
        "--skip-bad-rows", help="Leave out rows without a text or a label, and count them."
    ),
]
