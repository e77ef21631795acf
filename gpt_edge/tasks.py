"""GPT-1's four task kinds: how texts become one sequence of ids or several, and what the head's
outputs mean.

Every task reaches the model as token sequences that begin with a start token and end with an
extract token; texts inside one sequence are divided by a delimiter. The three tokens have ids of
their own, appended to the vocabulary, so no text can spell them. The head reads the hidden state at
the extract token. Source: Radford et al. 2018, section 3.3 and figure 1. Knows nothing of text,
tensors or files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

KINDS = ("classification", "entailment", "similarity", "multiple-choice")
N_NEW_TOKENS = 3  # start, delimiter, extract
MAX_LABELS = 1 << 14
MAX_LABEL_CHARACTERS = 1 << 10
# multiple choice: a context and two answers or more
N_TEXTS = {"classification": 1, "entailment": 2, "similarity": 2}


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One task: its kind, its labels, and its three tokens. Raises ValueError for values that no
    task can have.

    labels: the classes by number; empty for multiple choice, whose answers come with each example,
    and for scores.
    score_range: lowest and highest score of a similarity that is a number; None for classes.
    """

    kind: str
    start: int
    delimiter: int
    extract: int
    labels: tuple[str, ...] = ()
    score_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"task kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        ids = (self.start, self.delimiter, self.extract)
        if any(isinstance(id, bool) or not isinstance(id, int) or id < 0 for id in ids) or len(
            set(ids)
        ) < len(ids):
            raise ValueError(f"start, delimiter and extract must be three different ids, got {ids}")
        object.__setattr__(self, "labels", tuple(self.labels))
        self._check_labels()
        if self.score_range is not None:
            object.__setattr__(self, "score_range", self._checked_range(tuple(self.score_range)))

    def _check_labels(self) -> None:
        needs_labels = self.kind != "multiple-choice" and self.score_range is None
        if needs_labels and not 2 <= len(self.labels) <= MAX_LABELS:
            raise ValueError(
                f"{self.kind} must have from 2 to {MAX_LABELS} labels, got {len(self.labels)}"
            )
        if not needs_labels and self.labels:
            what = "multiple-choice" if self.score_range is None else "similarity with scores"
            raise ValueError(f"{what} has no labels, got {len(self.labels)}")
        for label in self.labels:
            if not isinstance(label, str) or not 0 < len(label) <= MAX_LABEL_CHARACTERS:
                raise ValueError(
                    f"a label must be a text of 1 to {MAX_LABEL_CHARACTERS} characters, got "
                    f"{label!r:.80}"
                )
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("labels must differ from each other")

    def _checked_range(self, found: tuple[Any, ...]) -> tuple[float, float]:
        if self.kind != "similarity":
            raise ValueError(f"score_range is for similarity alone, got it with {self.kind}")
        are_numbers = all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in found
        )
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

    @property
    def is_score(self) -> bool:
        """Whether the answer is a number in `score_range`, not a class."""
        return self.score_range is not None

    @property
    def n_label(self) -> int:
        """Rows of the head: one per class; 1 for a score, and for multiple choice, one score per
        answer.
        """
        return len(self.labels) or 1

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
        return {
            "kind": self.kind,
            "start": self.start,
            "delimiter": self.delimiter,
            "extract": self.extract,
            "labels": list(self.labels),
            "score_range": list(self.score_range) if self.score_range else None,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TaskSpec:
        """Raises ValueError for unknown, missing or mistyped fields, naming them."""
        if not isinstance(values, Mapping):
            raise ValueError(f"a task must be an object, got {type(values).__name__}")
        fields = tuple(cls.__dataclass_fields__)
        if unknown := sorted(str(name) for name in set(values) - set(fields)):
            raise ValueError(f"unknown task fields: {', '.join(unknown)}")
        if missing := [name for name in fields if name not in values]:
            raise ValueError(f"missing task fields: {', '.join(missing)}")
        if not isinstance(values["kind"], str):
            raise ValueError(
                f"task kind must be one of {', '.join(KINDS)}, got {values['kind']!r:.80}"
            )
        if not isinstance(values["labels"], list | tuple):
            raise ValueError(f"task labels must be a list, got {type(values['labels']).__name__}")
        if not isinstance(values["score_range"], list | tuple | None):
            raise ValueError(
                "task score_range must be a list or null, got "
                f"{type(values['score_range']).__name__}"
            )
        return cls(**values)


def new_task(
    kind: str,
    vocab_size: int,
    labels: Sequence[str] = (),
    score_range: tuple[float, float] | None = None,
) -> TaskSpec:
    """A task on a model whose embedding has `vocab_size` rows: its three tokens are the next three
    ids.
    """
    start, delimiter, extract = range(vocab_size, vocab_size + N_NEW_TOKENS)
    return TaskSpec(kind, start, delimiter, extract, tuple(labels), score_range)


@dataclass(frozen=True, slots=True)
class TaskInput:
    """One example as the model reads it.

    sequences: ids, each beginning with start and ending with extract. One; for similarity two, the
    texts in both orders; for multiple choice one per answer. n_truncated: tokens of the texts that
    no sequence holds, because n_ctx is too short.
    """

    sequences: tuple[tuple[int, ...], ...]
    n_truncated: int


def encode_texts(
    spec: TaskSpec, encode: Callable[[str], list[int]], texts: Sequence[str], n_ctx: int
) -> TaskInput:
    """`transform` of texts, each made ids by `encode`."""
    return transform(spec, [encode(text) for text in texts], n_ctx)


def transform(
    spec: TaskSpec, texts: Sequence[Sequence[int]], n_ctx: int, *, keep_end: bool = False
) -> TaskInput:
    """Return the sequences of one example, none longer than `n_ctx`.

    texts: ids of the text (classification), of premise and hypothesis, of the two texts, or of the
    context and then of each answer. What does not fit is cut and counted: a single text loses its
    end; of a pair the longer text loses its end until both fit; for multiple choice an answer keeps
    at most half of the room, and the context keeps its end, the same in every sequence, so that the
    answers differ in nothing else. keep_end: texts and answers lose their beginnings instead, which
    is not what fine-tuning does. Raises ValueError for another number of texts, or an n_ctx with no
    room for one token of each text of a sequence.
    """
    _check_texts(spec.kind, len(texts))
    n_parts = 1 if spec.kind == "classification" else 2
    room = n_ctx - 1 - n_parts  # start, and a delimiter or extract after each text
    if room < n_parts:
        raise ValueError(f"{spec.kind} wants n_ctx of at least {2 * n_parts + 1}, got {n_ctx}")
    match spec.kind:
        case "multiple-choice":
            kept = _cut_choices(texts, room, keep_end)
            together = [[kept[0], answer] for answer in kept[1:]]
        case "classification":
            kept = [_cut(texts[0], room, keep_end)]
            together = [kept]
        # has no order of its own: both orders, and their representations are added
        case "similarity":
            kept = _cut_pair(texts[0], texts[1], room, keep_end)
            together = [kept, kept[::-1]]
        case _:
            kept = _cut_pair(texts[0], texts[1], room, keep_end)
            together = [kept]
    n_truncated = sum(map(len, texts)) - sum(map(len, kept))
    return TaskInput(tuple(_sequence(spec, parts) for parts in together), n_truncated)


def _check_texts(kind: str, n_texts: int) -> None:
    if kind == "multiple-choice":
        if n_texts < 3:
            raise ValueError(
                f"multiple-choice wants a context and at least 2 answers, got {n_texts} texts"
            )
    elif n_texts != N_TEXTS[kind]:
        raise ValueError(
            f"{kind} wants {N_TEXTS[kind]} text{'s' * (N_TEXTS[kind] > 1)}, got {n_texts}"
        )


def _sequence(spec: TaskSpec, parts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    ids = [spec.start]
    for i, part in enumerate(parts):
        if i:
            ids.append(spec.delimiter)
        ids.extend(part)
    ids.append(spec.extract)
    return tuple(ids)


def _cut(text: Sequence[int], n_kept: int, keep_end: bool) -> Sequence[int]:
    return text[len(text) - min(n_kept, len(text)) :] if keep_end else text[:n_kept]


def _cut_pair(
    first: Sequence[int], second: Sequence[int], room: int, keep_end: bool
) -> list[Sequence[int]]:
    """The longer of the two loses its end first; a text no longer than half of the room is never
    cut.
    """
    half = room // 2
    n_first = min(len(first), max(room - len(second), room - half))
    n_second = min(len(second), room - n_first)
    return [_cut(first, n_first, keep_end), _cut(second, n_second, keep_end)]


def _cut_choices(texts: Sequence[Sequence[int]], room: int, keep_end: bool) -> list[Sequence[int]]:
    context, answers = texts[0], texts[1:]
    longest_kept = max(room // 2, room - len(context))
    kept = [_cut(answer, longest_kept, keep_end) for answer in answers]
    n_context = min(len(context), room - max(map(len, kept)))
    return [context[len(context) - n_context :], *kept]
