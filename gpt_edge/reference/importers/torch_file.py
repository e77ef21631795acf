"""A file of torch.save as a checkpoint: nanoGPT's ckpt.pt, or another trainer's state dict; and
which of a folder's files that is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers.nanogpt import is_nanogpt, open_nanogpt
from gpt_edge.reference.importers.settings import read_json_object
from gpt_edge.reference.importers.sources import printable
from gpt_edge.reference.importers.state_dict import find_state_dict, open_state_dict
from gpt_edge.reference.importers.tensor_map import Checkpoint
from gpt_edge.reference.importers.torch_pickle import load_torch_file

SUFFIXES = (".pt", ".pth", ".ckpt")
MAX_LISTED = 6
PREFERRED = ("ckpt.pt", "model.pt", "last.ckpt")  # nanoGPT, minGPT, Lightning
_STEP = re.compile(r"model_(\d+)\.pt")  # build-nanogpt


def open_torch_file(path: Path, file: Path, given: Mapping[str, Any] | None = None) -> Checkpoint:
    """path: as the caller gave it, the file or its folder. given: settings of the model that the
    caller names; without any, those of a config.json beside a state dict count.

    Raises CheckpointError as `load_torch_file`, `open_nanogpt` and `open_state_dict` do.
    """
    content = load_torch_file(file)
    if is_nanogpt(content):
        return open_nanogpt(path, file, content)
    found = find_state_dict(content)
    if found is None:
        raise CheckpointError(
            f"{file} has no model and model_args, so it is not nanoGPT's ckpt.pt, and no state "
            "dict of GPT-2's names",
            hint=_what_it_holds(content),
        )
    beside = file.parent / "config.json"
    if given is None and beside.is_file():
        given = read_json_object(beside)
    return open_state_dict(path, file, found, given)


def torch_file_in(folder: Path, names: set[str]) -> Path | None:
    """The torch file of a training's folder; of build-nanogpt's the one of the last step. None
    where there is none. Raises CheckpointError where several could be meant.
    """
    for name in PREFERRED:
        if name in names:
            return folder / name
    if steps := [name for name in names if _STEP.fullmatch(name)]:
        return folder / max(steps, key=_step)
    found = sorted(name for name in names if name.endswith(SUFFIXES))
    if len(found) > 1:
        listed = ", ".join(found[:4]) + (", ..." if len(found) > 4 else "")
        raise CheckpointError(
            f"{folder} holds {len(found)} torch files: {listed}",
            hint=f"take one, for example {folder / found[-1]}",
        )
    return folder / found[0] if found else None


def _what_it_holds(content: object) -> str:
    if not isinstance(content, dict):
        return f"it holds a value of type {type(content).__name__}"
    names = ", ".join(str(name) for name in list(content)[:MAX_LISTED])
    return f"it holds {printable(names) or 'nothing'}"


def _step(name: str) -> int:
    found = _STEP.fullmatch(name)
    return int(found[1]) if found else -1
