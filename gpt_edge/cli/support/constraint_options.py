"""Options that say what the text must be, and the Constraint from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpt_edge.cli.support.stdin import check_unicode

if TYPE_CHECKING:
    from gpt_edge.generate.constraints.constraint import Constraint, ConstraintKind

FORM = "Form of the text (extra constraints)"
MAX_FILE_BYTES = 4 << 20

JsonSchemaOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="JSON that is valid by the schema in this file.",
        rich_help_panel=FORM,
    ),
]
RegexOption = Annotated[
    str | None,
    typer.Option(
        metavar="PATTERN", help="A text that this pattern matches whole.", rich_help_panel=FORM
    ),
]
ChoiceOption = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="One of these texts; repeatable.", rich_help_panel=FORM),
]
GrammarOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A text of the grammar in this file, in llguidance's Lark.",
        rich_help_panel=FORM,
    ),
]


def constraint_of(
    *,
    json_schema: Path | None,
    regex: str | None,
    choice: list[str] | None,
    grammar: Path | None,
) -> Constraint | None:
    """The constraint that the options ask for, checked by llguidance. Raises ValueError naming the
    option, OSError for a file, MissingDependencyError.
    """
    asked: dict[ConstraintKind, Path | str | list[str]] = {}
    if json_schema is not None:
        asked["json_schema"] = json_schema
    if regex is not None:
        asked["regex"] = regex
    if choice:
        asked["choice"] = choice
    if grammar is not None:
        asked["grammar"] = grammar
    if not asked:
        return None
    if len(asked) > 1:
        first, second = (_option(kind) for kind in list(asked)[:2])
        raise ValueError(f"{first} and {second} exclude each other: a text has one form")
    ((kind, value),) = asked.items()
    return _checked(kind, value)


def _checked(kind: ConstraintKind, value: Path | str | list[str]) -> Constraint:
    from gpt_edge.generate.constraints.constraint import Constraint
    from gpt_edge.generate.constraints.grammar import check_constraint

    for text in [value] if isinstance(value, str) else value if isinstance(value, list) else []:
        check_unicode(text, _option(kind))
    content = _read(value, _option(kind)) if isinstance(value, Path) else value
    try:
        constraint = Constraint.from_dict({kind: content})
        check_constraint(constraint)
    except ValueError as error:
        place = f"{value}: " if isinstance(value, Path) else ""
        reason = str(error).removeprefix(f"{kind} ")
        raise ValueError(f"{_option(kind)} {place}{reason}") from error
    return constraint


def _read(path: Path, option: str) -> str:
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"{option} {path} has more than {MAX_FILE_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{option} {path} is not UTF-8: byte {error.start}") from error


def _option(kind: str) -> str:
    return f"--{kind.replace('_', '-')}"
