"""The commands, their names, and the groups of --help. Each command is a file in commands/, named
as the command, and imported when it is asked for: all of them take longer than a short text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gpt_edge.cli.support import console
from gpt_edge.version import __version__

GROUPS: dict[str, tuple[str, ...]] = {
    "Run a model": (
        "generate",
        "chat",
        "classify",
        "embed",
        "serve",
        "web",
        "tokenize",
        "native",
    ),
    "Make a bundle": ("export", "quantize", "calibrate", "sign"),
    "Measure a model": ("verify", "diff", "eval", "inspect", "report", "bench"),
    "Train a model": ("train", "finetune"),
}
COMMANDS = tuple(name for names in GROUPS.values() for name in names)
FUNCTIONS = {"eval": "evaluate"}  # where a function cannot have its command's name


class GroupedCommands(TyperGroup):
    """Lists the commands under the headings of GROUPS, aligned over all of them."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one section for each group. ctx, formatter: click's, which typer may bring."""
        column = max(len(name) for name in self.commands)
        width = formatter.width - column - 6  # indentation and spacing, as click allows for
        for heading, names in GROUPS.items():
            with formatter.section(heading):
                formatter.write_dl(
                    [
                        (name.ljust(column), self.commands[name].get_short_help_str(width))
                        for name in names
                    ]
                )


def command_function(name: str) -> Callable[..., None]:
    """The function of the command `name`, whose signature is the command's parameters."""
    module = import_module(f"gpt_edge.cli.commands.{name}")
    function: Callable[..., None] = getattr(module, FUNCTIONS.get(name, name))
    return function


def app_for(arguments: Sequence[str]) -> typer.Typer:
    """The program as these arguments need it: with the command that they begin with alone, else,
    for --help, completion or a name that is wrong, with all.
    """
    app = typer.Typer(
        name="gpt-edge",
        cls=GroupedCommands,
        epilog='Start with: gpt-edge generate "Once upon a time"',
        add_completion=True,
        # plain help: rich alone would take a third of the time that --help may take
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for name in (arguments[0],) if arguments[0] in COMMANDS else COMMANDS:
        app.command(name)(command_function(name))
    return app


def _show_version(is_requested: bool) -> None:
    if is_requested:
        console.say(f"gpt-edge {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Run, export, quantize and verify small GPTs on your own machine."""
