"""`train`: from a recipe to a checkpoint folder, with resuming, early stopping and figures.

The run folder holds `checkpoint/` (the best weights so far), `state.safetensors` (from which
--resume continues), `tokenizer.tiktoken` and `tokens/` (built from the text once), `metrics.jsonl`
(one object per evaluation) and `loss.png`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gpt_edge.errors import NumericError, TrainingError
from gpt_edge.evaluate import Score
from gpt_edge.reference.checkpoint import load_checkpoint, read_checkpoint_config, save_checkpoint
from gpt_edge.training.optimizer import learning_rate_factor
from gpt_edge.training.pretrain.curves import METRICS, Curves
from gpt_edge.training.pretrain.initial_weights import starting_weights
from gpt_edge.training.pretrain.prepare import is_prepared_file, prepare
from gpt_edge.training.pretrain.trainer import Trainer
from gpt_edge.training.processes import Processes, join_processes
from gpt_edge.training.progress import TrainingProgress, show_training_progress
from gpt_edge.training.recipe import Recipe, read_recipe
from gpt_edge.training.run_folder import CHECKPOINT, STATE, hold_run_folder
from gpt_edge.training.run_state import NON_FINITE_HINT, load_state, save_state
from gpt_edge.training.validation import score_in_torch

__all__ = ["CHECKPOINT", "METRICS", "STATE", "Score", "TrainingResult", "score_in_torch", "train"]


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The result of a run. `score` is that of the best checkpoint on the whole validation text, in
    float32.
    """

    checkpoint: Path
    steps: int
    tokens: int  # positions trained on, padding included
    score: Score
    is_stopped_early: bool


def train(
    recipe_path: Path | None,
    resume: bool = False,
    progress: bool = True,
    changes: Sequence[str] = (),
) -> TrainingResult:
    """Train the model of a recipe, or resume an interrupted run; show the progress on stderr.

    recipe_path and changes: as `read_recipe` takes them. Under torchrun every process calls this;
    the first one writes the folder, which the others must be able to read. Raises TrainingError for
    a wrong recipe, text, or run folder; NumericError when the loss is NaN or infinite, with the
    last good checkpoint and state saved; OutputError when the folder cannot be written;
    MissingDependencyError when TensorBoard is requested and missing.
    """
    recipe = read_recipe(recipe_path, changes)
    folder = Path(recipe.output.folder)
    n_threads = torch.get_num_threads()
    try:
        with join_processes(recipe.training.device) as processes:
            showing = (
                show_training_progress(recipe.training.steps)
                if progress and processes.is_first
                else nullcontext(None)
            )
            with _held(folder, resume, processes), showing as report:
                return TrainingRun(recipe, folder, report, resume, processes).run()
    finally:  # a trainer sets both for the whole process
        torch.set_num_threads(n_threads)
        torch.set_flush_denormal(False)


@contextmanager
def _held(folder: Path, resume: bool, processes: Processes) -> Iterator[None]:
    """Create the run's folder and hold its lock, in the first process."""
    if not processes.is_first:
        yield
        return
    with hold_run_folder(folder, resume, "[output]", is_prepared_file):
        yield


class TrainingRun:
    """One call of `train`: the trainer, the texts, and the progress so far."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        report: TrainingProgress | None,
        resume: bool,
        processes: Processes,
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self.report = report
        self.processes = processes
        reading = report.reading if report else _silent_reading
        self.corpus = processes.first_then_others(lambda: prepare(recipe, folder, reading))
        self.valid = self.corpus.validation_documents()
        self.watched = self.valid[: recipe.evaluation.documents or None]
        self.watched_bytes = self.corpus.n_bytes(self.watched)
        start = None if resume else starting_weights(recipe, self.corpus.tokenizer)
        self.trainer = Trainer(recipe, self.corpus.train, processes, start)
        self.best_loss: float | None = None
        self.n_worse = 0  # evaluations since the best one
        self.seconds = 0.0
        if resume:
            self._restore()
        has_tensorboard = recipe.output.tensorboard and processes.is_first
        self.curves: Curves | None = None
        if processes.is_first:
            self.curves = Curves(folder, self.trainer.n_steps_done, has_tensorboard)
        if not resume:
            self._save_state()  # from now on there is something to resume
        if report:
            self._describe(report)

    def run(self) -> TrainingResult:
        """Train until the last step, or until the loss has not improved for long enough."""
        trainer = self.trainer
        evaluation = self.recipe.evaluation
        n_steps = self.recipe.training.steps
        started = time.monotonic() - self.seconds
        losses: list[float] = []  # since the last evaluation, which took `seconds` of steps
        seconds = 0.0
        while trainer.n_steps_done < n_steps and self.n_worse < evaluation.patience:
            before = time.monotonic()
            losses.append(trainer.step())
            now = time.monotonic()
            self.seconds = now - started
            seconds = seconds + now - before
            if self.report:
                self.report.step(trainer.n_steps_done, losses[-1], self._n_tokens)
            is_last = trainer.n_steps_done == n_steps
            if is_last or trainer.n_steps_done % evaluation.every_steps == 0:
                rate = len(losses) * self.recipe.training.batch_tokens / seconds
                self._evaluate(sum(losses) / len(losses), rate)
                losses.clear()
                seconds = 0.0
        return self._finish()

    @property
    def _n_tokens(self) -> int:
        return self.trainer.n_steps_done * self.recipe.training.batch_tokens

    def _describe(self, report: TrainingProgress) -> None:
        train, valid, n = self.corpus.train, self.corpus.valid, self.processes.n
        report.say(
            f"{self.recipe.model.n_parameters:,} parameters on {self.processes.device}"
            f"{f', {n} processes' if n > 1 else ''}; "
            f"{train.n_documents:,} documents, {train.n_tokens:,} tokens to learn from, "
            f"{valid.n_documents:,} documents, {valid.n_tokens:,} tokens to validate"
        )
        if n_bad := train.n_bad_bytes + valid.n_bad_bytes:
            report.say(f"{n_bad:,} bytes of the text were not UTF-8 and became U+FFFD")
        report.start()

    def _evaluate(self, train_loss: float, tokens_per_second: float) -> None:
        trainer = self.trainer
        training = self.recipe.training
        score = trainer.evaluate(self.watched, self.watched_bytes)
        if not math.isfinite(score.loss):
            raise NumericError(
                f"step {trainer.n_steps_done}: the validation loss is {score.loss}",
                hint=NON_FINITE_HINT,
            )
        is_best = self.best_loss is None or score.loss < self.best_loss
        self.n_worse = 0 if is_best else self.n_worse + 1
        if is_best:
            self.best_loss = score.loss
            self._save_checkpoint({"validation_documents": len(self.watched), **_figures(score)})
        record = {
            "step": trainer.n_steps_done,
            "tokens": self._n_tokens,
            "epoch": trainer.batches.epoch,
            "train_loss": train_loss,
            **_figures(score),
            "learning_rate": training.learning_rate
            * learning_rate_factor(trainer.n_steps_done - 1, training),
            "is_best": is_best,
            "tokens_per_second": round(tokens_per_second, 1),
            "seconds": round(self.seconds, 1),
        }
        if self.curves:
            self.curves.add(record)
        self._save_state()  # last: a run killed before it repeats the steps
        if self.report:
            self.report.evaluation(record)

    def _save_checkpoint(self, figures: dict[str, Any]) -> None:
        weights = self.trainer.weights()
        about = {
            "step": self.trainer.n_steps_done,
            "recipe": self.recipe.fingerprint(),
            "validation": figures,
        }
        if self.processes.is_first:
            save_checkpoint(
                self.folder / CHECKPOINT, self.recipe.model, weights, self.corpus.tokenizer, about
            )

    def _save_state(self) -> None:
        counted = {"best_loss": self.best_loss, "n_worse": self.n_worse, "seconds": self.seconds}
        state = self.trainer.state(counted)
        if self.processes.is_first:
            save_state(self.folder / STATE, state)

    def _restore(self) -> None:
        state = load_state(self.folder / STATE)
        if "trainer" not in state.progress:
            raise TrainingError(
                f"{self.folder} holds a fine-tuning run",
                hint="resume it: gpt-edge finetune --resume",
            )
        self.trainer.restore(state)
        self.best_loss, self.n_worse = state.progress["best_loss"], state.progress["n_worse"]
        self.seconds = state.progress["seconds"]

    def _finish(self) -> TrainingResult:
        """Score the best checkpoint on the whole validation text in float32, write the figures into
        it, and plot the losses.
        """
        score = Score(0.0, 0.0, 0, 0)
        if self.curves:
            score = self._final_score()
            self.curves.close()
            if self.recipe.output.plot:
                self.curves.draw(self.report.say if self.report else lambda line: None)
        self.processes.wait()
        loss, bits, n_tokens, n_bytes = self.processes.sum(
            [score.loss, score.bits_per_byte, score.n_tokens, score.n_bytes]
        )
        n_done = self.trainer.n_steps_done
        return TrainingResult(
            self.folder / CHECKPOINT,
            n_done,
            self._n_tokens,
            Score(loss, bits, int(n_tokens), int(n_bytes)),
            n_done < self.recipe.training.steps,
        )

    def _final_score(self) -> Score:
        path = self.folder / CHECKPOINT
        model = load_checkpoint(path).to(self.processes.device)
        about = read_checkpoint_config(path)["training"]
        score = score_in_torch(
            model, self.valid, self.corpus.valid.n_bytes, self.recipe.model.n_ctx, "float32"
        )
        figures = {"validation_documents": self.corpus.valid.n_documents, **_figures(score)}
        about |= {
            "validation": figures,
            "steps_done": self.trainer.n_steps_done,
            "seconds": round(self.seconds, 1),
        }
        save_checkpoint(path, model.config, model.state_dict(), self.corpus.tokenizer, about)
        return score


def _figures(score: Score) -> dict[str, Any]:
    return {"validation_loss": score.loss, "bits_per_byte": score.bits_per_byte}


@contextmanager
def _silent_reading(name: str) -> Iterator[Callable[[int], None]]:
    yield lambda n_bytes: None
