"""The recipe: everything a pretraining run depends on, read from a TOML file and checked before any work.

Sections [data], [tokenizer], [model], [training], [evaluation], [output]. A wrong key or value is one TrainingError that
names the file, the section and the key.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from gpt_edge.config import GPTConfig
from gpt_edge.errors import TrainingError

PRECISIONS = ("float32", "bfloat16")
OPTIMIZERS = ("adamw", "muon")
Section = TypeVar("Section", "Data", "Vocabulary", "Training", "Evaluation", "Output")


@dataclass(frozen=True, slots=True)
class Data:
    """Text files, plain or gzip, UTF-8; a path is relative to the recipe."""

    train: str
    valid: str
    separator: str = "<|endoftext|>"  # between documents, with the line breaks around it

    def __post_init__(self) -> None:
        _wanted("separator", self.separator, bool(self.separator.strip()), "a text that is not blank")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The byte-level BPE to learn from the training text."""

    vocab_size: int  # the end token included

    def __post_init__(self) -> None:
        _wanted("vocab_size", self.vocab_size, 257 <= self.vocab_size <= 1 << 20, "from 257 to 1048576")


@dataclass(frozen=True, slots=True)
class Training:
    """How to learn. Rates are for AdamW; `matrix_learning_rate` is for the hidden matrices under Muon."""

    steps: int
    batch_tokens: int  # tokens in one optimiser step
    learning_rate: float
    row_tokens: int  # length of a training row; longer rows cost more for each token
    long_rows_from: int = 0  # step from which rows are n_ctx long; 0 is never
    warmup_steps: int = 100
    constant_until: int = 0  # step up to which the rate stays at its peak; 0 starts the cosine after the warm-up
    final_learning_rate: float = 0.1  # share of the peak that the cosine ends at
    optimizer: str = "adamw"
    matrix_learning_rate: float = 0.02
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    dropout: float = 0.1  # embeddings and residuals
    attention_dropout: float = 0.0  # of the attention weights: no fused kernel on CPUs takes it
    precision: str = "float32"
    compile: bool = False
    threads: int = 0  # 0 leaves torch's choice
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("steps", "batch_tokens", "row_tokens"):
            _wanted(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("warmup_steps", "constant_until", "long_rows_from", "threads", "seed"):
            _wanted(name, getattr(self, name), getattr(self, name) >= 0, "at least 0")
        for name in ("learning_rate", "matrix_learning_rate", "clip_norm"):
            _wanted(name, getattr(self, name), getattr(self, name) > 0, "above 0")
        for name in ("beta1", "beta2", "dropout", "attention_dropout"):
            _wanted(name, getattr(self, name), 0 <= getattr(self, name) < 1, "from 0 to below 1")
        _wanted("final_learning_rate", self.final_learning_rate, 0 <= self.final_learning_rate <= 1, "from 0 to 1")
        _wanted("weight_decay", self.weight_decay, self.weight_decay >= 0, "at least 0")
        _wanted("precision", self.precision, self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        _wanted("optimizer", self.optimizer, self.optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}")
        fits = self.batch_tokens % self.row_tokens == 0
        _wanted("batch_tokens", self.batch_tokens, fits, f"a multiple of row_tokens, {self.row_tokens}")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """When to look at the validation text, and when to give up."""

    every_steps: int = 200
    patience: int = 5  # stop after so many evaluations without a lower loss
    documents: int = 0  # how many of them while training; 0 takes all. The last evaluation always takes all.

    def __post_init__(self) -> None:
        _wanted("every_steps", self.every_steps, self.every_steps >= 1, "at least 1")
        _wanted("patience", self.patience, self.patience >= 1, "at least 1")
        _wanted("documents", self.documents, self.documents >= 0, "at least 0")


@dataclass(frozen=True, slots=True)
class Output:
    """Where the run lives: checkpoint/, state.safetensors, metrics.jsonl. Relative to the current folder."""

    folder: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole recipe. `model.vocab_size` is the vocabulary's."""

    path: Path
    data: Data
    tokenizer: Vocabulary
    model: GPTConfig
    training: Training
    output: Output
    evaluation: Evaluation = field(default_factory=Evaluation)

    def fingerprint(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one it goes on from, as plain JSON values."""
        training = dataclasses.asdict(self.training)
        del training["threads"]  # changes the speed, and the last bits
        return {
            "data": dataclasses.asdict(self.data),
            "tokenizer": dataclasses.asdict(self.tokenizer),
            "model": self.model.to_dict(),
            "training": training,
            "evaluation": dataclasses.asdict(self.evaluation),
        }


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe file. Raises TrainingError for all that is wrong with it; opens no other file."""
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise TrainingError(f"cannot read the recipe {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} is not TOML: {error}") from error
    sections = ("data", "tokenizer", "model", "training", "evaluation", "output")
    if unknown := sorted(set(values) - set(sections)):
        raise TrainingError(f"{path} has unknown sections {', '.join(unknown)}; wanted {', '.join(sections)}")
    for name in sections:
        if not isinstance(values.get(name, {}), Mapping):
            raise TrainingError(f"{path}: {name} is {values[name]!r}, wanted a section [{name}]")
    recipe = Recipe(
        path=path,
        data=_section(path, values, "data", Data),
        tokenizer=_section(path, values, "tokenizer", Vocabulary),
        model=_model(path, values),
        training=_section(path, values, "training", Training),
        evaluation=_section(path, values, "evaluation", Evaluation),
        output=_section(path, values, "output", Output),
    )
    _check_rows(recipe)
    return recipe


def _section(path: Path, values: Mapping[str, Any], name: str, kind: type[Section]) -> Section:
    given = values.get(name, {})
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}
    if unknown := sorted(set(given) - set(fields)):
        raise TrainingError(f"{path}: [{name}] has unknown keys {', '.join(unknown)}; wanted {', '.join(fields)}")
    required = [key for key, entry in fields.items() if entry.default is dataclasses.MISSING]
    if missing := [key for key in required if key not in given]:
        raise TrainingError(f"{path}: [{name}] lacks {', '.join(missing)}")
    checked: dict[str, Any] = {
        key: _typed(f"{path}: [{name}] {key}", value, str(fields[key].type)) for key, value in given.items()
    }
    try:
        return kind(**checked)
    except ValueError as error:
        raise TrainingError(f"{path}: [{name}] {error}") from error


def _typed(where: str, value: object, kind: str) -> Any:
    """`value` if TOML gave it the type of the field; a whole number may stand where a fraction is wanted."""
    if kind == "float" and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    is_right = {"int": type(value) is int, "bool": isinstance(value, bool), "str": isinstance(value, str)}
    if not is_right.get(kind, False):
        words = {"float": "a finite number", "int": "a whole number", "bool": "true or false", "str": "a text"}
        raise TrainingError(f"{where} is {value!r}, wanted {words[kind]}")
    return value


def _model(path: Path, values: Mapping[str, Any]) -> GPTConfig:
    given = dict(values.get("model", {}))
    if "vocab_size" in given:
        raise TrainingError(f"{path}: [model] has vocab_size; it belongs into [tokenizer]")
    vocab_size = _section(path, values, "tokenizer", Vocabulary).vocab_size
    try:
        return GPTConfig.from_dict({**given, "vocab_size": vocab_size})
    except ValueError as error:
        raise TrainingError(f"{path}: [model] {error}") from error


def _check_rows(recipe: Recipe) -> None:
    n_ctx, training = recipe.model.n_ctx, recipe.training
    if training.row_tokens > n_ctx:
        raise TrainingError(
            f"{recipe.path}: [training] row_tokens is {training.row_tokens}, wanted at most n_ctx, {n_ctx}"
        )
    if training.long_rows_from and training.batch_tokens % n_ctx:
        raise TrainingError(
            f"{recipe.path}: [training] batch_tokens is {training.batch_tokens}, wanted a multiple of n_ctx, {n_ctx}"
        )


def _wanted(name: str, found: object, is_right: bool, wanted: str) -> None:
    if not is_right:
        raise ValueError(f"{name} is {found!r}, wanted {wanted}")
