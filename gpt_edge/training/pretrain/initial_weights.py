"""Weights to start from: the checkpoint that `[training] start` names, with the recipe's shape and
vocabulary.
"""

from __future__ import annotations

import dataclasses

from torch import Tensor

from gpt_edge.errors import TrainingError
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.tokenizer.discover import find_tokenizer
from gpt_edge.tokenizer.spec import TokenizerSource
from gpt_edge.training.recipe import Recipe


def starting_weights(recipe: Recipe, tokenizer: TokenizerSource) -> dict[str, Tensor] | None:
    """The weights that a new run starts from, by their names in `GPT.state_dict()`; None: random
    ones.

    tokenizer: the run's. Raises TrainingError, naming the first key that differs, for a checkpoint
    with another shape or vocabulary, CheckpointError for one that cannot be read.
    """
    if not recipe.training.start:
        return None
    path = recipe.path.resolve().parent / recipe.training.start
    checkpoint = open_checkpoint(path)
    for entry in dataclasses.fields(recipe.model):
        actual = getattr(checkpoint.config, entry.name)
        expected = getattr(recipe.model, entry.name)
        if actual != expected:
            section = "tokenizer" if entry.name == "vocab_size" else "model"
            raise TrainingError(
                f"{recipe.path}: [{section}] {entry.name} is {expected!r}, "
                f"in {path} it is {actual!r}",
                hint="a run that starts from a checkpoint has its shape: copy the value",
            )
    stored = find_tokenizer(path if path.is_dir() else path.parent)
    if stored is not None and stored.content != tokenizer.content:
        raise TrainingError(
            f"{recipe.path}: the vocabulary is not that of {path}, so its embeddings would mean "
            "other tokens",
            hint=f'set [tokenizer] file = "{recipe.training.start}"',
        )
    return checkpoint.load_model().state_dict()
