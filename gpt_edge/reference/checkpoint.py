"""gpt-edge's own checkpoint folder: config.json, model.safetensors (fp32), and the tokenizer's
file. Never a pickle.

`config.json` is {"format", "version", "config": GPTConfig.to_dict(), "tokenizer": spec or null,
"training": any figures}, and for a fine-tuned model "task": TaskSpec.to_dict(); its head is among
the tensors. `importers/gpt_edge_checkpoint.py` reads it; a folder is published by one rename.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import save as save_arrays
from safetensors.torch import save
from torch import Tensor

from gpt_edge.config import GPTConfig
from gpt_edge.errors import CheckpointError, NumericError
from gpt_edge.reference.heads import TaskModel
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.reference.importers.gpt_edge_checkpoint import FORMAT, VERSION
from gpt_edge.reference.importers.tensor_map import HEAD_PREFIX, Checkpoint
from gpt_edge.reference.model import GPT
from gpt_edge.reference.trained_adapter import (
    ADAPTER_FILE,
    FIELD,
    TrainedAdapter,
    read_trained_adapter,
)
from gpt_edge.system.atomic_files import publish_folder, write_file
from gpt_edge.tasks import TaskSpec
from gpt_edge.tokenizer.spec import TokenizerSource


def save_checkpoint(
    folder: Path,
    config: GPTConfig,
    state: Mapping[str, Tensor],
    tokenizer: TokenizerSource | None,
    training: Mapping[str, Any],
    task: TaskSpec | None = None,
    adapter: TrainedAdapter | None = None,
) -> None:
    """Write a checkpoint at `folder`, replacing an older checkpoint there in one step.

    state: the tensors of `GPT(config).state_dict()`, any float type; a tied `lm_head.weight` is
    left out. training: plain JSON values about the run, for people. task: of a fine-tuned model;
    config and state are then its `TaskModel.config` and `TaskModel.tensors()`. adapter: what state
    has beyond its base, where only that was trained. Raises NumericError
    for NaN or infinite weights, before anything is written, and OutputError as `publish_folder`.
    """
    tensors = {
        name: tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in state.items()
    }
    if config.tied_embeddings:
        tensors.pop("lm_head.weight", None)
    if bad := sorted(
        name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())
    ):
        raise NumericError(
            f"{folder}: NaN or infinite weights in {', '.join(bad[:3])}; the checkpoint was not "
            "written"
        )
    described = {
        "format": FORMAT,
        "version": VERSION,
        "config": config.to_dict(),
        "tokenizer": tokenizer.spec.to_dict() if tokenizer else None,
        "training": dict(training),
    }
    if task is not None:
        described["task"] = task.to_dict()
    if adapter is not None:
        described[FIELD] = adapter.described()
    files = {
        "model.safetensors": save(tensors),
        "config.json": (json.dumps(described, indent=1) + "\n").encode(),
    }
    if adapter is not None:
        files[ADAPTER_FILE] = save_arrays(dict(adapter.arrays))
    if tokenizer:
        files[tokenizer.spec.file] = tokenizer.content
    n_bytes = sum(map(len, files.values()))
    with publish_folder(folder, force=True, is_ours=is_checkpoint, n_bytes=n_bytes) as temporary:
        for name, content in files.items():
            write_file(temporary / name, content)


def is_checkpoint(folder: Path) -> bool:
    """Whether the config.json in `folder` is that of a gpt-edge checkpoint."""
    try:
        read_checkpoint_config(folder)
    except CheckpointError:
        return False
    return True


def read_checkpoint_config(folder: Path) -> dict[str, Any]:
    """Return the parsed config.json. Raises CheckpointError when it is missing, corrupt, or of
    another format.
    """
    path = folder / "config.json"
    try:
        described = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a gpt-edge checkpoint's: expected format {FORMAT!r}")
    if described.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has format version {described.get('version')!r}, expected {VERSION}"
        )
    return described


def load_checkpoint(folder: Path) -> GPT:
    """Return the model of a checkpoint folder, in evaluation mode. Raises CheckpointError as
    `open_checkpoint`.
    """
    return open_checkpoint(folder).load_model()


def load_task_model(folder: Path) -> TaskModel:
    """Return the model and head of a fine-tuned checkpoint, in evaluation mode.

    Raises CheckpointError as `open_checkpoint`, and for a checkpoint without a task.
    """
    return task_model_of(open_checkpoint(folder))


def load_trained_adapter(folder: Path) -> TrainedAdapter:
    """Return the adapter of a checkpoint folder. Raises CheckpointError where it holds none, or a
    corrupt one.
    """
    described = read_checkpoint_config(folder).get(FIELD)
    return read_trained_adapter(folder, open_checkpoint(folder).config, described)


def task_model_of(checkpoint: Checkpoint) -> TaskModel:
    """The model and head of an open checkpoint. Raises CheckpointError for one without a task."""
    if checkpoint.task is None:
        raise CheckpointError(
            f"{checkpoint.path} is a language model without a task",
            hint="fine-tune it with gpt-edge finetune",
        )
    model = TaskModel(checkpoint.load_model(), checkpoint.task)
    head = [name for name in checkpoint.names() if name.startswith(HEAD_PREFIX)]
    model.load_head({name: torch.from_numpy(checkpoint.tensor(name).copy()) for name in head})
    return model.eval()
