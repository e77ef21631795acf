"""What makes a resumed run the same run: its recipe, its past, its random numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from gpt_edge.errors import TrainingError
from gpt_edge.training.optimizer import learning_rate_factor
from gpt_edge.training.processes import Processes
from gpt_edge.training.recipe import (
    DataSection,
    EvaluationSection,
    Recipe,
    TokenizerSection,
    TrainingSection,
)
from gpt_edge.training.run_state import RunState

# may change while the steps done stay what they were
LENGTH = ("steps", "constant_until", "long_rows_from")
SECTIONS = {
    "data": DataSection,
    "tokenizer": TokenizerSection,
    "training": TrainingSection,
    "evaluation": EvaluationSection,
}


def row_tokens(step: int, recipe: Recipe) -> int:
    """Length of the rows of `step`, counted from 0."""
    training = recipe.training
    return recipe.model.n_ctx if 0 < training.long_rows_from <= step else training.row_tokens


def check_same_run(recipe: Recipe, state: RunState) -> None:
    """Raise TrainingError, naming the key, unless `recipe` goes on with what `state` began."""
    n_done = state.progress["trainer"]["step"]
    for section, wanted in recipe.fingerprint().items():
        found, default = state.recipe[section], _defaults(section)
        for key in wanted:
            # a run of an earlier version lacks what is new
            there = found.get(key, default.get(key))
            if there == wanted[key] or (key in LENGTH and _is_same_past(recipe, found, n_done)):
                continue
            raise TrainingError(
                f"{recipe.path}: [{section}] {key} is {wanted[key]!r}, the run to resume has "
                f"{there!r}",
                hint="put the value back, or start a new run in another [output] folder",
            )


def _is_same_past(mine: Recipe, found: dict[str, Any], n_done: int) -> bool:
    """Whether the steps done so far had the rates and row lengths that this recipe gives them."""
    length = {key: found.get(key, _defaults("training")[key]) for key in LENGTH}
    theirs = dataclasses.replace(mine, training=dataclasses.replace(mine.training, **length))
    return all(
        learning_rate_factor(step, mine.training) == learning_rate_factor(step, theirs.training)
        and row_tokens(step, mine) == row_tokens(step, theirs)
        for step in range(n_done)
    )


def _defaults(section: str) -> dict[str, Any]:
    """What a key of a recipe is where it is not given."""
    if section not in SECTIONS:
        return {}
    return {entry.name: entry.default for entry in dataclasses.fields(SECTIONS[section])}


def training_seed(seed: int, rank: int, step: int) -> int:
    """A seed for process `rank` from `step` on; that of the recipe for the first process at the
    start.
    """
    return seed + (rank << 48) + (step << 24)


def random_state(device: torch.device) -> Tensor:
    """uint8 [n]: the state of the CPU's generator, then of the GPU's where `device` is one."""
    parts = [torch.get_rng_state()]
    if device.type == "cuda":
        parts.append(torch.cuda.get_rng_state(device))
    return torch.cat(parts)


def restore_random(random: Tensor, processes: Processes, fresh_seed: int) -> None:
    """Take back the states that `Processes.gather` collected. `fresh_seed` is for a run of other
    devices or processes.
    """
    device, n = processes.device, processes.n
    n_bytes = random_state(device).numel()
    if random.shape != ((n, n_bytes) if n > 1 else (n_bytes,)):
        torch.manual_seed(fresh_seed)
        return
    mine = random[processes.rank] if n > 1 else random
    n_cpu = torch.get_rng_state().numel()
    # not a view: torch 2.13 reads from the storage's beginning, and crashes
    torch.set_rng_state(mine[:n_cpu].clone())
    if device.type == "cuda":
        torch.cuda.set_rng_state(mine[n_cpu:].clone(), device)
