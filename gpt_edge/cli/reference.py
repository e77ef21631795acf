"""docs/cli.md, written from the commands: usage, arguments, options and defaults.

After a change of a command: `python -m gpt_edge.cli.reference >docs/cli.md`. Reads the signatures
of the commands' functions, because the text of --help changes with typer's releases.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

from gpt_edge.cli.app import GROUPS, command_function

INTRODUCTION = """\
# Command line

Written by `python -m gpt_edge.cli.reference` from the commands themselves; do not edit it by hand.

`gpt-edge` alone lists the commands, `gpt-edge COMMAND --help` shows one of them, and
`gpt-edge --version` the version. `gpt-edge --install-completion` sets up completion in bash, zsh
and fish. From a checkout, `python cli.py` is the same program; `python -m gpt_edge` is too.

Results go to standard output, progress, warnings and errors to standard error. An error is one
line, and perhaps a second one with a hint; `GPT_EDGE_DEBUG=1` adds the traceback.

| Exit code | Meaning |
| ---: | --- |
| 0 | done |
| 1 | runtime error: a file, a model or the machine; or a bundle out of tolerance |
| 2 | wrong usage |
| 130 | interrupted with Ctrl-C |
| 141 | the reader of standard output went away |
"""
TYPE_NAMES = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a command's function: an argument or an option."""

    name: str  # the function's
    type: Any  # without None and without list
    is_repeated: bool
    default: Any  # inspect.Parameter.empty for a required one
    info: ArgumentInfo | OptionInfo

    @property
    def is_required(self) -> bool:
        """Whether the command fails without it."""
        return self.default is inspect.Parameter.empty

    @property
    def value(self) -> str:
        """What stands for the value: its metavar, its choices, or its type."""
        if self.info.metavar:
            return str(self.info.metavar)
        if get_origin(self.type) is Literal:
            return "|".join(str(choice) for choice in get_args(self.type))
        return TYPE_NAMES[self.type]

    @property
    def flags(self) -> str:
        """The names of an option and its value: `-n, --new N,...`, `--symmetric/--asymmetric`."""
        # within Annotated, typer takes the first positional argument for a name, not for a default
        names = (self.info.default, *(self.info.param_decls or ()))
        given = [str(name) for name in names if name is not ...]
        flags = ", ".join(given) or "--" + self.name.replace("_", "-")
        return flags if self.type is bool else f"{flags} {self.value}"

    @property
    def meaning(self) -> str:
        """The help, the smallest value, and the default."""
        sentences = [self.info.help or ""]
        if self.info.min is not None:
            sentences.append(f"At least {self.info.min}.")
        if isinstance(self.info, OptionInfo) and self.is_required:
            sentences.append("Required.")
        elif self.type is bool and "/" in self.flags and self.default is not None:
            sentences.append(f"Default: {_code(self.flags.split('/')[0 if self.default else 1])}.")
        elif self.type is not bool and self.default is not None and not self.is_required:
            sentences.append(f"Default: {_code(str(self.default))}.")
        return " ".join(sentences)


def parameters(command: Callable[..., None]) -> list[Parameter]:
    """Return the arguments and options of a command, in order."""
    hints = get_type_hints(command, include_extras=True)
    result = []
    for name, parameter in inspect.signature(command).parameters.items():
        if get_origin(hints[name]) is not Annotated:  # typer's Context
            continue
        annotation, info = get_args(hints[name])
        types = [kind for kind in get_args(annotation) if kind is not NoneType]
        is_optional = get_origin(annotation) in (Union, UnionType)
        kind = types[0] if is_optional else annotation
        is_repeated = get_origin(kind) is list
        kind = get_args(kind)[0] if is_repeated else kind
        result.append(Parameter(name, kind, is_repeated, parameter.default, info))
    return result


def reference() -> str:
    """Return the whole page as Markdown."""
    sections = [INTRODUCTION]
    for heading, names in GROUPS.items():
        sections.append(f"## {heading}\n")
        sections += [_section(name, command_function(name)) for name in names]
    return "\n".join(sections)


def _section(name: str, command: Callable[..., None]) -> str:
    every = parameters(command)
    arguments = [one for one in every if isinstance(one.info, ArgumentInfo)]
    options = [one for one in every if isinstance(one.info, OptionInfo)]
    usage = " ".join(["gpt-edge", name, *map(_usage, arguments), "[OPTIONS]"])
    help_text = _paragraphs(inspect.getdoc(command) or "")
    lines = [f"### {name}", "", "```", usage, "```", "", help_text, ""]
    if arguments:
        rows = [(one.value, one.meaning) for one in arguments]
        lines += [*_table("Argument", rows), ""]
    rows = [(one.flags, one.meaning) for one in options]
    return "\n".join([*lines, *_table("Option", rows), ""])


def _usage(argument: Parameter) -> str:
    value = argument.value if argument.is_required else f"[{argument.value}]"
    return f"{value}..." if argument.is_repeated else value


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _table(heading: str, rows: Iterable[tuple[str, str]]) -> list[str]:
    """Lines of a Markdown table, where | ends a cell even within code."""
    lines = [f"| {heading} | Meaning |", "| --- | --- |"]
    for name, meaning in rows:
        cells = [cell.replace("|", "\\|") for cell in (_code(name), meaning)]
        lines.append(f"| {cells[0]} | {cells[1]} |")
    return lines


def _code(text: str) -> str:
    return f"`{text}`"


if __name__ == "__main__":
    print(reference(), end="")
