"""The settings of a fine-tuning run. The defaults are GPT-1's (Radford et al. 2018, section 4.1).

That recipe is for 117M weights; models of a few million need a larger rate and more epochs: see
docs/finetuning.md.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt_edge.data.examples import PAIRS, Columns, default_columns
from gpt_edge.system.threads import check_threads
from gpt_edge.tasks import EMBEDDING, FINETUNED
from gpt_edge.tokenizer.spec import END_OF_TEXT
from gpt_edge.training.settings import PRECISIONS

CLASS_WEIGHTS = ("none", "balanced")
SEPARATOR = "|"  # of several labels in one field


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSettings:
    """How to train. Raises ValueError for a value out of range.

    The loss is L_task + lm_weight * L_LM. The rate rises linearly over the first `warmup` of the
    steps, then falls linearly to 0. `dropout` acts inside the GPT, `clf_dropout` on what the head
    reads, `token_noise` on the texts.
    """

    kind: str
    # of similarity as a number; None: labels are classes
    score_range: tuple[float, float] | None = None
    multi_label: bool = False  # any number of labels is true of a text
    # numbers of an embedding's vectors; None: the model's width
    dimensions: int | None = None
    temperature: float = 0.05  # of the contrastive loss of an embedding
    # "balanced": an example counts the more, the rarer its class
    class_weights: str = "none"
    epochs: int = 3
    learning_rate: float = 6.25e-5
    batch: int = 32  # examples
    lm_weight: float = 0.5  # lambda
    dropout: float = 0.1
    clf_dropout: float = 0.1
    # fraction of a text's tokens that are read as random ones, drawn again each time
    token_noise: float = 0.0
    weight_decay: float = 0.01
    warmup: float = 0.002  # fraction of all steps
    clip_norm: float = 1.0
    lora_rank: int | None = None  # None trains every weight, 0 the head and its tokens alone
    lora_alpha: float | None = None  # None is twice the rank
    patience: int = 0  # stop after so many epochs without a better one on dev; 0 never stops early
    from_scratch: bool = False  # random weights of the checkpoint's shape: for comparison
    seed: int = 0
    precision: str = "float32"  # or bfloat16: autocast, the weights stay float32
    # positions computed at once; a larger batch is computed in micro-batches
    batch_tokens: int = 4096
    threads: int = 0  # 0 leaves the choice to torch

    def __post_init__(self) -> None:
        self._check_choices_and_counts()
        self._check_rates()
        self._check_lora_and_scores()
        self._check_classes()

    def _check_choices_and_counts(self) -> None:
        for name, value, choices in (
            ("task", self.kind, FINETUNED),
            ("precision", self.precision, PRECISIONS),
            ("class_weights", self.class_weights, CLASS_WEIGHTS),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        for name, low in (
            ("epochs", 1),
            ("batch", 1),
            ("patience", 0),
            ("seed", 0),
            ("batch_tokens", 1),
            ("threads", 0),
        ):
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if self.threads:
            check_threads(self.threads)

    def _check_rates(self) -> None:
        for name, high in (
            ("dropout", 1.0),
            ("clf_dropout", 1.0),
            ("token_noise", 1.0),
            ("warmup", 1.0),
            ("lm_weight", math.inf),
        ):
            if not 0 <= getattr(self, name) < high:
                raise ValueError(
                    f"{name} must be from 0 to below {high:g}, got {getattr(self, name)}"
                )
        for name in ("learning_rate", "clip_norm", "lora_alpha", "temperature"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a finite number above 0, got {value}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(
                f"weight_decay must be a finite number from 0, got {self.weight_decay}"
            )

    def _check_lora_and_scores(self) -> None:
        if self.lora_rank is not None and self.lora_rank < 0:
            raise ValueError(f"lora_rank must be at least 0, got {self.lora_rank}")
        if self.lora_alpha is not None and not self.lora_rank:
            raise ValueError("lora_alpha needs a lora_rank of 1 or more")
        if self.score_range is not None:
            lowest, highest = self.score_range
            if self.kind != "similarity":
                raise ValueError(f"score_range is for similarity only, got it with {self.kind}")
            if not (math.isfinite(lowest) and math.isfinite(highest) and lowest < highest):
                raise ValueError(
                    f"score_range must be two finite numbers, the lower one first, got {lowest:g} "
                    f"{highest:g}"
                )

    def _check_classes(self) -> None:
        if self.multi_label and self.kind != "classification":
            raise ValueError(f"multi_label is for classification only, got it with {self.kind}")
        if self.dimensions is not None and self.kind != EMBEDDING:
            raise ValueError(f"dimensions are for embedding only, got them with {self.kind}")
        if self.kind == EMBEDDING and self.batch < 2:
            raise ValueError("embedding learns from the other pairs of a batch: give 2 or more")
        if self.class_weights != "none" and not self.has_classes:
            raise ValueError("class_weights are for classes, and this task has none")

    @property
    def has_classes(self) -> bool:
        """Whether labels are classes, not scores or the numbers of answers."""
        return self.kind not in ("multiple-choice", EMBEDDING) and self.score_range is None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = dataclasses.asdict(self)
        return {**values, "score_range": list(self.score_range) if self.score_range else None}


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneData:
    """The files to train on and to measure on. Raises ValueError for dev and hold_out together.

    dev chooses the best epoch; test is scored once, at the end. hold_out: the fraction of the
    training examples, of each class the same, that is held out as dev. forgetting_text: its
    perplexity is measured before and after.
    """

    train: Path
    dev: Path | None = None
    test: Path | None = None
    hold_out: float = 0.0
    columns: Columns | None = None  # None: `default_columns` of the task
    format: str | None = None  # None: by each file's suffix
    skip_bad_rows: bool = False  # leave out rows with a fault, and count them
    forgetting_text: Path | None = None
    separator: str = END_OF_TEXT  # of the documents in forgetting_text

    def __post_init__(self) -> None:
        if not 0 <= self.hold_out < 1:
            raise ValueError(f"hold_out must be from 0 to below 1, got {self.hold_out}")
        if self.hold_out and self.dev:
            raise ValueError("give either dev or hold_out, not both")

    def columns_for(self, settings: FinetuneSettings) -> Columns:
        """The columns to read."""
        if self.columns is None and settings.kind == EMBEDDING:
            return PAIRS
        columns = self.columns or default_columns(settings.kind, settings.score_range is not None)
        if settings.multi_label and columns.separator is None:
            return dataclasses.replace(columns, separator=SEPARATOR)
        return columns
