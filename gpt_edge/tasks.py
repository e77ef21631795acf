"""TaskSpec: GPT-1's four task kinds, vectors of texts, and transformers' two kinds, and what the
head's outputs mean. `task_inputs.py` says how texts become sequences of ids.

Every task of GPT-1's reaches the model as token sequences that begin with a start token and end
with an extract token; texts inside one sequence are divided by a delimiter. The three tokens have
ids of their own, appended to the vocabulary, so no text can spell them. The head reads the hidden
state at the extract token. Source: Radford et al. 2018, section 3.3 and figure 1.

A classifier of transformers reads a text as it is: one of sequences at the last token that is no
padding, one of tokens at every token. Source: transformers, modeling_gpt2.py and
pipelines/text_classification.py. Knows nothing of text, tensors or files.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

KINDS = ("classification", "entailment", "similarity", "multiple-choice")
# transformers' ...ForSequenceClassification and ...ForTokenClassification, which finetune does not
# train
TEXT, TOKENS = "text-classification", "token-classification"
# vectors of texts, learned from pairs; laid out as GPT-1's kinds, each text by itself
EMBEDDING = "embedding"
ALL_KINDS = (*KINDS, EMBEDDING, TEXT, TOKENS)
FINETUNED = (*KINDS, EMBEDDING)
EVERY_TOKEN = (TOKENS, EMBEDDING)  # the head reads every token's state, not the last one's alone
# one class by a softmax, any number of classes by sigmoids, numbers as they are
MULTI_LABEL = "multi-label"
PROBLEMS = ("single-label", MULTI_LABEL, "regression")
# the fields of a task in a file
OF_GPT1 = ("kind", "start", "delimiter", "extract", "labels", "score_range")
OF_TRANSFORMERS = ("kind", "labels", "problem", "pad")
OPTIONAL = ("temperature", "thresholds", "dimensions")  # in a file only where they say something
LIKELY = 0.5  # of a label among several that may all be true, without a threshold of its own
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0
N_NEW_TOKENS = 3  # start, delimiter, extract
MAX_LABELS = 1 << 14
MAX_LABEL_CHARACTERS = 1 << 10
# multiple choice: a context and two answers or more
N_TEXTS = {"classification": 1, "entailment": 2, "similarity": 2, TEXT: 1, TOKENS: 1}


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One task: its kind, its labels, and its three tokens. Raises ValueError for values that no
    task can have.

    start, delimiter, extract: of GPT-1's kinds; None for transformers'.
    labels: the classes by number; empty for multiple choice, whose answers come with each example,
    and for scores.
    score_range: lowest and highest score of a similarity that is a number; None for classes.
    problem: one of PROBLEMS, of transformers' kinds; of classification None, or MULTI_LABEL, where
    any number of labels is true of a text, or none.
    pad: of TEXT alone: trailing ids of this value count as padding, as transformers' config has it.
    temperature: what logits are divided by before they become probabilities; None: not calibrated.
    dimensions: of EMBEDDING, numbers of a vector: the mean of the head's outputs over the tokens.
    thresholds: of MULTI_LABEL, the probability from which on each label is given; empty: LIKELY.
    """

    kind: str
    start: int | None = None
    delimiter: int | None = None
    extract: int | None = None
    labels: tuple[str, ...] = ()
    score_range: tuple[float, float] | None = None
    problem: str | None = None
    pad: int | None = None
    temperature: float | None = None
    thresholds: tuple[float, ...] = ()
    dimensions: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in ALL_KINDS:
            raise ValueError(f"task kind must be one of {', '.join(ALL_KINDS)}, got {self.kind!r}")
        self._check_tokens()
        self._check_problem()
        object.__setattr__(self, "labels", tuple(self.labels))
        self._check_labels()
        if self.score_range is not None:
            object.__setattr__(self, "score_range", self._checked_range(tuple(self.score_range)))
        self._check_temperature()
        object.__setattr__(self, "thresholds", tuple(self.thresholds))
        self._check_thresholds()

    def _check_tokens(self) -> None:
        ids = (self.start, self.delimiter, self.extract)
        if self.kind not in FINETUNED:
            if ids != (None, None, None):
                raise ValueError(f"{self.kind} has no start, delimiter and extract, got {ids}")
            return
        if not all(map(_is_id, ids)) or len(set(ids)) < len(ids):
            raise ValueError(f"start, delimiter and extract must be three different ids, got {ids}")

    def _check_problem(self) -> None:
        if self.kind in FINETUNED:
            allowed = (None, MULTI_LABEL) if self.kind == "classification" else (None,)
            if self.problem not in allowed or self.pad is not None:
                raise ValueError(f"{self.kind} has no problem {self.problem!r:.80} and no pad")
            return
        problems = PROBLEMS if self.kind == TEXT else PROBLEMS[:1]
        if self.problem not in problems:
            raise ValueError(
                f"{self.kind} must have a problem of {', '.join(problems)}, got "
                f"{self.problem!r:.80}"
            )
        if self.pad is not None and (self.kind != TEXT or not _is_id(self.pad)):
            raise ValueError(f"pad must be an id of {TEXT}, got {self.pad!r:.80}")

    def _check_labels(self) -> None:
        self._check_dimensions()
        needs_labels = self.kind not in ("multiple-choice", EMBEDDING) and self.score_range is None
        fewest = 2 if self.problem in (None, "single-label") else 1
        if self.kind == TOKENS:
            fewest = 1
        if needs_labels and not fewest <= len(self.labels) <= MAX_LABELS:
            raise ValueError(
                f"{self.kind} must have from {fewest} to {MAX_LABELS} labels, got "
                f"{len(self.labels)}"
            )
        if not needs_labels and self.labels:
            what = self.kind if self.score_range is None else "similarity with scores"
            raise ValueError(f"{what} has no labels, got {len(self.labels)}")
        for label in self.labels:
            if not isinstance(label, str) or not 0 < len(label) <= MAX_LABEL_CHARACTERS:
                raise ValueError(
                    f"a label must be a text of 1 to {MAX_LABEL_CHARACTERS} characters, got "
                    f"{label!r:.80}"
                )
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("labels must differ from each other")

    def _check_dimensions(self) -> None:
        value = self.dimensions
        if (self.kind == EMBEDDING) != (value is not None):
            raise ValueError(f"dimensions are of {EMBEDDING} alone, got {value!r:.80}, {self.kind}")
        if value is not None and (not _is_id(value) or not 1 <= value <= MAX_LABELS):
            raise ValueError(f"dimensions must be from 1 to {MAX_LABELS}, got {value!r:.80}")

    def _checked_range(self, found: tuple[Any, ...]) -> tuple[float, float]:
        if self.kind != "similarity":
            raise ValueError(f"score_range is for similarity alone, got it with {self.kind}")
        are_numbers = all(map(_is_number, found))
        if (
            len(found) != 2
            or not are_numbers
            or not all(map(math.isfinite, found))
            or not found[0] < found[1]
        ):
            raise ValueError(
                f"score_range must be two finite numbers, the lower one first, got {list(found)}"
            )
        return (float(found[0]), float(found[1]))

    def _check_temperature(self) -> None:
        value = self.temperature
        if value is None:
            return
        if not self.has_probabilities:
            raise ValueError(f"temperature is for probabilities, {self.described} has none")
        if not _is_number(value) or not MIN_TEMPERATURE <= value <= MAX_TEMPERATURE:
            raise ValueError(
                f"temperature must be a number from {MIN_TEMPERATURE:g} to {MAX_TEMPERATURE:g}, "
                f"got {value!r:.80}"
            )

    def _check_thresholds(self) -> None:
        values = self.thresholds
        if not values:
            return
        if not self.is_multi_label or len(values) != len(self.labels):
            raise ValueError(
                f"thresholds are for each label of a multi-label task, got {len(values)} for "
                f"{self.described} with {len(self.labels)} labels"
            )
        if wrong := [value for value in values if not _is_number(value) or not 0 < value < 1]:
            raise ValueError(f"a threshold must be a number between 0 and 1, got {wrong[0]!r:.80}")

    @property
    def is_multi_label(self) -> bool:
        """Whether any number of labels is true of a text, each by its own probability."""
        return self.problem == MULTI_LABEL

    @property
    def has_probabilities(self) -> bool:
        """Whether the answer to a text is a choice of classes or answers that can be calibrated."""
        has_none = self.kind in EVERY_TOKEN or self.is_score or self.problem == "regression"
        return not has_none

    @property
    def reads_every_token(self) -> bool:
        """Whether the head reads every token's state, and not the last one's alone."""
        return self.kind in EVERY_TOKEN

    @property
    def described(self) -> str:
        """The kind of task in a few words, for messages."""
        if self.is_score:
            return f"{self.kind} with scores"
        return f"{self.kind} ({self.problem})" if self.problem else self.kind

    @property
    def uncalibrated(self) -> TaskSpec:
        """The same task without what held-out examples say about its probabilities."""
        return dataclasses.replace(self, temperature=None, thresholds=())

    @property
    def tokens(self) -> tuple[int, ...]:
        """start, delimiter and extract; empty for transformers' kinds."""
        ids = (self.start, self.delimiter, self.extract)
        return tuple(id for id in ids if id is not None)

    @property
    def is_score(self) -> bool:
        """Whether the answer is a number in `score_range`, not a class."""
        return self.score_range is not None

    @property
    def n_label(self) -> int:
        """Rows of the head: one per class, or number of a vector; 1 for a score, and for multiple
        choice, one score per answer.
        """
        return self.dimensions or len(self.labels) or 1

    def score(self, logit: float) -> float:
        """The score that a head's single output means: low + (high - low) * sigmoid(logit).

        Raises ValueError for a task whose answer is no score.
        """
        if self.score_range is None:
            raise ValueError(f"{self.kind} with labels has no score")
        low, high = self.score_range
        sigmoid = (
            1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))
        )
        return low + (high - low) * sigmoid

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` gives the same spec back."""
        said: dict[str, Any] = {}
        if self.temperature is not None:
            said["temperature"] = self.temperature
        if self.thresholds:
            said["thresholds"] = list(self.thresholds)
        if self.dimensions is not None:
            said["dimensions"] = self.dimensions
        if self.kind not in FINETUNED:
            labels = list(self.labels)
            values = {"kind": self.kind, "labels": labels, "problem": self.problem, "pad": self.pad}
            return {**values, **said}
        return {
            "kind": self.kind,
            "start": self.start,
            "delimiter": self.delimiter,
            "extract": self.extract,
            "labels": list(self.labels),
            "score_range": list(self.score_range) if self.score_range else None,
            **({"problem": self.problem} if self.problem is not None else {}),
            **said,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TaskSpec:
        """Raises ValueError for unknown, missing or mistyped fields, naming them."""
        if not isinstance(values, Mapping):
            raise ValueError(f"a task must be an object, got {type(values).__name__}")
        is_of_gpt1 = values.get("kind") not in (TEXT, TOKENS)
        fields = OF_GPT1 if is_of_gpt1 else OF_TRANSFORMERS
        optional = ("problem", *OPTIONAL) if is_of_gpt1 else OPTIONAL
        if unknown := sorted(str(name) for name in set(values) - set(fields) - set(optional)):
            raise ValueError(f"unknown task fields: {', '.join(unknown)}")
        if missing := [name for name in fields if name not in values]:
            raise ValueError(f"missing task fields: {', '.join(missing)}")
        if not isinstance(values["kind"], str):
            raise ValueError(
                f"task kind must be one of {', '.join(KINDS)}, got {values['kind']!r:.80}"
            )
        if not isinstance(values["labels"], list | tuple):
            raise ValueError(f"task labels must be a list, got {type(values['labels']).__name__}")
        if not isinstance(values.get("thresholds", ()), list | tuple):
            raise ValueError(f"task thresholds must be a list, got {values['thresholds']!r:.80}")
        score_range = values.get("score_range")
        if not isinstance(score_range, list | tuple | None):
            raise ValueError(
                f"task score_range must be a list or null, got {type(score_range).__name__}"
            )
        return cls(**values)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def new_task(
    kind: str,
    vocab_size: int,
    labels: Sequence[str] = (),
    score_range: tuple[float, float] | None = None,
    problem: str | None = None,
    dimensions: int | None = None,
) -> TaskSpec:
    """A task on a model whose embedding has `vocab_size` rows: its three tokens are the next three
    ids.
    """
    start, delimiter, extract = range(vocab_size, vocab_size + N_NEW_TOKENS)
    return TaskSpec(
        kind,
        start,
        delimiter,
        extract,
        tuple(labels),
        score_range,
        problem,
        dimensions=dimensions,
    )


def n_text_rows(vocab_size: int, task: TaskSpec | None) -> int:
    """How many rows of an embedding of `vocab_size` a text may use: a task's own tokens, which come
    last, are no text's.
    """
    n_own = len(task.tokens) if task is not None else 0
    is_last = task is not None and n_own > 0 and min(task.tokens) == vocab_size - n_own
    return vocab_size - n_own if is_last else vocab_size
