"""The commands and their names. Each is a file in commands/, named as the command; heavy packages
are imported when a command runs.
"""

from __future__ import annotations

from typing import Annotated

import typer

from gpt_edge.cli.commands import (
    bench,
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
    tokenize,
    train,
    verify,
)
from gpt_edge.cli.commands import eval as eval_
from gpt_edge.cli.support import console
from gpt_edge.version import __version__

app = typer.Typer(
    name="gpt-edge",
    help="Run, export, quantise and verify small GPTs where the user is.",
    add_completion=True,
    # plain help: rich alone would take a third of the time that --help may take
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(generate.generate)
app.command()(export.export)
app.command()(quantize.quantize)
app.command()(verify.verify)
app.command()(diff.diff)
app.command()(report.report)
app.command()(inspect.inspect)
app.command("eval")(eval_.evaluate)
app.command()(tokenize.tokenize)
app.command()(bench.bench)
app.command()(native.native)
app.command()(train.train)
app.command()(finetune.finetune)
app.command()(classify.classify)
app.command()(embed.embed)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
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
    """Run, export, quantise and verify small GPTs where the user is."""
