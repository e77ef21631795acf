"""The chat template that a checkpoint brings: read, checked to be Jinja, and stored in the bundle.

Nothing of it runs here. Source: transformers, utils/chat_template_utils.py (which extensions a
template may use) and tokenization_utils_base.py (where it may stand).
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import jinja2

from gpt_edge.bundle.bundle import CHAT_TEMPLATE_FILE, MAX_CHAT_TEMPLATE_BYTES
from gpt_edge.errors import CheckpointError, GPTEdgeWarning
from gpt_edge.generate.chat_template import environment
from gpt_edge.reference.importers import Checkpoint
from gpt_edge.reference.importers.settings import read_json_object

SETTINGS_FILE = "tokenizer_config.json"
OLD_FILE = "chat_template.json"
KEY, DEFAULT = "chat_template", "default"


def read_chat_template(checkpoint: Checkpoint) -> str | None:
    """The template beside a language model's checkpoint; of several the one named "default".

    Raises CheckpointError, which names the file, for one that is too long, is not text or is not
    Jinja. Warns (GPTEdgeWarning) of several of which none is the default.
    """
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    if checkpoint.task is not None:
        return None
    path = folder / CHAT_TEMPLATE_FILE
    if path.is_file():
        template: Any = _read_text(path)
    else:
        names = [name for name in (OLD_FILE, SETTINGS_FILE) if (folder / name).is_file()]
        found = [(folder / name, read_json_object(folder / name).get(KEY)) for name in names]
        path, value = next(((p, v) for p, v in found if v is not None), (path, None))
        template = _default_of(value, path)
    return None if template is None else checked_template(template, path)


def checked_template(template: object, path: Path) -> str:
    """Return `template`. Raises CheckpointError unless it is a text of Jinja, not too long."""
    if not isinstance(template, str):
        raise CheckpointError(f"{path}: {KEY} is {type(template).__name__}, expected a text")
    try:
        n_bytes = len(template.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise CheckpointError(f"{path}: {KEY} holds half a surrogate pair") from error
    if n_bytes > MAX_CHAT_TEMPLATE_BYTES:
        raise CheckpointError(
            f"{path}: {KEY} has {n_bytes} bytes, at most {MAX_CHAT_TEMPLATE_BYTES} are stored"
        )
    try:
        environment().parse(template)
    except (jinja2.TemplateSyntaxError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise CheckpointError(
            f"{path}: {KEY}{line} is not Jinja: {str(error).splitlines()[0]:.120}",
            hint="correct it, or remove it",
        ) from error
    return template


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_CHAT_TEMPLATE_BYTES + 1).decode("utf-8")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8: {error}") from error


def _default_of(value: Any, path: Path) -> Any:
    """One template, or of a list of {name, template} the default."""
    if not isinstance(value, list):
        return value
    named = {one.get("name"): one.get("template") for one in value if isinstance(one, dict)}
    if DEFAULT in named:
        return named[DEFAULT]
    if len(named) == 1:
        return next(iter(named.values()))
    names = ", ".join(map(ascii, named))[:120]
    warnings.warn(
        f"{path}: none of the chat templates {names} is named {DEFAULT!r}: none is stored",
        GPTEdgeWarning,
        stacklevel=2,
    )
    return None
