"""generation_config.json beside a checkpoint: how its maker wants the model to generate."""

from __future__ import annotations

import json

from gpt_edge.bundle.generation_defaults import GenerationDefaults
from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers import Checkpoint
from gpt_edge.reference.importers.settings import read_json_object

GENERATION_CONFIG_FILE = "generation_config.json"


def read_generation_defaults(checkpoint: Checkpoint) -> GenerationDefaults | None:
    """The defaults of a language model's checkpoint; None where there are none.

    Keys that gpt-edge does not know are ignored. Raises CheckpointError, which names the file, the
    key and the value, for one that it knows and that is wrong.
    """
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    path = folder / GENERATION_CONFIG_FILE
    if checkpoint.task is not None or not path.is_file():
        return None
    values = read_json_object(path)
    try:
        return GenerationDefaults.from_generation_config(values, checkpoint.config.vocab_size)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}", hint="correct it, or remove it") from error


def generation_config(defaults: GenerationDefaults, end_token: int | None) -> bytes:
    """The content of a generation_config.json.

    end_token: the tokenizer's, written where the defaults name none: with this file transformers
    ignores the one of config.json, and would never stop.
    """
    values = defaults.to_dict()
    if end_token is not None:
        values.setdefault("eos_token_id", end_token)
    return (json.dumps(values, indent=1) + "\n").encode()
