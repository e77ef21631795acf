"""The fine-tuner: one optimizer step, predictions, one saved state. Knows settings and tensors,
nothing of files.

L = L_task + lambda * L_LM (Radford et al. 2018, section 3.2, equations 4 and 5): the mean over the
examples of the cross entropy of the task, and the mean over the sequences of their mean loss per
token. On one thread the weights of a resumed run are bit-identical to those of an uninterrupted
one.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gpt_edge.arrays import DoubleArray, IntArray
from gpt_edge.errors import NumericError
from gpt_edge.reference.heads import (
    TaskModel,
    by_example,
    set_dropout,
)
from gpt_edge.runtime.probabilities import given_labels, probabilities
from gpt_edge.tasks import EMBEDDING, TaskSpec
from gpt_edge.training.finetune.batches import EncodedExamples, MicroBatch
from gpt_edge.training.finetune.lora import add_lora
from gpt_edge.training.finetune.losses import (
    balanced_weights,
    contrastive_loss,
    lm_loss,
    task_logits,
    task_loss,
)
from gpt_edge.training.finetune.settings import FinetuneSettings
from gpt_edge.training.run_state import NON_FINITE_HINT, RunState

DEV_TEMPERATURE = 0.05  # of the loss that is told for pairs; it depends on the batches, too


@dataclass(frozen=True, slots=True)
class TaskPredictions:
    """outputs: classes or answers, int64 [N], of several labels 0 or 1, int64 [N, n_label], or
    scores, float64 [N]; of pairs the logits. loss: mean of the task's, in
    nats. logits: float64 [N, n_label], of multiple choice [N, answers], filled up with -inf,
    of pairs [N, 2 n_label], their vectors.
    """

    outputs: npt.NDArray[Any]
    loss: float
    logits: DoubleArray


def rate_factor(step: int, n_steps: int, warmup: float) -> float:
    """The factor of the peak rate at `step`, from 0: up linearly over the fraction `warmup` of the
    steps, then down to 0.
    """
    # the middle of the step, so that neither the first nor the last one has rate 0
    done = (step + 0.5) / n_steps
    return done / warmup if done < warmup else (1 - done) / (1 - warmup)


class Finetuner:
    """A task model in training."""

    def __init__(self, model: TaskModel, settings: FinetuneSettings, n_steps: int) -> None:
        self.model = model
        self.settings = settings
        self.n_steps = n_steps
        self.n_steps_done = 0
        set_dropout(model.gpt, settings.dropout)
        model.clf_dropout.p = settings.clf_dropout
        if settings.lora_rank is not None:
            alpha = settings.lora_alpha or 2.0 * settings.lora_rank
            add_lora(model, settings.lora_rank, alpha)
        self._optimizer = torch.optim.AdamW(
            self._groups(), lr=settings.learning_rate, betas=(0.9, 0.999), fused=True
        )
        # oneDNN, which multiplies in bfloat16, caches a kernel for every shape that it has seen: 5
        # MB a step.
        self._multiple = 8 if settings.precision == "bfloat16" else 1
        self._class_weights: Tensor | None = None
        model.train()

    def weigh_classes(self, labels: IntArray) -> None:
        """Let rare classes count more in the loss, by how often each occurs in `labels`; see
        `balanced_weights`.
        """
        self._class_weights = balanced_weights(self.model.spec, labels)

    def _groups(self) -> list[dict[str, Any]]:
        """Parameter groups: matrices with weight decay; biases, norms, and embeddings of which only
        some rows are trained, without.
        """
        is_lora = self.settings.lora_rank is not None
        decayed: list[Tensor] = []
        rest: list[Tensor] = []
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                is_table = is_lora and name in ("gpt.wte.weight", "gpt.lm_head.weight")
                (rest if parameter.dim() < 2 or is_table else decayed).append(parameter)
        return [
            {"params": decayed, "weight_decay": self.settings.weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]

    def step(self, data: EncodedExamples, rows: IntArray) -> float:
        """Train on the examples `rows` and return their loss, in nats.

        Raises NumericError for a loss or gradient that is NaN or infinite; the weights are then
        those before the step.
        """
        n_sequences = sum(len(data.sequences[row]) for row in rows)
        value = 0.0
        # the pairs of a batch are compared with one another, so they are computed together
        limit = sys.maxsize if self.model.spec.kind == EMBEDDING else self.settings.batch_tokens
        for part in data.parts(rows, limit, self._multiple):
            with self._autocast():
                task, lm = self._losses(part)
            loss = task / len(rows) + self.settings.lm_weight * lm / n_sequences
            torch.autograd.backward(loss)
            value += loss.item()
        trained = [
            parameter for group in self._optimizer.param_groups for parameter in group["params"]
        ]
        norm = torch.nn.utils.clip_grad_norm_(trained, self.settings.clip_norm).item()
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise NumericError(
                f"step {self.n_steps_done + 1}: the loss is {value} and the gradient's norm {norm}",
                hint=NON_FINITE_HINT,
            )
        factor = rate_factor(self.n_steps_done, self.n_steps, self.settings.warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * factor
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.n_steps_done += 1
        return value

    def _losses(self, part: MicroBatch) -> tuple[Tensor, Tensor]:
        """Sum over the examples of the task's loss, and sum over the sequences of their mean loss
        per token.
        """
        hidden, _ = self.model.gpt.hidden(self._with_noise(part.ids))
        logits = task_logits(self.model, hidden, part)
        if self.model.spec.kind == EMBEDDING:
            task = contrastive_loss(logits, part, self.settings.temperature)
        else:
            task = task_loss(self.model, logits, part, self._class_weights)
        if self.settings.lm_weight == 0:
            return task, torch.zeros(())
        return task, lm_loss(self.model, hidden, part)

    def _with_noise(self, ids: Tensor) -> Tensor:
        """`ids` with a fraction of the texts' tokens replaced by random ones; the targets of the
        language model stay.

        Source: Xie et al. 2017, Data noising as smoothing in neural network language models,
        section 3, here uniform.
        """
        if self.settings.token_noise == 0:
            return ids
        spec = self.model.spec
        # the task's tokens come after those of texts, and are not replaced
        n_text = min(spec.tokens)
        is_replaced = (torch.rand(ids.shape) < self.settings.token_noise) & (ids < n_text)
        return torch.where(is_replaced, torch.randint(n_text, ids.shape), ids)

    @torch.no_grad()
    def predict(self, data: EncodedExamples) -> TaskPredictions:
        """Classes, answers or scores of every example, in the data's order; see `predict`."""
        with self._autocast():
            return predict(self.model, data, self.settings.batch_tokens, self._multiple)

    def state(self, progress: dict[str, Any], recipe: dict[str, Any]) -> RunState:
        """Everything that `restore` needs. progress, recipe: caller-owned plain JSON values."""
        weights = {name: tensor.detach().clone() for name, tensor in self.model.named_parameters()}
        moments = {
            f"{index}.{name}": value.clone()
            for index, values in self._optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }
        return RunState(
            weights,
            moments,
            torch.get_rng_state(),
            {**progress, "steps": self.n_steps_done},
            recipe,
        )

    def restore(self, state: RunState) -> None:
        """Continue from `state`, of a run with the same model and settings."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(state.model[name])
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in state.optimizer.items():
            index, _, name = key.partition(".")
            moments.setdefault(int(index), {})[name] = value
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        torch.set_rng_state(state.random)
        self.n_steps_done = state.progress["steps"]

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.settings.precision == "bfloat16")


@torch.no_grad()
def predict(
    model: TaskModel, data: EncodedExamples, batch_tokens: int, multiple: int = 1
) -> TaskPredictions:
    """Classes, answers or scores of every example, in the data's order. Restores the model's mode.

    batch_tokens, multiple: as in `EncodedExamples.parts`.
    """
    was_training = model.training
    model.eval()
    is_choice = model.spec.kind == "multiple-choice"
    is_pairs = model.spec.kind == EMBEDDING
    n_columns = max(map(len, data.sequences)) if is_choice else model.spec.n_label * (1 + is_pairs)
    scores, loss = np.full((len(data), n_columns), -np.inf), 0.0
    for part in data.parts(range(len(data)), batch_tokens, multiple):
        logits = task_logits(model, model.gpt.hidden(part.ids)[0], part).float()
        if is_pairs:
            loss += contrastive_loss(logits, part, DEV_TEMPERATURE).item()
            logits = logits.reshape(len(part.rows), -1)
        else:
            loss += task_loss(model, logits, part).item()
        by_row = by_example(logits, part.n_sequences) if is_choice else logits
        scores[part.rows, : by_row.shape[1]] = by_row.numpy()
    model.train(was_training)
    return TaskPredictions(_outputs(model.spec, scores), loss / len(data), scores)


def _outputs(spec: TaskSpec, logits: DoubleArray) -> npt.NDArray[Any]:
    if spec.is_score:
        return np.array([spec.score(logit) for logit in logits[:, 0].tolist()])
    if spec.kind == EMBEDDING:
        return logits
    if spec.is_multi_label:
        return given_labels(spec, probabilities(spec, logits)).astype(np.int64)
    classes: IntArray = logits.argmax(1)
    return classes
