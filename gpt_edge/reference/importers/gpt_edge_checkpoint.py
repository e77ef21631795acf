"""gpt-edge's own checkpoint folders: config.json and model.safetensors, with the names and shapes
of the reference.

A fine-tuned model's config.json has a "task" object, its config an `n_label`, its tensors
`task_head.weight` and `.bias`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gpt_edge.config import GPTConfig
from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers.safetensors_file import open_safetensors
from gpt_edge.reference.importers.settings import CheckpointSettings
from gpt_edge.reference.importers.tensor_map import Checkpoint, Origin, open_tensors
from gpt_edge.tasks import TaskSpec

FORMAT = "gpt-edge-checkpoint"
VERSION = 1


def open_gpt_edge_checkpoint(folder: Path, settings: CheckpointSettings) -> Checkpoint:
    """`settings` is the folder's config.json. Raises CheckpointError for a newer version and as
    `open_tensors` does.
    """
    version = settings.whole("version")
    if version != VERSION:
        raise CheckpointError(
            f"{settings.where} has format version {version}, this gpt-edge reads version {VERSION}",
            hint="pip install --upgrade gpt-edge",
        )
    values = settings.values.get("config")
    if not isinstance(values, dict):
        raise CheckpointError(f"{settings.where} has no config object")
    try:
        config = GPTConfig.from_dict(values)
    except ValueError as error:
        raise CheckpointError(f"{settings.where}: {error}") from error
    if config.takes_adapters:
        raise CheckpointError(
            f"{settings.where}: config says takes_adapters, which only a bundle's may"
        )
    task = _task(settings, config)
    source = open_safetensors(folder / "model.safetensors")
    checkpoint = open_tensors(
        "gpt-edge",
        folder,
        config,
        source,
        lambda name, shape: Origin((name,), shape),
        tied_copy="lm_head.weight",
    )
    return dataclasses.replace(checkpoint, task=task)


def _task(settings: CheckpointSettings, config: GPTConfig) -> TaskSpec | None:
    """The folder's task, checked against its config. Raises CheckpointError if they do not fit."""
    values = settings.values.get("task")
    if values is None:
        if config.n_label is not None:
            raise CheckpointError(
                f"{settings.where}: config has n_label {config.n_label}, but there is no task"
            )
        return None
    try:
        task = TaskSpec.from_dict(values)
    except ValueError as error:
        raise CheckpointError(f"{settings.where}: {error}") from error
    if task.n_label != config.n_label:
        raise CheckpointError(
            f"{settings.where}: the task has {task.n_label} outputs, config n_label "
            f"{config.n_label}"
        )
    if max(task.tokens, default=0) >= config.vocab_size:
        raise CheckpointError(
            f"{settings.where}: the task's tokens lie beyond the vocabulary of {config.vocab_size}"
        )
    return task
