"""The trainer: one optimizer step, one evaluation, one saved state. Knows recipes and tensors,
nothing of terminals.

On one thread a run that was killed and resumed ends with weights bit-identical to those of a run
that was not: rows, first positions and dropout depend only on the seed, the step and the saved
random state. Several processes share the rows of each batch and sum their gradients; without
dropout they compute the same steps as one process, up to the order of sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch._dynamo.exc import BackendCompilerFailed
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from gpt_edge.arrays import IntArray
from gpt_edge.errors import NumericError, TrainingError
from gpt_edge.evaluate import Score
from gpt_edge.reference.model import GPT
from gpt_edge.training.allocator import keep_freed_memory
from gpt_edge.training.corpus.batches import Batches
from gpt_edge.training.corpus.shards import TokenArray
from gpt_edge.training.loss import BatchLoss
from gpt_edge.training.optimizer import Optimizer
from gpt_edge.training.pretrain.resume import (
    check_same_run,
    random_state,
    restore_random,
    row_tokens,
    training_seed,
)
from gpt_edge.training.processes import Processes, gather_to_cpu, sharded_like
from gpt_edge.training.recipe import Recipe
from gpt_edge.training.run_state import NON_FINITE_HINT, RunState
from gpt_edge.training.validation import total_loss


class Trainer:
    """A model in training. It sets the threads, malloc, torch's seed and flushing of denormals for
    the whole process.
    """

    def __init__(
        self,
        recipe: Recipe,
        shards: Sequence[TokenArray],
        processes: Processes | None = None,
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        """shards: streams of ids, see shards.py. start: weights by their names in
        `GPT.state_dict()`, instead of random ones.

        Raises TrainingError when the processes cannot share a batch's rows equally.
        """
        training = recipe.training
        self.recipe = recipe
        self.processes = processes or Processes()
        self._check_rows()
        if training.threads:
            torch.set_num_threads(training.threads)
        keep_freed_memory()
        torch.set_flush_denormal(True)  # denormal gradients are fifty times slower
        torch.manual_seed(training.seed)
        self.model = GPT(recipe.model, training.dropout)
        if start is not None:
            self.model.load_state_dict(start)
        for block in self.model.blocks():
            block.attn.dropout = training.attention_dropout
        self.model.to(self.processes.device).train()
        self._plain = BatchLoss(self.model, training.activation_checkpointing)
        self._loss_of = self._wrapped(self._plain)
        self._parameters: list[Tensor] = list(self.model.parameters())
        self._averages = (
            [parameter.detach().clone() for parameter in self._parameters] if training.ema else []
        )
        self.optimizer = Optimizer(self.model, training)
        rank, n = self.processes.rank, self.processes.n
        self.batches = Batches(
            shards, recipe.model.vocab_size - 1, training.batch_tokens, training.seed, rank, n
        )
        if n > 1:  # the same weights in each process, but other dropout
            torch.manual_seed(training_seed(training.seed, rank, 0))
        self.n_steps_done = 0

    @property
    def row_tokens(self) -> int:
        """Length of the rows of the next step."""
        return row_tokens(self.n_steps_done, self.recipe)

    def step(self) -> float:
        """Do one optimizer step and return its loss, nats per token.

        Raises NumericError for a loss or gradient that is NaN or infinite; the weights are then
        those before the step.
        """
        batch = self.batches.next(self.row_tokens)
        positions = self._positions(batch.inputs.shape[1])
        n_rows = (
            self.recipe.training.micro_batch_tokens or batch.inputs.numel()
        ) // self.row_tokens
        micro_batches = list(
            zip(torch.split(batch.inputs, n_rows), torch.split(batch.targets, n_rows), strict=True)
        )
        own_loss = torch.zeros((), device=self.processes.device)
        for i, (inputs, targets) in enumerate(micro_batches):
            own_loss += self._add_gradient(
                inputs, targets, positions, batch.n_targets, is_last=i + 1 == len(micro_batches)
            )
        value = self.processes.sum([own_loss.item()])[0] / batch.n_targets
        norm = self.optimizer.norm()
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise NumericError(
                f"step {self.n_steps_done + 1}: the loss is {value} and the gradient's norm {norm}",
                hint=NON_FINITE_HINT,
            )
        self.optimizer.step(self.n_steps_done, norm)
        if self._averages:
            decay = min(
                self.recipe.training.ema, (1 + self.n_steps_done) / (10 + self.n_steps_done)
            )
            with torch.no_grad():
                torch._foreach_lerp_(self._averages, self._parameters, 1 - decay)
        self.n_steps_done += 1
        return value

    def evaluate(self, documents: Sequence[IntArray], n_bytes: int) -> Score:
        """Score `documents` in windows as long as the rows trained on so far; see validation.py.
        With EMA its weights are scored.
        """
        processes = self.processes
        precision = self.recipe.training.precision
        # A sharded model computes in all processes together, so each of them scores everything.
        own = documents if self._is_sharded else documents[processes.rank :: processes.n]
        with self.averaged():
            total, n_tokens = processes.sum(
                total_loss(self._plain, own, self.row_tokens, precision)
            )
        loss = total / n_tokens
        n_repeats = processes.n if self._is_sharded else 1
        return Score(
            loss, total / n_repeats / math.log(2) / n_bytes, int(n_tokens) // n_repeats, n_bytes
        )

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Use EMA's weights, if it is on, in the model until the block ends."""
        if not self._averages:
            yield
            return
        with torch.no_grad():
            trained = [parameter.detach().clone() for parameter in self._parameters]
            self._copy_in(self._averages)
            try:
                yield
            finally:
                self._copy_in(trained)

    def _copy_in(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)

    def weights(self) -> dict[str, Tensor]:
        """The weights to save, on the CPU: EMA's, if it is on. All processes must call it."""
        with self.averaged():
            return {
                name: gather_to_cpu(parameter) for name, parameter in self.model.named_parameters()
            }

    def state(self, progress: dict[str, Any]) -> RunState:
        """Everything that `restore` needs. progress: caller-owned plain JSON values. All processes
        must call it.
        """
        position = {
            "step": self.n_steps_done,
            "epoch": self.batches.epoch,
            "cursor": self.batches.cursor,
        }
        position |= {"shard": self.batches.shard, "row_tokens": self.batches.row_tokens}
        names = [name for name, _ in self.model.named_parameters()]
        return RunState(
            {name: gather_to_cpu(parameter) for name, parameter in self.model.named_parameters()},
            {name: gather_to_cpu(moment) for name, moment in self.optimizer.tensors()},
            self.processes.gather(random_state(self.processes.device)),
            {**progress, "trainer": position},
            self.recipe.fingerprint(),
            {
                name: gather_to_cpu(average)
                for name, average in zip(names, self._averages, strict=False)
            },
        )

    def restore(self, state: RunState) -> None:
        """Continue from `state`. Raises TrainingError when it is another recipe's."""
        check_same_run(self.recipe, state)
        parameters = dict(self.model.named_parameters())
        if set(parameters) != set(state.model) or (
            self._averages and set(parameters) != set(state.ema)
        ):
            raise TrainingError(
                f"{self.recipe.path}: the state of the run has other weights than the model"
            )
        with torch.no_grad():
            for i, (name, parameter) in enumerate(parameters.items()):
                parameter.copy_(sharded_like(state.model[name], parameter))
                if self._averages:
                    self._averages[i].copy_(sharded_like(state.ema[name], parameter))
        self.optimizer.restore(state.optimizer)
        position = state.progress["trainer"]
        self.n_steps_done = position["step"]
        fresh = training_seed(self.recipe.training.seed, self.processes.rank, self.n_steps_done)
        restore_random(state.random, self.processes, fresh)
        self.batches.seek(
            position["epoch"],
            position["cursor"],
            position["row_tokens"],
            position.get("shard", 0),
        )

    @property
    def _is_sharded(self) -> bool:
        return isinstance(self._loss_of, FSDPModule)

    def _wrapped(self, loss_of: BatchLoss) -> nn.Module:
        """The loss as called: compiled, if the recipe says so, and distributed to the processes."""
        training = self.recipe.training
        device = self.processes.device
        # Torch draws the dropout: on CPUs inductor's own generator draws number by number, and
        # takes a quarter of a step.
        options: dict[str, Any] | None = {"fallback_random": True} if device.type == "cpu" else None
        if self.processes.n > 1 and training.parallel == "fsdp":
            for block in self.model.blocks():
                if training.compile:
                    block.compile(options=options)
                fully_shard(block)
            fully_shard(loss_of, reshard_after_forward=True)  # the scores come between the steps
            return loss_of
        module: nn.Module = loss_of
        if training.compile:
            # torch declares it as a plain callable
            module = cast(nn.Module, torch.compile(loss_of, dynamic=False, options=options))
        if self.processes.n == 1:
            return module
        ids = [device.index] if device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=ids, gradient_as_bucket_view=True)

    def _add_gradient(
        self, inputs: Tensor, targets: Tensor, positions: Tensor, n_targets: int, is_last: bool
    ) -> Tensor:
        """Add a micro-batch's part of the gradient of the batch's mean loss; return the sum of its
        losses.
        """
        device = self.processes.device
        training = self.recipe.training
        inputs = inputs.to(device, non_blocking=True)
        targets = targets.to(device, non_blocking=True)
        with self._gradient_exchange(is_last):
            try:
                with torch.autocast(
                    device.type, torch.bfloat16, enabled=training.precision == "bfloat16"
                ):
                    loss: Tensor = self._loss_of(inputs, targets, positions)
            except BackendCompilerFailed as error:  # most often: no C++ compiler
                first_line = str(error.inner_exception).partition("\n")[0]
                raise TrainingError(
                    f"{self.recipe.path}: [training] compile is true, but torch.compile failed: "
                    f"{first_line}",
                    hint="install g++, or set compile = false",
                ) from error
            # DDP and FSDP take the mean
            torch.autograd.backward(loss * (self.processes.n / n_targets))
        return loss.detach()

    def _gradient_exchange(self, is_last: bool) -> AbstractContextManager[None]:
        """Exchange gradients once in a step, with its last micro-batch."""
        if isinstance(self._loss_of, FSDPModule):
            self._loss_of.set_requires_gradient_sync(is_last)
        if isinstance(self._loss_of, DistributedDataParallel) and not is_last:
            return self._loss_of.no_sync()
        return nullcontext()

    def _check_rows(self) -> None:
        training, n = self.recipe.training, self.processes.n
        lengths = {
            training.row_tokens,
            self.recipe.model.n_ctx if training.long_rows_from else training.row_tokens,
        }
        for length in lengths:
            if training.batch_tokens // length % n:
                raise TrainingError(
                    f"{self.recipe.path}: [training] batch_tokens is {training.batch_tokens}, "
                    f"{training.batch_tokens // length} rows of {length} tokens: "
                    f"expected a number of rows that {n} processes can share"
                )

    def _positions(self, n_tokens: int) -> Tensor:
        """int64 [1, T]. Half of the batches with short rows begin at a random position, so that
        every position is trained.
        """
        room = self.recipe.model.n_ctx - n_tokens
        rng = np.random.default_rng((self.recipe.training.seed, 1, self.n_steps_done))
        first = int(rng.integers(0, room + 1)) if room and rng.random() < 0.5 else 0
        return torch.arange(first, first + n_tokens, device=self.processes.device)[None]
