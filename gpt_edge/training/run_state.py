"""What a run needs to be resumed: one safetensors file, replaced by one rename. Tensors and JSON,
never a pickle.

It holds the weights, the optimizer's moments, torch's random state, and the counters. A run that is
killed at any moment leaves the old file or the new one, complete, and never with a NaN.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from gpt_edge.errors import NumericError, TrainingError
from gpt_edge.system.atomic_files import atomic_write

KEY = "gpt-edge-run"  # the one entry of the file's metadata
VERSION = 1
UNREADABLE = (SafetensorError, ValueError, KeyError, TypeError, struct.error, RecursionError)
NON_FINITE_HINT = (
    "what was saved before stays; lower the learning rate and start again in another folder"
)


@dataclass(frozen=True)
class RunState:
    """A run between two steps."""

    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    random: Tensor  # uint8, torch.get_rng_state(); of several processes [n, …]
    progress: dict[str, Any]  # plain JSON values: step, position in the corpus, best loss so far, …
    recipe: dict[str, Any] = field(default_factory=dict)  # Recipe.fingerprint()
    # the moving average of the weights, if there is one
    ema: dict[str, Tensor] = field(default_factory=dict)


def save_state(path: Path, state: RunState) -> None:
    """Write `state` to `path`. Raises NumericError for a NaN or an infinity in it, OutputError; the
    old file then stays.
    """
    tensors = {f"model.{name}": tensor for name, tensor in state.model.items()}
    tensors |= {f"optimizer.{name}": tensor for name, tensor in state.optimizer.items()}
    tensors |= {f"ema.{name}": tensor for name, tensor in state.ema.items()}
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise NumericError(f"{path} was not replaced: {name} holds NaN or infinity")
    tensors["random"] = state.random
    described = {"version": VERSION, "progress": state.progress, "recipe": state.recipe}
    atomic_write(path, save(tensors, {KEY: json.dumps(described)}))


def load_state(path: Path) -> RunState:
    """Read what `save_state` wrote. Raises TrainingError for a file that is missing, corrupt, or of
    another kind.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise TrainingError(
            f"there is no run to resume: {path} is missing", hint="start it without --resume"
        ) from error
    except OSError as error:
        raise TrainingError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        tensors = load(content)
        (n_header,) = struct.unpack("<Q", content[:8])
        described = json.loads(json.loads(content[8 : 8 + n_header])["__metadata__"][KEY])
        version, progress, recipe = described["version"], described["progress"], described["recipe"]
        random = tensors.pop("random")
    except UNREADABLE as error:
        raise TrainingError(f"{path} is corrupt or not the state of a run: {error}") from error
    if version != VERSION:
        raise TrainingError(
            f"{path} has format version {version!r}, this gpt-edge reads version {VERSION}"
        )
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "ema": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    return RunState(parts["model"], parts["optimizer"], random, progress, recipe, parts["ema"])
