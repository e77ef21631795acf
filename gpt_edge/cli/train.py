"""`train`: a model from a recipe. Needs the extra `train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpt_edge.cli import console
from gpt_edge.errors import require


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe file (TOML).", show_default=False)],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of this recipe.")] = False,
) -> None:
    """Train a model from a recipe.

    The run's folder, named in the recipe, gets the best checkpoint so far, what --resume goes on from, and a file of
    figures. Export the checkpoint to run it.
    """
    require("gpt_edge.training.pretrain", "train")
    from gpt_edge.training.pretrain import train as run

    result = run(recipe, resume=resume)
    console.say(
        f"{result.checkpoint}: {result.steps:,} steps, {result.tokens:,} tokens, validation loss "
        f"{result.score.loss:.4f} per token, {result.score.bits_per_byte:.4f} bits per byte"
    )
