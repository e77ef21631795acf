"""`train`: train a model from a recipe. Needs the extra `train`."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.options import JsonOption
from gpt_edge.errors import require


def train(
    recipe: Annotated[
        Path | None,
        typer.Argument(metavar="RECIPE", help="Recipe file (TOML)."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.KEY=VALUE",
            help="Override one value of the recipe, such as training.steps=100; repeatable. "
            "Without RECIPE, set every required value.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume from the last checkpoint of this recipe.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model from a recipe.

    Writes the best checkpoint so far, the state for --resume, a file of figures and a plot of the
    losses to the run folder that the recipe names. Export the checkpoint to run it. Under torchrun,
    the processes train one model together. Needs the extra gpt-edge[train].
    """
    if recipe is None and not changes:
        raise ValueError("give a RECIPE, or every required value with --set")
    require("gpt_edge.training.pretrain.run", "train")
    from gpt_edge.training.pretrain.run import train as run

    result = run(recipe, resume=resume, changes=changes or [])
    if os.environ.get("RANK", "0") != "0":  # of several processes, one prints
        return
    if as_json:
        console.say_json({**asdict(result), "checkpoint": str(result.checkpoint)})
        return
    console.say(
        f"{result.checkpoint}: {result.steps:,} steps, {result.tokens:,} tokens, validation loss "
        f"{result.score.loss:.4f} per token, {result.score.bits_per_byte:.4f} bits per byte"
    )
