"""What a config.json of transformers says beside sizes: GPT-Neo's kinds of layers, and the task of
a classifier. Read by the importers of checkpoints and of Optimum's folders; errors are ValueErrors.

Source: transformers, models/gpt_neo/configuration_gpt_neo.py, configuration_utils.py and
pipelines/text_classification.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpt_edge.tasks import TEXT, TOKENS, TaskSpec

# transformers' names for the non-linearities that the reference has
ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "relu": "relu",
}
MAX_PERIOD = 8  # of a pattern worth naming; a longer one is kept whole
_KINDS = {"global": "dense", "local": "banded"}
_CLASSIFIERS = {"ForSequenceClassification": TEXT, "ForTokenClassification": TOKENS}
_LANGUAGE_MODELS = ("LMHeadModel", "ForCausalLM", "DoubleHeadsModel")
_PROBLEMS = {
    "regression": "regression",
    "multi_label_classification": "multi-label",
    "single_label_classification": "single-label",
}


def neo_attention(values: Mapping[str, Any], n_layer: int) -> tuple[str, ...]:
    """The kinds of GPT-Neo's layers, as a short pattern where they repeat.

    `attention_layers` lists them; where it is missing `attention_types` is
    [[[kind, ...], repeats], ...].
    """
    names = values.get("attention_layers")
    if names is None:
        names = _expanded(values.get("attention_types"), n_layer)
    if (
        not isinstance(names, list)
        or len(names) != n_layer
        or not all(name in list(_KINDS) for name in names)
    ):
        raise ValueError(
            f"attention_types or attention_layers must say global or local for {n_layer} layers"
        )
    kinds = tuple(_KINDS[name] for name in names)
    for period in range(1, min(n_layer, MAX_PERIOD) + 1):
        if all(kind == kinds[layer % period] for layer, kind in enumerate(kinds)):
            return kinds[:period]
    return kinds


def _expanded(types: object, n_layer: int) -> list[object] | None:
    """The list that `attention_types` stands for, or None; it stops growing past n_layer, whatever
    the repeats are.
    """
    names: list[object] = []
    if not isinstance(types, list):
        return None
    for item in types:
        match item:
            case [list(kinds), int(repeats)] if kinds:
                names += kinds * min(repeats, n_layer // len(kinds) + 1)
            case _:
                return None
        if len(names) > n_layer:
            break
    return names


def classifier_kind(values: Mapping[str, Any]) -> str | None:
    """TEXT or TOKENS by `architectures`; "" for a language model, None where nothing is said."""
    architectures = values.get("architectures")
    if not isinstance(architectures, list) or not architectures:
        return None
    name = str(architectures[0])
    for suffix, kind in _CLASSIFIERS.items():
        if name.endswith(suffix):
            return kind
    return "" if name.endswith(_LANGUAGE_MODELS) else None


def classifier_task(values: Mapping[str, Any], kind: str, n_label: int | None = None) -> TaskSpec:
    """The task of a classifier. kind: TEXT or TOKENS; n_label: the head's outputs, None takes the
    labels' number.
    """
    labels = _labels(values, n_label)
    if kind == TOKENS:
        return TaskSpec(TOKENS, labels=labels, problem="single-label")
    pad = values.get("pad_token_id")
    if isinstance(pad, int) and pad < 0:  # -1 is how some configs say that there is none
        pad = None
    return TaskSpec(TEXT, labels=labels, problem=_problem(values, len(labels)), pad=pad)


def _problem(values: Mapping[str, Any], n_label: int) -> str:
    """As transformers' text-classification pipeline: one output without a type is a probability by
    itself.
    """
    value = values.get("problem_type")
    if value is not None and (not isinstance(value, str) or value not in _PROBLEMS):
        raise ValueError(f"problem_type is {value!a:.80}, expected one of {', '.join(_PROBLEMS)}")
    problem = "single-label" if value is None else _PROBLEMS[value]
    return "multi-label" if problem == "single-label" and n_label == 1 else problem


def _labels(values: Mapping[str, Any], n_label: int | None) -> tuple[str, ...]:
    """`id2label` in the order of its numbers; LABEL_0, LABEL_1, … where there is none."""
    names = values.get("id2label")
    if names is None:
        return tuple(f"LABEL_{number}" for number in range(2 if n_label is None else n_label))
    if n_label is None and isinstance(names, dict):
        n_label = len(names)
    if not isinstance(names, dict) or set(names) != {str(i) for i in range(n_label or 0)}:
        keys = ", ".join(map(str, names)) if isinstance(names, dict) else type(names).__name__
        raise ValueError(
            f"id2label must name 0 to {(n_label or 1) - 1}, one for each output, got {keys!a:.80}"
        )
    return tuple(str(names[str(number)]) for number in range(len(names)))
