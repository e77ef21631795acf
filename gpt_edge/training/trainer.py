"""The trainer: one optimiser step, one evaluation, one saved state. Knows recipes and tensors, nothing of terminals.

On one thread a run that was killed and resumed gives bit for bit the weights of one that was not: rows, first positions
and dropout depend on the seed, the step and the saved random state alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._dynamo.exc import BackendCompilerFailed
from torch.nn import functional as F

from gpt_edge.errors import NumericError, TrainingError
from gpt_edge.evaluate import Score
from gpt_edge.reference.model import GPT, CausalSelfAttention
from gpt_edge.training.corpus import IGNORED, Batches, IntArray
from gpt_edge.training.optimizer import Optimizer, learning_rate_factor
from gpt_edge.training.recipe import Recipe
from gpt_edge.training.run_state import RunState
from gpt_edge.training.validation import score_documents

LossOf = Callable[[Tensor, Tensor, Tensor], Tensor]
LENGTH = ("steps", "constant_until", "long_rows_from")  # may change while the steps done stay what they were


def row_tokens(step: int, recipe: Recipe) -> int:
    """Length of the rows of `step`, counted from 0."""
    training = recipe.training
    return recipe.model.n_ctx if 0 < training.long_rows_from <= step else training.row_tokens


class Trainer:
    """A model in training. Setting the threads, torch's seed and denormals to zero is for the whole process."""

    def __init__(self, recipe: Recipe, documents: Sequence[IntArray]) -> None:
        training = recipe.training
        if training.threads:
            torch.set_num_threads(training.threads)
        torch.set_flush_denormal(True)  # denormal gradients are fifty times slower
        torch.manual_seed(training.seed)
        self.recipe = recipe
        self.model = GPT(recipe.model, training.dropout)
        for module in self.model.modules():
            if isinstance(module, CausalSelfAttention):
                module.dropout = training.attention_dropout
        self.model.train()
        self.optimizer = Optimizer(self.model, training)
        self.batches = Batches(documents, training.batch_tokens, training.seed)
        self.n_steps_done = 0
        self._loss_of: LossOf = torch.compile(self._loss, dynamic=False) if training.compile else self._loss

    @property
    def row_tokens(self) -> int:
        """Length of the rows of the coming step."""
        return row_tokens(self.n_steps_done, self.recipe)

    def step(self) -> float:
        """Do one optimiser step and return its loss, nats per token.

        Raises NumericError for a loss or gradient that is NaN or infinite; the weights are then those before the step.
        """
        inputs, targets = self.batches.next(self.row_tokens)
        positions = self._positions(inputs.shape[1])
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.training.precision == "bfloat16"):
            try:
                loss = self._loss_of(inputs, targets, positions)
            except BackendCompilerFailed as error:  # most often: no C++ compiler
                first_line = str(error.inner_exception).partition("\n")[0]
                raise TrainingError(
                    f"{self.recipe.path}: [training] compile is true, but torch.compile failed: {first_line}",
                    hint="install g++, or set compile = false",
                ) from error
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.training.clip_norm)
        value = loss.item()
        if not (math.isfinite(value) and math.isfinite(norm.item())):
            raise NumericError(
                f"step {self.n_steps_done + 1}: the loss is {value} and the gradient's norm {norm.item()}",
                hint="the last good checkpoint is kept; lower the learning rate, or clip_norm, and start again",
            )
        self.optimizer.step(self.n_steps_done)
        self.n_steps_done += 1
        return value

    def evaluate(self, documents: Sequence[IntArray], n_bytes: int) -> Score:
        """Score `documents` in windows as long as the rows trained on so far; see validation.py."""
        return score_documents(self.model, documents, n_bytes, self.row_tokens, self.recipe.training.precision)

    def state(self, progress: dict[str, Any]) -> RunState:
        """Everything that `restore` needs. `progress` is the caller's own, plain JSON values."""
        place = {"step": self.n_steps_done, "epoch": self.batches.epoch, "cursor": self.batches.cursor}
        place["row_tokens"] = self.batches.row_tokens
        weights = {name: tensor.detach().clone() for name, tensor in self.model.named_parameters()}
        moments = {name: tensor.clone() for name, tensor in self.optimizer.tensors()}
        counted = {**progress, "trainer": place}
        return RunState(weights, moments, torch.get_rng_state(), counted, self.recipe.fingerprint())

    def restore(self, state: RunState) -> None:
        """Go on where `state` was taken. Raises TrainingError when it is another recipe's."""
        self._check_recipe(state)
        parameters = dict(self.model.named_parameters())
        if set(parameters) != set(state.model):
            raise TrainingError(f"{self.recipe.path}: the state of the run holds other weights than the model has")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(state.model[name])
        self.optimizer.restore(state.optimizer)
        torch.set_rng_state(state.random)
        place = state.progress["trainer"]
        self.n_steps_done = place["step"]
        self.batches.seek(place["epoch"], place["cursor"], place["row_tokens"])

    def _check_recipe(self, state: RunState) -> None:
        n_done = state.progress["trainer"]["step"]
        for section, wanted in self.recipe.fingerprint().items():
            found = state.recipe[section]
            for key in wanted:
                if found.get(key) == wanted[key] or (key in LENGTH and self._is_same_past(found, n_done)):
                    continue
                raise TrainingError(
                    f"{self.recipe.path}: [{section}] {key} is {wanted[key]!r}, the run to resume has {found.get(key)!r}",
                    hint="put the value back, or start a new run in another [output] folder",
                )

    def _is_same_past(self, found: dict[str, Any], n_done: int) -> bool:
        """Whether the steps done so far had the rates and row lengths that this recipe gives them."""
        mine = self.recipe
        theirs = dataclasses.replace(mine, training=dataclasses.replace(mine.training, **{k: found[k] for k in LENGTH}))
        return all(
            learning_rate_factor(step, mine.training) == learning_rate_factor(step, theirs.training)
            and row_tokens(step, mine) == row_tokens(step, theirs)
            for step in range(n_done)
        )

    def _loss(self, inputs: Tensor, targets: Tensor, positions: Tensor) -> Tensor:
        """Mean cross entropy, in float32, of int64 [B, T] inputs and targets at int64 [1, T] positions."""
        hidden, _ = self.model.hidden(inputs, positions)
        logits = self.model.lm_head(hidden)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED)

    def _positions(self, n_tokens: int) -> Tensor:
        """int64 [1, T]. Half of the batches with short rows begin at a random place, so that every position is learned."""
        room = self.recipe.model.n_ctx - n_tokens
        rng = np.random.default_rng((self.recipe.training.seed, 1, self.n_steps_done))
        first = int(rng.integers(0, room + 1)) if room and rng.random() < 0.5 else 0
        return torch.arange(first, first + n_tokens)[None]
