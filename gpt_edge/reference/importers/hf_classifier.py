"""The heads of transformers' classifiers: `score.weight` of …ForSequenceClassification and
`classifier.weight` of …ForTokenClassification, with labels and problem_type from config.json.

Source: transformers, models/gpt2, openai and gpt_neo; the meaning of outputs is that of its
pipelines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers.settings import CheckpointSettings
from gpt_edge.reference.importers.sources import TensorInfo, printable
from gpt_edge.tasks import TaskSpec

SEQUENCES, TOKENS = "ForSequenceClassification", "ForTokenClassification"
_TENSORS = {SEQUENCES: "score", TOKENS: "classifier"}
_LANGUAGE_MODELS = ("LMHeadModel", "ForCausalLM", "DoubleHeadsModel")


@dataclass(frozen=True, slots=True)
class ClassifierHead:
    """A head: its task, and the names of its tensors; without a bias `bias` is None."""

    task: TaskSpec
    weight: str
    bias: str | None


def find_head(
    settings: CheckpointSettings, infos: Mapping[str, TensorInfo]
) -> ClassifierHead | None:
    """The head that a folder's config.json and tensors speak of; None for a language model.

    Raises CheckpointError for a classifier without its tensor, and for labels that do not fit it.
    """
    kind = _kind(settings, infos)
    if kind is None:
        return None
    weight = f"{_TENSORS[kind]}.weight"
    bias = f"{_TENSORS[kind]}.bias"
    if weight not in infos:
        raise CheckpointError(
            f"{settings.where} describes a model {kind}, its weights hold no {weight}",
            hint='for its language model alone, set "architectures" to null in config.json',
        )
    shape = infos[weight].shape
    if len(shape) != 2 or not shape[0]:
        raise CheckpointError(f"{settings.where}: {weight} has shape {list(shape)}")
    try:
        task = _task(kind, settings, shape[0])
    except ValueError as error:
        raise CheckpointError(f"{settings.where}: {error}") from error
    return ClassifierHead(task, weight, bias if bias in infos else None)


def _kind(settings: CheckpointSettings, infos: Mapping[str, TensorInfo]) -> str | None:
    """What `architectures` says; where it says nothing, what the tensors' names say."""
    architectures = settings.values.get("architectures")
    if isinstance(architectures, list) and architectures:
        name = str(architectures[0])
        if name.endswith((SEQUENCES, TOKENS)):
            return SEQUENCES if name.endswith(SEQUENCES) else TOKENS
        if name.endswith(_LANGUAGE_MODELS):
            return None
    if "lm_head.weight" in infos:
        return None
    return next((kind for kind, name in _TENSORS.items() if f"{name}.weight" in infos), None)


def _task(kind: str, settings: CheckpointSettings, n_label: int) -> TaskSpec:
    """Raises ValueError for labels or a problem type that no task can have."""
    labels = _labels(settings, n_label)
    if kind == TOKENS:
        return TaskSpec("token-classification", labels=labels, problem="single-label")
    pad = settings.values.get("pad_token_id")
    return TaskSpec(
        "text-classification",
        labels=labels,
        problem=_problem(settings, n_label),
        pad=None if pad is None else settings.whole("pad_token_id"),
    )


def _problem(settings: CheckpointSettings, n_label: int) -> str:
    """As transformers' text-classification pipeline: one output without a type is a probability by
    itself.
    """
    value = settings.values.get("problem_type")
    if value is None:
        return "single-label" if n_label > 1 else "multi-label"
    problems = {
        "regression": "regression",
        "multi_label_classification": "multi-label",
        "single_label_classification": "single-label" if n_label > 1 else "multi-label",
    }
    return settings.choice("problem_type", "", problems)


def _labels(settings: CheckpointSettings, n_label: int) -> tuple[str, ...]:
    """`id2label` in the order of its numbers; LABEL_0, LABEL_1, … where there is none."""
    names = settings.values.get("id2label")
    if names is None:
        return tuple(f"LABEL_{number}" for number in range(n_label))
    if not isinstance(names, dict) or set(names) != {str(number) for number in range(n_label)}:
        keys = ", ".join(map(str, names)) if isinstance(names, dict) else type(names).__name__
        raise ValueError(
            f"id2label must name 0 to {n_label - 1}, as the head has {n_label} outputs, got "
            f"{printable(keys)}"
        )
    return tuple(str(names[str(number)]) for number in range(n_label))
