"""The recipe: everything that a pretraining run depends on, from a TOML file, from flags, or both,
validated before any work.

Sections [data], [tokenizer], [model], [training], [evaluation], [output]. A wrong key or value is
one TrainingError that names the file, the section and the key.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from gpt_edge.config import PRESETS, GPTConfig
from gpt_edge.errors import TrainingError
from gpt_edge.training.settings import (
    DataSection,
    EvaluationSection,
    OutputSection,
    TokenizerSection,
    TrainingSection,
)

__all__ = [
    "DataSection",
    "EvaluationSection",
    "OutputSection",
    "Recipe",
    "TokenizerSection",
    "TrainingSection",
    "read_recipe",
]

SECTIONS = ("data", "tokenizer", "model", "training", "evaluation", "output")
NO_FILE = "the command line"  # the name in messages of a recipe without a file
Section = TypeVar(
    "Section",
    "DataSection",
    "TokenizerSection",
    "TrainingSection",
    "EvaluationSection",
    "OutputSection",
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole recipe. `model.vocab_size` is the vocabulary's, and its last id the end token."""

    path: Path
    data: DataSection
    tokenizer: TokenizerSection
    model: GPTConfig
    training: TrainingSection
    output: OutputSection
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)

    def fingerprint(self) -> dict[str, Any]:
        """What a resumed run must have in common with the interrupted one, as plain JSON values."""
        training = dataclasses.asdict(self.training)
        for name in ("threads", "device", "parallel"):  # they change the speed, and the last bits
            del training[name]
        data = dataclasses.asdict(self.data)
        for name in ("train", "valid"):
            data[name] = data[name][0] if len(data[name]) == 1 else list(data[name])
        return {
            "data": data,
            "tokenizer": dataclasses.asdict(self.tokenizer),
            "model": self.model.to_dict(),
            "training": training,
            "evaluation": dataclasses.asdict(self.evaluation),
        }


def read_recipe(path: Path | None, changes: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe file. `changes`, such as "training.steps=100", replace or add
    values. Opens no other file.

    path: None is an empty recipe in the current folder; `changes` hold everything. A value is
    written as in TOML; a string needs no quotes. Raises TrainingError for any fault.
    """
    values: dict[str, Any] = {}
    if path is not None:
        path = Path(path)
        try:
            values = _parsed(path.read_text("utf-8"))
        except OSError as error:
            raise TrainingError(
                f"cannot read the recipe {path}: {error.strerror or error}"
            ) from error
        except (ValueError, RecursionError) as error:  # not UTF-8, or not TOML
            raise TrainingError(f"{path} is not TOML: {error}") from error
    path = path or Path(NO_FILE)
    if unknown := sorted(set(values) - set(SECTIONS)):
        raise TrainingError(
            f"{path} has unknown sections {', '.join(unknown)}; expected {', '.join(SECTIONS)}"
        )
    for name in SECTIONS:
        if not isinstance(values.get(name, {}), Mapping):
            raise TrainingError(f"{path}: {name} is {values[name]!r}, expected a section [{name}]")
    for change in changes:
        _apply(values, change)
    data = _section(path, values, "data", DataSection)
    tokenizer = _section(path, values, "tokenizer", TokenizerSection)
    model = _model(path, values, tokenizer.vocab_size)
    recipe = Recipe(
        path=path,
        data=data,
        tokenizer=dataclasses.replace(tokenizer, vocab_size=model.vocab_size),
        model=model,
        training=_section(path, values, "training", TrainingSection),
        evaluation=_section(path, values, "evaluation", EvaluationSection),
        output=_section(path, values, "output", OutputSection),
    )
    _check_rows(recipe)
    return recipe


def _parsed(text: str) -> dict[str, Any]:
    """The values of TOML. Raises ValueError or RecursionError."""
    values = tomllib.loads(text)
    _check_whole_numbers(values)
    return values


def _check_whole_numbers(value: object) -> None:
    """TOML's have 64 bits; tomllib's have no limit, and Python prints only 4,300 digits."""
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise ValueError("a whole number of more than 64 bits")
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        _check_whole_numbers(each)


def _apply(values: dict[str, Any], change: str) -> None:
    """Put one "section.key=value" into the values of a recipe."""
    name, equals, written = change.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and key and section in SECTIONS):
        raise TrainingError(
            f"--set {change}: expected SECTION.KEY=VALUE with a section of {', '.join(SECTIONS)}",
            hint="for example --set training.steps=100",
        )
    try:
        value = _parsed(f"value = {written}")["value"]
    except (ValueError, RecursionError):
        value = written.strip()  # a string without quotes
    values[section] = {**values.get(section, {}), key: value}


def _section(path: Path, values: Mapping[str, Any], name: str, kind: type[Section]) -> Section:
    given = values.get(name, {})
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}
    if unknown := sorted(set(given) - set(fields)):
        raise TrainingError(
            f"{path}: [{name}] has unknown keys {', '.join(unknown)}; expected {', '.join(fields)}"
        )
    required = [key for key, entry in fields.items() if entry.default is dataclasses.MISSING]
    if missing := [key for key in required if key not in given]:
        raise TrainingError(f"{path}: [{name}] lacks {', '.join(missing)}")
    checked: dict[str, Any] = {
        key: _typed(f"{path}: [{name}] {key}", value, str(fields[key].type))
        for key, value in given.items()
    }
    try:
        return kind(**checked)
    except ValueError as error:
        raise TrainingError(f"{path}: [{name}] {error}") from error


def _typed(where: str, value: object, type_name: str) -> Any:
    """`value` if it has the type of the field; a whole number is taken as a float, one string as a
    list of one.
    """
    if (
        type_name == "float"
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    ):
        return float(value)
    if type_name == "tuple[str, ...]":
        values = [value] if isinstance(value, str) else value
        if isinstance(values, list) and all(isinstance(entry, str) and entry for entry in values):
            return tuple(values)
    is_right = {
        "int": type(value) is int,
        "bool": isinstance(value, bool),
        "str": isinstance(value, str),
    }
    if not is_right.get(type_name, False):
        named = {
            "float": "a finite number",
            "int": "a whole number",
            "bool": "true or false",
            "str": "a string",
        }
        expected = named.get(type_name, "a string or a list of strings")
        raise TrainingError(f"{where} is {value!r}, expected {expected}")
    return value


def _model(path: Path, values: Mapping[str, Any], vocab_size: int) -> GPTConfig:
    """The [model] section: the shape of the preset that it names, if any, with the given keys
    replaced.
    """
    given = dict(values.get("model", {}))
    if "vocab_size" in given:
        raise TrainingError(f"{path}: [model] has vocab_size; it belongs in [tokenizer]")
    shape: dict[str, Any] = {}
    if "preset" in given:
        preset = given.pop("preset")
        if not isinstance(preset, str) or preset not in PRESETS:
            raise TrainingError(
                f"{path}: [model] preset is {preset!r}, expected one of {', '.join(PRESETS)}"
            )
        shape = PRESETS[preset].to_dict()
    elif not vocab_size:
        raise TrainingError(
            f"{path}: [tokenizer] lacks vocab_size",
            hint="for a vocabulary from a file: its tokens and the end token, 50257 for gpt2",
        )
    if vocab_size:
        shape["vocab_size"] = vocab_size
    try:
        return GPTConfig.from_dict({**shape, **given})
    except ValueError as error:
        raise TrainingError(f"{path}: [model] {error}") from error


def _check_rows(recipe: Recipe) -> None:
    n_ctx, training = recipe.model.n_ctx, recipe.training
    if training.row_tokens > n_ctx:
        raise TrainingError(
            f"{recipe.path}: [training] row_tokens is {training.row_tokens}, expected at most "
            f"n_ctx, {n_ctx}"
        )
    for name in ("batch_tokens", "micro_batch_tokens"):
        n_tokens = getattr(training, name)
        if training.long_rows_from and n_tokens % n_ctx:
            raise TrainingError(
                f"{recipe.path}: [training] {name} is {n_tokens}, expected a multiple of n_ctx, "
                f"{n_ctx}"
            )
