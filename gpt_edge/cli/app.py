"""The commands, their names, and the groups of --help. Each command is a file in commands/, named
as the command; heavy packages are imported when a command runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gpt_edge.cli.commands import (
    bench,
    calibrate,
    chat,
    classify,
    diff,
    embed,
    export,
    finetune,
    generate,
    inspect,
    native,
    quantize,
    report,
    serve,
    sign,
    tokenize,
    train,
    verify,
    web,
)
from gpt_edge.cli.commands import eval as eval_
from gpt_edge.cli.support import console
from gpt_edge.version import __version__

GROUPS: dict[str, dict[str, Callable[..., None]]] = {
    "Run a model": {
        "generate": generate.generate,
        "chat": chat.chat,
        "classify": classify.classify,
        "embed": embed.embed,
        "serve": serve.serve,
        "web": web.web,
        "tokenize": tokenize.tokenize,
        "native": native.native,
    },
    "Make a bundle": {
        "export": export.export,
        "quantize": quantize.quantize,
        "calibrate": calibrate.calibrate,
        "sign": sign.sign,
    },
    "Measure a model": {
        "verify": verify.verify,
        "diff": diff.diff,
        "eval": eval_.evaluate,
        "inspect": inspect.inspect,
        "report": report.report,
        "bench": bench.bench,
    },
    "Train a model": {
        "train": train.train,
        "finetune": finetune.finetune,
    },
}


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
for _commands in GROUPS.values():
    for _name, _function in _commands.items():
        app.command(_name)(_function)


def _show_version(is_requested: bool) -> None:
    if is_requested:
        console.say(f"gpt-edge {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Run, export, quantize and verify small GPTs on your own machine."""
