"""gpt-edge's own checkpoint folders: config.json and model.safetensors, named and laid out as the reference is."""

from __future__ import annotations

from pathlib import Path

from gpt_edge.config import GPTConfig
from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers.safetensors_file import open_safetensors
from gpt_edge.reference.importers.settings import Settings
from gpt_edge.reference.importers.tensor_map import Checkpoint, Origin, open_tensors

FORMAT = "gpt-edge-checkpoint"
VERSION = 1


def open_gpt_edge_checkpoint(folder: Path, settings: Settings) -> Checkpoint:
    """`settings` is the folder's config.json. Raises CheckpointError for a newer version and as `open_tensors` does."""
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
    source = open_safetensors(folder / "model.safetensors")
    return open_tensors(
        "gpt-edge", folder, config, source, lambda name, shape: Origin((name,), shape), tied_copy="lm_head.weight"
    )
