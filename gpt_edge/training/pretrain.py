"""`train`: from a recipe file to a checkpoint folder, with resuming, early stopping and a metrics file.

The run folder holds `checkpoint/` (the best weights so far), `state.safetensors` (what --resume goes on from),
`tokenizer.tiktoken` (learned once) and `metrics.jsonl` (one object per evaluation).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gpt_edge.disk import output_error
from gpt_edge.errors import NumericError, TrainingError
from gpt_edge.evaluate import Score
from gpt_edge.files import atomic_write
from gpt_edge.lock import hold_lock
from gpt_edge.reference.checkpoint import load_checkpoint, read_checkpoint_config, save_checkpoint
from gpt_edge.tokenizer.load import build_tokenizer, read_tokenizer_file
from gpt_edge.tokenizer.spec import END_OF_TEXT, TokenizerSource, TokenizerSpec
from gpt_edge.training.corpus import IntArray, encode_documents, read_documents
from gpt_edge.training.progress import Report, show_progress
from gpt_edge.training.recipe import Recipe, read_recipe
from gpt_edge.training.run_state import load_state, save_state
from gpt_edge.training.tokenizer import train_tokenizer
from gpt_edge.training.trainer import Trainer
from gpt_edge.training.validation import score_documents

STATE, TOKENIZER, METRICS, CHECKPOINT = "state.safetensors", "tokenizer.tiktoken", "metrics.jsonl", "checkpoint"


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a run came to. `score` is that of the best checkpoint on the whole validation text, in float32."""

    checkpoint: Path
    steps: int
    tokens: int  # positions trained on, padding included
    score: Score
    is_stopped_early: bool


@dataclass(frozen=True, slots=True)
class Texts:
    """A text's documents as ids, and the bytes that they were."""

    documents: list[IntArray]
    n_bytes: int

    def first(self, n: int, lengths: Sequence[int]) -> Texts:
        """The first `n` documents, all of them if n is 0. lengths: bytes of each."""
        return self if not n else Texts(self.documents[:n], sum(lengths[:n]))


def train(recipe_path: Path, resume: bool = False, progress: bool = True) -> TrainingResult:
    """Train the model of a recipe, or go on with a run that was cut off; show how it goes on stderr.

    Raises TrainingError for a wrong recipe, text, or run folder; NumericError when the loss is no number any more, with
    the last good checkpoint and state kept; OutputError when the folder cannot be written.
    """
    recipe = read_recipe(recipe_path)
    folder = Path(recipe.output.folder)
    _check_folder(folder, resume)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(error, folder) from error
    n_threads = torch.get_num_threads()
    try:
        with hold_lock(folder), show_progress(recipe.training.steps) if progress else nullcontext(None) as report:
            return Run(recipe, folder, report, resume).run()
    finally:  # a trainer sets both for the whole process
        torch.set_num_threads(n_threads)
        torch.set_flush_denormal(False)


def _check_folder(folder: Path, resume: bool) -> None:
    """Raise TrainingError unless `folder` holds a run to go on with, or is free for a new one."""
    has_run = (folder / STATE).exists()
    if resume and not has_run:
        raise TrainingError(f"there is no run to resume in {folder}", hint="start it without --resume")
    if resume:
        return
    try:
        strangers = {path.name for path in folder.iterdir()} - {TOKENIZER}  # a run killed at once leaves that
    except FileNotFoundError:
        return
    except OSError as error:
        raise output_error(error, folder) from error
    if strangers:
        hint = "go on with it: --resume" if has_run else "remove it"
        raise TrainingError(f"{folder} is not empty", hint=f"{hint}, or name another [output] folder")


class Run:
    """One call of `train`: the trainer, the texts, and what happened so far."""

    def __init__(self, recipe: Recipe, folder: Path, report: Report | None, resume: bool) -> None:
        self.recipe, self.folder, self.report = recipe, folder, report
        base = recipe.path.resolve().parent
        train_texts = read_documents(base / recipe.data.train, recipe.data.separator)
        valid_texts = read_documents(base / recipe.data.valid, recipe.data.separator)
        self.tokenizer = self._tokenizer(train_texts)
        encoder = build_tokenizer(self.tokenizer)
        lengths = [len(text.encode()) for text in valid_texts]
        self.valid = Texts(encode_documents(valid_texts, encoder), sum(lengths))
        self.watched = self.valid.first(recipe.evaluation.documents, lengths)
        self.trainer = Trainer(recipe, encode_documents(train_texts, encoder))
        self.best_loss: float | None = None
        self.n_worse, self.seconds = 0, 0.0
        if resume:
            self._restore()
        else:
            self._save_state()  # from now on there is something to resume

    def run(self) -> TrainingResult:
        """The loop."""
        trainer, evaluation = self.trainer, self.recipe.evaluation
        started, losses = time.monotonic() - self.seconds, []
        while trainer.n_steps_done < self.recipe.training.steps and self.n_worse < evaluation.patience:
            losses.append(trainer.step())
            self.seconds = time.monotonic() - started
            if self.report:
                self.report.step(
                    trainer.n_steps_done, losses[-1], trainer.n_steps_done * self.recipe.training.batch_tokens
                )
            if trainer.n_steps_done % evaluation.every_steps == 0 or trainer.n_steps_done == self.recipe.training.steps:
                self._evaluate(sum(losses) / len(losses))
                losses.clear()
        return self._finish()

    def _tokenizer(self, texts: Sequence[str]) -> TokenizerSource:
        """The vocabulary of the run: learned from `texts` once, then read from the run folder."""
        path, size = self.folder / TOKENIZER, self.recipe.tokenizer.vocab_size
        if not path.exists():
            atomic_write(path, train_tokenizer(texts, size))
        spec = TokenizerSpec("gpt2", path.name, size, size - 1, ((END_OF_TEXT, size - 1),), "gpt2")
        return TokenizerSource(spec, read_tokenizer_file(path), str(path))

    def _evaluate(self, train_loss: float) -> None:
        trainer = self.trainer
        score = trainer.evaluate(self.watched.documents, self.watched.n_bytes)
        if not math.isfinite(score.loss):
            raise NumericError(f"step {trainer.n_steps_done}: the validation loss is {score.loss}")
        is_best = self.best_loss is None or score.loss < self.best_loss
        self.n_worse = 0 if is_best else self.n_worse + 1
        if is_best:
            self.best_loss = score.loss
            self._save_checkpoint({"validation_documents": len(self.watched.documents), **_figures(score)})
        record = {
            "step": trainer.n_steps_done,
            "tokens": trainer.n_steps_done * self.recipe.training.batch_tokens,
            "epoch": trainer.batches.epoch,
            "train_loss": train_loss,
            **_figures(score),
            "is_best": is_best,
            "seconds": round(self.seconds, 1),
        }
        _append(self.folder / METRICS, json.dumps(record) + "\n")
        self._save_state()  # last: what it does not know of is done again
        if self.report:
            self.report.evaluation(record)

    def _save_checkpoint(self, figures: dict[str, Any]) -> None:
        trainer = self.trainer
        about = {"step": trainer.n_steps_done, "recipe": self.recipe.fingerprint(), "validation": figures}
        save_checkpoint(self.folder / CHECKPOINT, self.recipe.model, trainer.model.state_dict(), self.tokenizer, about)

    def _save_state(self) -> None:
        counted = {"best_loss": self.best_loss, "n_worse": self.n_worse, "seconds": self.seconds}
        save_state(self.folder / STATE, self.trainer.state(counted))

    def _restore(self) -> None:
        state = load_state(self.folder / STATE)
        self.trainer.restore(state)
        self.best_loss, self.n_worse = state.progress["best_loss"], state.progress["n_worse"]
        self.seconds = state.progress["seconds"]
        _forget_after(self.folder / METRICS, self.trainer.n_steps_done)

    def _finish(self) -> TrainingResult:
        """Score the best checkpoint on the whole validation text in float32, and write the figures into it."""
        path = self.folder / CHECKPOINT
        model, about = load_checkpoint(path), read_checkpoint_config(path)["training"]
        score = score_documents(model, self.valid.documents, self.valid.n_bytes, self.recipe.model.n_ctx, "float32")
        figures = {"validation_documents": len(self.valid.documents), **_figures(score)}
        n_done = self.trainer.n_steps_done
        about |= {"validation": figures, "steps_done": n_done, "seconds": round(self.seconds, 1)}
        save_checkpoint(path, model.config, model.state_dict(), self.tokenizer, about)
        is_early = n_done < self.recipe.training.steps
        return TrainingResult(path, n_done, n_done * self.recipe.training.batch_tokens, score, is_early)


def _figures(score: Score) -> dict[str, Any]:
    return {"validation_loss": score.loss, "bits_per_byte": score.bits_per_byte}


def _append(path: Path, line: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        raise output_error(error, path) from error


def _forget_after(path: Path, step: int) -> None:
    """Drop the records of evaluations that the resumed run will do again, and half a line of a killed writer."""
    kept = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except ValueError:
            continue
    atomic_write(path, "".join(kept).encode())
