"""`finetune`: from a checkpoint and a file of examples to a checkpoint with a task's head, with
figures.

The run's folder holds `checkpoint/` (the weights of the best epoch), `state.safetensors` (of the
last complete epoch, from which --resume continues), `metrics.jsonl` (one object per epoch),
`results.json`, and `confusion.png` if requested.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from gpt_edge.errors import NumericError, TrainingError, require
from gpt_edge.evaluate.calibrate import CALIBRATION
from gpt_edge.evaluate.temperature import calibrated, calibration_figures
from gpt_edge.reference.checkpoint import (
    load_task_model,
    load_trained_adapter,
    read_checkpoint_config,
    save_checkpoint,
)
from gpt_edge.reference.heads import TaskModel
from gpt_edge.reference.trained_adapter import TrainedAdapter, base_hash
from gpt_edge.system.atomic_files import atomic_write
from gpt_edge.system.disk import sha256_file
from gpt_edge.tasks import TaskSpec
from gpt_edge.training.allocator import keep_freed_memory
from gpt_edge.training.finetune.batches import EncodedExamples, epoch_batches
from gpt_edge.training.finetune.inputs import FinetuneInputs, open_inputs
from gpt_edge.training.finetune.lora import adapter_arrays, merged_tensors
from gpt_edge.training.finetune.progress import FinetuneProgress, show_finetune_progress
from gpt_edge.training.finetune.results import FinetuneResult, primary, set_figures
from gpt_edge.training.finetune.settings import FinetuneData, FinetuneSettings
from gpt_edge.training.finetune.trainer import Finetuner, TaskPredictions, predict
from gpt_edge.training.run_folder import CHECKPOINT, STATE, hold_run_folder
from gpt_edge.training.run_state import NON_FINITE_HINT, load_state, save_state

METRICS, RESULTS, CONFUSION = "metrics.jsonl", "results.json", "confusion.png"


def finetune(
    checkpoint: Path,
    out: Path,
    data: FinetuneData,
    settings: FinetuneSettings,
    *,
    tokenizer: str | None = None,
    config: Path | None = None,
    adapter: str | None = None,
    resume: bool = False,
    plot: bool = False,
    progress: bool = True,
) -> FinetuneResult:
    """Fine-tune the model at `checkpoint`, any that the importers open, on one task; show the
    progress on stderr.

    tokenizer: file, folder or name; None takes the one beside the checkpoint. config, adapter: as
    for `open_checkpoint`. resume: continue
    after the last complete epoch of an interrupted run in `out`. plot: draw the confusion matrix,
    of test, else of dev. Raises CheckpointError, TokenizerError, TrainingError for a wrong source,
    file of examples or run folder; NumericError when the loss is NaN or infinite, with the best
    checkpoint saved; OutputError; before anything is done, ValueError for a plot of a task without
    classes, MissingDependencyError for a plot without matplotlib.
    """
    if plot:
        _check_plot(data, settings)
    n_threads = torch.get_num_threads()
    try:
        if settings.threads:
            torch.set_num_threads(settings.threads)
        keep_freed_memory()
        torch.set_flush_denormal(True)  # denormal gradients are fifty times slower
        torch.manual_seed(settings.seed)
        source = open_inputs(checkpoint, data, settings, tokenizer, config=config, adapter=adapter)
        recipe = _recipe(checkpoint, source, data, settings)
        n_steps = settings.epochs * math.ceil(len(source.train) / settings.batch)
        showing = show_finetune_progress(n_steps) if progress else nullcontext(None)
        with hold_run_folder(out, resume, "--out"), showing as report:
            result = FinetuneRun(source, settings, recipe, out, report, resume).run()
            if plot:
                _plot(result, out / CONFUSION)
            return result
    finally:  # both are settings of the whole process
        torch.set_num_threads(n_threads)
        torch.set_flush_denormal(False)


def _recipe(
    checkpoint: Path, source: FinetuneInputs, data: FinetuneData, settings: FinetuneSettings
) -> dict[str, Any]:
    """What a resumed run must have in common with the interrupted one; and the path of the
    checkpoint, which may differ.
    """
    files = {"train": data.train, "dev": data.dev}
    hashes = {name: sha256_file(path) if path else None for name, path in files.items()}
    hashes["tokenizer"] = hashlib.sha256(source.tokenizer.content).hexdigest()
    hashes["weights"] = _weights_hash(source.model)
    columns = data.columns_for(settings)
    named: dict[str, Any] = {
        "texts": list(columns.texts),
        "choices": list(columns.choices),
        "label": columns.label,
    }
    if not columns.has_label:
        named["label"] = None
    if columns.separator is not None:
        named["separator"] = columns.separator
    same = {
        name: value
        for name, value in settings.to_dict().items()
        if name not in ("threads", "patience")
    }
    reading = {"hold_out": data.hold_out, "columns": named, "format": data.format}
    return {"checkpoint": str(checkpoint), **same, **hashes, **reading}


def _weights_hash(model: TaskModel) -> str:
    """SHA-256 of all weights that a run starts from, with the new ones."""
    digest = hashlib.sha256()
    for tensor in model.parameters():
        digest.update(tensor.detach().contiguous().numpy().data)
    return digest.hexdigest()


def _base_hash(source: FinetuneInputs) -> str:
    """Of the weights that stay as they are, before there is anything beside them."""
    gpt = source.model.gpt
    tensors = gpt.state_dict()
    return base_hash(gpt.config, lambda name: tensors[name].numpy(), source.vocab_size)


def _check_same_run(recipe: dict[str, Any], saved: dict[str, Any], out: Path) -> None:
    """Raise TrainingError, naming the value, unless `recipe` continues the run of `saved`."""
    defaults = {entry.name: entry.default for entry in dataclasses.fields(FinetuneSettings)}
    for name, value in recipe.items():
        # a run of an earlier version lacks new settings
        saved_value = saved.get(name, defaults.get(name, value))
        if saved_value != value and name != "checkpoint":
            raise TrainingError(
                f"{name} is {value!r:.80}, the run to resume in {out} has {saved_value!r:.80}",
                hint="restore the value, or start a new run in another --out folder",
            )


class FinetuneRun:
    """One call of `finetune`: the trainer, the examples, and the progress so far."""

    def __init__(
        self,
        source: FinetuneInputs,
        settings: FinetuneSettings,
        recipe: dict[str, Any],
        out: Path,
        report: FinetuneProgress | None,
        resume: bool,
    ) -> None:
        self.source = source
        self.settings = settings
        self.recipe = recipe
        self.out = out
        self.report = report
        self.batches_per_epoch = math.ceil(len(source.train) / settings.batch)
        self.forgetting_before = source.forgetting(source.model)
        self.base_hash = _base_hash(source) if settings.lora_rank is not None else None
        self.trainer = Finetuner(source.model, settings, settings.epochs * self.batches_per_epoch)
        if settings.class_weights == "balanced":
            self.trainer.weigh_classes(source.train.labels)
        self.epoch = 0
        self.best_epoch = 0
        self.seconds = 0.0
        # the figure that decides, then minus the loss, which decides between equal figures
        self.best: tuple[float, float] | None = None
        if resume:
            self._restore()
        else:
            self._save_state()  # from now on there is something to resume

    def run(self) -> FinetuneResult:
        """Train until the last epoch, or until dev has not improved for long enough."""
        patience = self.settings.patience or self.settings.epochs
        while self.epoch < self.settings.epochs and self.epoch - self.best_epoch < patience:
            started = time.monotonic()
            losses = [
                self._step(self.source.train, rows)
                for rows in epoch_batches(
                    self.source.train, self.settings.batch, self.settings.seed, self.epoch
                )
            ]
            self.epoch += 1
            self.seconds += time.monotonic() - started
            self._end_epoch(sum(losses) / len(losses))
        return self._finish()

    def _step(self, data: EncodedExamples, rows: Any) -> float:
        loss = self.trainer.step(data, rows)
        if self.report:
            self.report.step(self.trainer.n_steps_done, loss)
        return loss

    def _end_epoch(self, train_loss: float) -> None:
        """Measure on dev, save the weights if they are the best, and record both."""
        dev = self.source.dev
        record: dict[str, Any] = {
            "epoch": self.epoch,
            "step": self.trainer.n_steps_done,
            "train_loss": train_loss,
        }
        is_best = True  # without dev the last epoch counts
        if dev is not None:
            predictions = self.trainer.predict(dev)
            loss = predictions.loss
            if not math.isfinite(loss):
                raise NumericError(
                    f"epoch {self.epoch}: the loss on dev is {loss}", hint=NON_FINITE_HINT
                )
            name, value = primary(self.source.spec, dev.labels, predictions.outputs)
            record |= {"dev_loss": loss, f"dev_{name}": value}
            is_best = self.best is None or (value, -loss) > self.best
            if is_best:
                self.best = (value, -loss)
        if is_best:
            self.best_epoch = self.epoch
            self._save_checkpoint({"epoch": self.epoch})
        record |= {"is_best": is_best, "seconds": round(self.seconds, 1)}
        self._append(record)
        self._save_state()  # last: a run killed before it repeats the epoch
        if self.report:
            self.report.epoch(record)

    def _save_checkpoint(self, about: dict[str, Any]) -> None:
        model = self.trainer.model
        about = {"finetune": {**about, "recipe": self.recipe}}
        path = self.out / CHECKPOINT
        save_checkpoint(
            path,
            model.config,
            merged_tensors(model),
            self.source.tokenizer,
            about,
            self.source.spec,
            self._adapter(),
        )

    def _adapter(self) -> TrainedAdapter | None:
        """What was trained beside a frozen base; None where every weight was."""
        rank = self.settings.lora_rank
        if rank is None or self.base_hash is None:
            return None
        return TrainedAdapter(rank, self.base_hash, adapter_arrays(self.trainer.model))

    def _save_state(self) -> None:
        counted = {
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best": self.best,
            "seconds": self.seconds,
        }
        save_state(self.out / STATE, self.trainer.state(counted, self.recipe))

    def _restore(self) -> None:
        state = load_state(self.out / STATE)
        if "epoch" not in state.progress:
            raise TrainingError(
                f"{self.out} holds a pretraining run", hint="resume it: gpt-edge train --resume"
            )
        _check_same_run(self.recipe, state.recipe, self.out)
        self.trainer.restore(state)
        counted = state.progress
        self.epoch = counted["epoch"]
        self.best_epoch = counted["best_epoch"]
        self.seconds = counted["seconds"]
        self.best = tuple(counted["best"]) if counted["best"] else None
        self._append(None)

    def _append(self, record: dict[str, Any] | None) -> None:
        """Write all of metrics.jsonl: the epochs before this one, and `record`."""
        path = self.out / METRICS
        lines = []
        for line in path.read_text("utf-8").splitlines() if path.exists() else []:
            if json.loads(line)["epoch"] < self.epoch + (record is None):
                lines.append(line)
        if record is not None:
            lines.append(json.dumps(record))
        atomic_write(path, "".join(line + "\n" for line in lines).encode())

    def _finish(self) -> FinetuneResult:
        """Measure the best checkpoint in float32 and write the figures beside it."""
        source = self.source
        path = self.out / CHECKPOINT
        model = load_task_model(path)
        predictions = {
            name: predict(model, part, self.settings.batch_tokens)
            for name, part in self._measured_sets().items()
        }
        spec = self._calibrate(model, predictions)
        sets = {
            name: set_figures(spec, part, predictions[name])
            for name, part in self._measured_sets().items()
        }
        forgetting_after = source.forgetting(model)
        result = FinetuneResult(
            checkpoint=path,
            spec=spec,
            epochs=self.epoch,
            best_epoch=self.best_epoch,
            steps=self.trainer.n_steps_done,
            seconds=self.seconds,
            data=source.described(),
            sets=sets,
            forgetting=(
                (self.forgetting_before, forgetting_after)
                if self.forgetting_before and forgetting_after
                else None
            ),
        )
        atomic_write(
            self.out / RESULTS,
            (json.dumps(result.to_dict(with_confusion=True), indent=1) + "\n").encode(),
        )
        return result

    def _measured_sets(self) -> dict[str, EncodedExamples]:
        sets = {"dev": self.source.dev, "test": self.source.test}
        return {name: part for name, part in sets.items() if part is not None}

    def _calibrate(self, model: TaskModel, predictions: Mapping[str, TaskPredictions]) -> TaskSpec:
        """The task with the temperature that dev asks for, which is written into the checkpoint;
        without dev, or for scores, the task as it is.
        """
        source = self.source
        if source.dev is None or not source.spec.has_probabilities:
            return source.spec
        logits = predictions["dev"].logits
        spec = calibrated(source.spec, logits, source.dev.labels)
        path = self.out / CHECKPOINT
        about = dict(read_checkpoint_config(path)["training"])
        about[CALIBRATION] = calibration_figures(spec, logits, source.dev.labels).to_dict()
        adapter = None if self.base_hash is None else load_trained_adapter(path)
        save_checkpoint(path, model.config, model.tensors(), source.tokenizer, about, spec, adapter)
        return spec


def _check_plot(data: FinetuneData, settings: FinetuneSettings) -> None:
    if not settings.has_classes or settings.multi_label:
        raise ValueError(
            "a plot shows the confusion of classes, and this task has none: leave it out"
        )
    if not (data.dev or data.test or data.hold_out):
        raise ValueError("a plot shows the confusion on dev or test: give dev, hold_out or test")
    require("matplotlib", "plot")


def _plot(result: FinetuneResult, path: Path) -> None:
    from gpt_edge.training.finetune.confusion_plot import draw_confusion

    for name in ("test", "dev"):
        confusion = result.sets[name].confusion if name in result.sets else None
        if confusion is not None:
            draw_confusion(confusion, result.spec.labels, f"{name} set", path)
            return
