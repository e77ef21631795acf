"""What makes a resumed run the same run: its recipe, the steps done, its random numbers."""

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

# may change if the steps done would have been the same
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
    """Raise TrainingError, naming the key, unless `recipe` continues the run of `state`."""
    n_done = state.progress["trainer"]["step"]
    for section, values in recipe.fingerprint().items():
        saved = state.recipe[section]
        default = _defaults(section)
        for key in values:
            # a run of an earlier version lacks new keys
            saved_value = saved.get(key, default.get(key))
            is_same = saved_value == values[key]
            if is_same or (key in LENGTH and _is_same_past(recipe, saved, n_done)):
                continue
            raise TrainingError(
                f"{recipe.path}: [{section}] {key} is {values[key]!r}, the run to resume has "
                f"{saved_value!r}",
                hint="restore the value, or start a new run in another [output] folder",
            )


def _is_same_past(recipe: Recipe, saved: dict[str, Any], n_done: int) -> bool:
    """Whether the steps done had the rates and row lengths of this recipe."""
    length = {key: saved.get(key, _defaults("training")[key]) for key in LENGTH}
    before = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, **length))
    return all(
        learning_rate_factor(step, recipe.training) == learning_rate_factor(step, before.training)
        and row_tokens(step, recipe) == row_tokens(step, before)
        for step in range(n_done)
    )


def _defaults(section: str) -> dict[str, Any]:
    """The default values of a section's keys."""
    if section not in SECTIONS:
        return {}
    return {entry.name: entry.default for entry in dataclasses.fields(SECTIONS[section])}


def training_seed(seed: int, rank: int, step: int) -> int:
    """A seed for process `rank` from `step` on; for the first process at step 0 the recipe's."""
    return seed + (rank << 48) + (step << 24)


def random_state(device: torch.device) -> Tensor:
    """uint8 [n]: the state of the CPU's generator, then of the GPU's if `device` is one."""
    parts = [torch.get_rng_state()]
    if device.type == "cuda":
        parts.append(torch.cuda.get_rng_state(device))
    return torch.cat(parts)


def restore_random(random: Tensor, processes: Processes, fresh_seed: int) -> None:
    """Restore the states that `Processes.gather` collected. A run on other devices or with other
    processes starts from `fresh_seed`.
    """
    device, n = processes.device, processes.n
    n_bytes = random_state(device).numel()
    if random.shape != ((n, n_bytes) if n > 1 else (n_bytes,)):
        torch.manual_seed(fresh_seed)
        return
    own = random[processes.rank] if n > 1 else random
    n_cpu = torch.get_rng_state().numel()
    # not a view: torch 2.13 reads from the storage's beginning, and crashes
    torch.set_rng_state(own[:n_cpu].clone())
    if device.type == "cuda":
        torch.cuda.set_rng_state(own[n_cpu:].clone(), device)
