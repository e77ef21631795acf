"""`train`: a model from a recipe. Needs the extra `train`."""

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
        typer.Argument(metavar="[RECIPE]", help="Recipe file (TOML)."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.KEY=VALUE",
            help="Put VALUE in place of the recipe's, such as training.steps=100; repeat it for "
            "more. Without RECIPE, "
            "all that is wanted.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint of this recipe.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model from a recipe.

    The run's folder, named in the recipe, gets the best checkpoint so far, what --resume goes on
    from, a file of figures and a picture of the losses. Export the checkpoint to run it. Under
    torchrun the processes train together.
    """
    if recipe is None and not changes:
        raise ValueError("give a RECIPE, or everything that is wanted with --set")
    require("gpt_edge.training.pretrain.run", "train")
    from gpt_edge.training.pretrain.run import train as run

    result = run(recipe, resume=resume, changes=changes or [])
    if os.environ.get("RANK", "0") != "0":  # one of several processes speaks
        return
    if as_json:
        console.say_json({**asdict(result), "checkpoint": str(result.checkpoint)})
        return
    console.say(
        f"{result.checkpoint}: {result.steps:,} steps, {result.tokens:,} tokens, validation loss "
        f"{result.score.loss:.4f} per token, {result.score.bits_per_byte:.4f} bits per byte"
    )
