"""Checkpoints of every supported kind, opened as tensors of the reference: `open_checkpoint`
detects the kind.
"""

from __future__ import annotations

import dataclasses
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path

from gpt_edge.errors import CheckpointError, GPTEdgeWarning
from gpt_edge.reference.importers.gpt_edge_checkpoint import FORMAT, open_gpt_edge_checkpoint
from gpt_edge.reference.importers.hf_gpt1 import open_hf_gpt1
from gpt_edge.reference.importers.hf_gpt2 import open_hf_gpt2
from gpt_edge.reference.importers.hf_gpt_neo import open_hf_gpt_neo
from gpt_edge.reference.importers.hf_opt import open_hf_opt
from gpt_edge.reference.importers.hub import fetch, is_hub_name
from gpt_edge.reference.importers.lora_adapter import merge_adapter
from gpt_edge.reference.importers.near_misses import (
    EXPECTED,
    WEIGHTS,
    is_llm_c,
    refuse_file,
    refuse_folder,
)
from gpt_edge.reference.importers.openai_gpt1 import open_openai_gpt1
from gpt_edge.reference.importers.openai_gpt2_tf import open_openai_gpt2_tf
from gpt_edge.reference.importers.settings import CheckpointSettings, read_settings
from gpt_edge.reference.importers.tensor_map import Checkpoint
from gpt_edge.reference.importers.torch_file import SUFFIXES, open_torch_file, torch_file_in

__all__ = ["Checkpoint", "open_checkpoint"]

_HF_MODELS: dict[str, Callable[[Path, CheckpointSettings], Checkpoint]] = {
    "gpt2": open_hf_gpt2,
    "openai-gpt": open_hf_gpt1,
    "gpt_neo": open_hf_gpt_neo,
    "opt": open_hf_opt,
}
# of a config.json from before there were types
_OLD_FIELDS = {"n_layer", "n_head", "n_embd", "vocab_size"}


def open_checkpoint(
    path: str | os.PathLike[str],
    *,
    config: Path | None = None,
    adapter: str | os.PathLike[str] | None = None,
) -> Checkpoint:
    """Detect what `path` holds, and validate its config, tensor names and shapes. Nothing large is
    read or allocated.

    path: a file, a folder, or a repository of the hub as hf://OWNER/NAME[@REVISION], which is
    downloaded. config: a JSON file that stands for the checkpoint's own config.json, or completes
    what a state dict says of its model. adapter: a folder, or a repository, with a LoRA adapter of
    PEFT, which is merged. Warns (GPTEdgeWarning) of each of the checkpoint's notes. Raises
    CheckpointError for a path that is missing, a file where a folder belongs, an empty folder,
    another architecture, a corrupt file, a pickle that would run code, and tensors that do not fit.
    """
    local, provenance = _local(path, "")
    checkpoint = _open(local, None if config is None else read_settings(config))
    if adapter is None and (local / "adapter_config.json").is_file():
        note = f"its LoRA adapter is not merged; --adapter {local} merges it"
        checkpoint = dataclasses.replace(checkpoint, notes=(*checkpoint.notes, note))
    if adapter is not None:
        folder, of_adapter = _local(adapter, "adapter_")
        checkpoint = merge_adapter(checkpoint, folder)
        provenance |= of_adapter
    checkpoint = dataclasses.replace(checkpoint, provenance=provenance)
    for note in checkpoint.notes:
        warnings.warn(f"{os.fspath(path)}: {note}", GPTEdgeWarning, stacklevel=2)
    return checkpoint


def _local(path: str | os.PathLike[str], prefix: str) -> tuple[Path, dict[str, str]]:
    """The path on this machine, and of a repository its name and revision under `prefix`."""
    if not is_hub_name(path):
        return Path(path), {}
    folder = fetch(path)
    names = {"repository": folder.repository, "revision": folder.revision}
    return folder.path, {prefix + name: value for name, value in names.items()}


def _open(path: Path, given: CheckpointSettings | None) -> Checkpoint:
    try:
        if not path.exists():
            raise CheckpointError(f"{path}: no such file or folder", hint=_hint_of_missing(path))
        if path.is_dir():
            return _open_folder(path, {entry.name for entry in path.iterdir()}, given)
        if path.suffix in SUFFIXES or (path.suffix == ".bin" and not is_llm_c(path)):
            return _open_file(path, given)
        raise refuse_file(path)
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or path} cannot be read: {error.strerror}"
        ) from error


# the page of a repository, or of one of its revisions
_HUB_PAGE = re.compile(
    r"https?:/+(?:huggingface\.co|hf\.co)/([\w.-]+(?:/[\w.-]+)?)(?:/(?:tree|commit)/([\w.-]+))?",
)


def _hint_of_missing(path: Path) -> str:
    """What looks like a repository's name is never looked for on the hub, but its spelling is
    shown.
    """
    if found := _HUB_PAGE.match(str(path)):
        revision = f"@{found[2]}" if found[2] else ""
        return f"for a repository of the hub write hf://{found[1]}{revision}"
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", str(path)):
        return EXPECTED
    name = path if "/" in str(path) else "OWNER/NAME"
    return f"for a repository of the hub write hf://{name}; else {EXPECTED}"


def _open_file(path: Path, given: CheckpointSettings | None) -> Checkpoint:
    return open_torch_file(path, path, None if given is None else given.values)


def _open_folder(folder: Path, names: set[str], given: CheckpointSettings | None) -> Checkpoint:
    if not names:
        raise CheckpointError(f"{folder} is an empty folder", hint=EXPECTED)
    if "manifest.json" in names:
        raise CheckpointError(
            f"{folder} is a bundle, expected a checkpoint to export", hint=EXPECTED
        )
    if given is not None and not names.isdisjoint(WEIGHTS):
        return _open_with_config(folder, given)
    if "config.json" in names and given is None:
        settings = read_settings(folder / "config.json")
        if "model_type" in settings.values or "format" in settings.values:
            return _open_with_config(folder, settings)
    if "hparams.json" in names:
        return open_openai_gpt2_tf(folder)
    if "params_shapes.json" in names:
        return open_openai_gpt1(folder)
    if (file := torch_file_in(folder, names)) is not None:
        return open_torch_file(folder, file, None if given is None else given.values)
    if "config.json" in names and given is None:
        return _open_with_config(folder, settings)
    raise refuse_folder(folder, names)


def _open_with_config(folder: Path, settings: CheckpointSettings) -> Checkpoint:
    if settings.values.get("format") == FORMAT:
        return open_gpt_edge_checkpoint(folder, settings)
    if "model_type" not in settings.values and settings.values.keys() >= _OLD_FIELDS:
        return _open_without_type(folder, settings)
    model_type = settings.values.get("model_type")
    if not isinstance(model_type, str) or model_type not in _HF_MODELS:
        raise CheckpointError(
            f"{settings.where} describes a model of type {model_type!a:.80}, expected one of "
            f"{', '.join(_HF_MODELS)}",
            hint="gpt-edge imports GPT-1, GPT-2, GPT-Neo and OPT checkpoints",
        )
    return _HF_MODELS[model_type](folder, settings)


def _open_without_type(folder: Path, settings: CheckpointSettings) -> Checkpoint:
    """A config.json of 2019 names no type: GPT-1's has a field that GPT-2's lacks."""
    model_type = "openai-gpt" if "afn" in settings.values else "gpt2"
    checkpoint = _HF_MODELS[model_type](folder, settings)
    note = f"config.json names no model_type; it is read as {model_type!r}"
    return dataclasses.replace(checkpoint, notes=(*checkpoint.notes, note))
