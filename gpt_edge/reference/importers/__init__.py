"""Checkpoints of every supported kind, opened as tensors of the reference: `open_checkpoint`
detects the kind.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from gpt_edge.errors import CheckpointError, GPTEdgeWarning
from gpt_edge.reference.importers.gpt_edge_checkpoint import FORMAT, open_gpt_edge_checkpoint
from gpt_edge.reference.importers.hf_gpt1 import open_hf_gpt1
from gpt_edge.reference.importers.hf_gpt2 import open_hf_gpt2
from gpt_edge.reference.importers.hf_gpt_neo import open_hf_gpt_neo
from gpt_edge.reference.importers.nanogpt import open_nanogpt
from gpt_edge.reference.importers.openai_gpt1 import open_openai_gpt1
from gpt_edge.reference.importers.openai_gpt2_tf import open_openai_gpt2_tf
from gpt_edge.reference.importers.settings import CheckpointSettings, read_settings
from gpt_edge.reference.importers.tensor_map import Checkpoint

__all__ = ["Checkpoint", "open_checkpoint"]

_HF_MODELS: dict[str, Callable[[Path, CheckpointSettings], Checkpoint]] = {
    "gpt2": open_hf_gpt2,
    "openai-gpt": open_hf_gpt1,
    "gpt_neo": open_hf_gpt_neo,
}
_HINT = (
    "expected a folder with config.json (Hugging Face, gpt-edge), hparams.json (OpenAI GPT-2) or "
    "params_shapes.json (OpenAI GPT-1), or nanoGPT's ckpt.pt"
)


def open_checkpoint(path: Path) -> Checkpoint:
    """Detect what `path` holds, and validate its config, tensor names and shapes. Nothing large is
    read or allocated.

    Warns (GPTEdgeWarning) of each of the checkpoint's notes. Raises CheckpointError for a path that
    is missing, a file where a folder belongs, an empty folder, another architecture, a corrupt
    file, a pickle that would run code, and tensors that do not fit.
    """
    checkpoint = _open(Path(path))
    for note in checkpoint.notes:
        warnings.warn(f"{path}: {note}", GPTEdgeWarning, stacklevel=2)
    return checkpoint


def _open(path: Path) -> Checkpoint:
    try:
        if not path.exists():
            raise CheckpointError(f"{path}: no such file or folder", hint=_HINT)
        if path.is_dir():
            return _open_folder(path, {entry.name for entry in path.iterdir()})
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or path} cannot be read: {error.strerror}"
        ) from error
    if path.suffix in (".pt", ".pth"):
        return open_nanogpt(path)
    raise CheckpointError(
        f"{path} is a file, expected a checkpoint's folder or nanoGPT's .pt file",
        hint=f"try {path.parent}",
    )


def _open_folder(folder: Path, names: set[str]) -> Checkpoint:
    if not names:
        raise CheckpointError(f"{folder} is an empty folder", hint=_HINT)
    if "manifest.json" in names:
        raise CheckpointError(f"{folder} is a bundle, expected a checkpoint to export", hint=_HINT)
    if "config.json" in names:
        return _open_with_config(folder, read_settings(folder / "config.json"))
    if "hparams.json" in names:
        return open_openai_gpt2_tf(folder)
    if "params_shapes.json" in names:
        return open_openai_gpt1(folder)
    if "ckpt.pt" in names:
        return open_nanogpt(folder)
    if (folder / "checkpoint" / "config.json").exists():  # the folder of a training run
        raise CheckpointError(
            f"{folder} is the folder of a run, expected a checkpoint",
            hint=f"take {folder / 'checkpoint'}",
        )
    raise CheckpointError(f"{folder} is not a checkpoint that gpt-edge knows", hint=_HINT)


def _open_with_config(folder: Path, settings: CheckpointSettings) -> Checkpoint:
    if settings.values.get("format") == FORMAT:
        return open_gpt_edge_checkpoint(folder, settings)
    model_type = settings.values.get("model_type")
    if not isinstance(model_type, str) or model_type not in _HF_MODELS:
        raise CheckpointError(
            f"{settings.where} describes a model of type {model_type!a:.80}, expected one of "
            f"{', '.join(_HF_MODELS)}",
            hint="gpt-edge imports GPT-1, GPT-2 and GPT-Neo checkpoints",
        )
    return _HF_MODELS[model_type](folder, settings)
