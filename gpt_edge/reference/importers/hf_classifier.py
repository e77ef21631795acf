"""The heads of transformers' classifiers: `score.weight` of …ForSequenceClassification and
`classifier.weight` of …ForTokenClassification.

`bundle/transformers_config.py` reads what config.json says of them. Source: transformers,
models/gpt2, openai and gpt_neo.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gpt_edge.bundle.transformers_config import classifier_kind, classifier_task
from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers.settings import CheckpointSettings
from gpt_edge.reference.importers.sources import TensorInfo
from gpt_edge.tasks import TEXT, TOKENS, TaskSpec

_TENSORS = {TEXT: "score", TOKENS: "classifier"}


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
    kind = classifier_kind(settings.values)
    if kind is None and "lm_head.weight" not in infos:
        found = (kind for kind, name in _TENSORS.items() if f"{name}.weight" in infos)
        kind = next(found, None)
    if not kind:
        return None
    weight = f"{_TENSORS[kind]}.weight"
    bias = f"{_TENSORS[kind]}.bias"
    if weight not in infos:
        raise CheckpointError(
            f"{settings.where} describes a model for {kind}, its weights hold no {weight}",
            hint='for its language model alone, set "architectures" to null in config.json',
        )
    shape = infos[weight].shape
    if len(shape) != 2 or not shape[0]:
        raise CheckpointError(f"{settings.where}: {weight} has shape {list(shape)}")
    try:
        task = classifier_task(settings.values, kind, shape[0])
    except ValueError as error:
        raise CheckpointError(f"{settings.where}: {error}") from error
    return ClassifierHead(task, weight, bias if bias in infos else None)
