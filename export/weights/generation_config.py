"""generation_config.json beside a checkpoint: how its maker wants the model to generate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpt_edge.bundle.generation_defaults import GenerationDefaults
from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers import Checkpoint
from gpt_edge.reference.importers.settings import read_json_object

GENERATION_CONFIG_FILE = "generation_config.json"
CONFIG_FILE = "config.json"
END_TOKENS = "eos_token_id"


def read_generation_defaults(
    checkpoint: Checkpoint, end_token: int | None
) -> GenerationDefaults | None:
    """The defaults of a language model's checkpoint; None where there are none.

    Without the file the end tokens of config.json count, as for transformers; end_token: the
    tokenizer's, which needs no mention. Keys that gpt-edge does not know are ignored. Raises
    CheckpointError, which names the file, the key and the value, for one that it knows and that is
    wrong.
    """
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    if checkpoint.task is not None:
        return None
    path = folder / GENERATION_CONFIG_FILE
    if path.is_file():
        values = read_json_object(path)
    else:
        path = folder / CONFIG_FILE
        values = _end_tokens_of_config(path, end_token)
    try:
        return GenerationDefaults.from_generation_config(values, checkpoint.config.vocab_size)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}", hint="correct it, or remove it") from error


def _end_tokens_of_config(path: Path, end_token: int | None) -> dict[str, Any]:
    """What config.json says of the end, where that is more than the tokenizer's end token."""
    found = read_json_object(path).get(END_TOKENS) if path.is_file() else None
    ids = found if isinstance(found, list) else [found]
    return {} if set(map(repr, ids)) <= {repr(end_token), "None"} else {END_TOKENS: found}


def generation_config(defaults: GenerationDefaults, end_token: int | None) -> bytes:
    """The content of a generation_config.json.

    end_token: the tokenizer's, written where the defaults name none: with this file transformers
    ignores the one of config.json, and would never stop.
    """
    values = defaults.to_dict()
    if end_token is not None:
        values.setdefault(END_TOKENS, end_token)
    return (json.dumps(values, indent=1) + "\n").encode()
