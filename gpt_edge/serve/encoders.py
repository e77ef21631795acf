"""`POST /v1/embeddings` as OpenAI's, and `POST /v1/classify` for classifiers."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np

from gpt_edge.classify.classifier import Classifier, Texts
from gpt_edge.classify.prediction import Prediction
from gpt_edge.classify.token_labels import TokenLabel
from gpt_edge.serve.api_error import ApiError, busy
from gpt_edge.serve.completion_request import PromptInput, read_inputs
from gpt_edge.serve.fields import Fields, is_unicode
from gpt_edge.serve.running import as_api_error
from gpt_edge.serve.served_models import ServedModel
from gpt_edge.tasks import TOKENS

MAX_INPUTS = 256
MAX_PENDING = 64  # requests of one model that wait
Result = TypeVar("Result")


async def embed(fields: Fields, model: ServedModel) -> dict[str, Any]:
    """Vectors of length 1 in the order of the inputs. Raises ApiError."""
    encoding = fields.text("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise fields.wrong("encoding_format", "float or base64", encoding)
    fields.text("user")
    size = model.vector_size
    if (dimensions := fields.whole("dimensions", 1, 1 << 20)) not in (None, size):
        raise fields.wrong("dimensions", f"{size}, the model's", dimensions)
    inputs = read_inputs(fields, "input", model.bundle.config.vocab_size, MAX_INPUTS)
    fields.finish()

    def compute() -> tuple[Any, int]:
        embedder = model.embedder
        sequences = [
            embedder.encode(one, None) if isinstance(one, str) else tuple(_checked(one, model))
            for one in inputs
        ]
        vectors = embedder.embed_encoded(sequences)
        return vectors, sum(map(len, sequences))

    vectors, n_tokens = await in_turn(model, compute)
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _as_base64(row) if encoding == "base64" else row.tolist(),
        }
        for index, row in enumerate(vectors)
    ]
    return {
        "object": "list",
        "data": data,
        "model": model.name,
        "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
    }


def _checked(ids: PromptInput, model: ServedModel) -> list[int]:
    assert isinstance(ids, list)
    if len(ids) > model.bundle.config.n_ctx:
        raise ApiError(
            400,
            f"an input has {len(ids)} tokens, the context of this model holds "
            f"{model.bundle.config.n_ctx}",
            param="input",
            code="context_length_exceeded",
        )
    return ids


def _as_base64(row: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(row, "<f4").tobytes()).decode()


async def classify(fields: Fields, model: ServedModel) -> dict[str, Any]:
    """Labels with probabilities, or scores, in the order of the inputs; of a model that labels
    tokens a list for each input. Raises ApiError.
    """
    classifier = model.classifier
    if classifier is None:
        path = "/v1/completions" if model.engine is not None else "/v1/embeddings"
        raise ApiError(400, f"{model.name} is no classifier: use {path}", param="model")
    truncate = fields.text("truncate")
    if truncate not in (None, "left", "right"):
        raise fields.wrong("truncate", "left or right", truncate)
    threshold = fields.number("threshold", 0, 1)
    special = fields.flag("special")
    inputs = _read_texts(fields)
    fields.finish()
    is_of_tokens = classifier.task.kind == TOKENS
    if threshold is not None and (is_of_tokens or not classifier.task.has_probabilities):
        reason = "gives every token a label" if is_of_tokens else "has no probabilities"
        raise ApiError(400, f"{model.name} {reason}", param="threshold")

    def compute() -> list[dict[str, Any]]:
        cut: Any = truncate
        if is_of_tokens:
            rows = classifier.tag(_single(inputs), truncate=cut, special=special)
            return [{"tokens": [_label(token) for token in row]} for row in rows]
        answers = classifier.predict(inputs, truncate=cut, threshold=threshold, special=special)
        return [_answer(classifier, prediction) for prediction in answers.rows]

    answers = await in_turn(model, compute)
    return {
        "object": "list",
        "data": [{"index": index, **answer} for index, answer in enumerate(answers)],
        "model": model.name,
    }


def _single(inputs: list[Texts]) -> list[str]:
    """The texts of examples that have one each. Raises ApiError."""
    examples = [(one,) if isinstance(one, str) else one for one in inputs]
    if any(len(texts) != 1 for texts in examples):
        raise ApiError(400, "a model that labels tokens reads one text", param="input")
    return [texts[0] for texts in examples]


def _label(token: TokenLabel) -> dict[str, Any]:
    """As `gpt-edge classify --json` prints it."""
    return {**asdict(token), "probability": float(f"{token.probability:.6g}")}


def _read_texts(fields: Fields) -> list[Texts]:
    """One example, a text, or a list of examples, each a text or the list of its texts."""
    value = fields.raw("input")
    examples = value if isinstance(value, list) else [value]
    if not 1 <= len(examples) <= MAX_INPUTS:
        raise fields.wrong("input", f"a text, or a list of up to {MAX_INPUTS} examples", value)
    for example in examples:
        texts = example if isinstance(example, list) else [example]
        if not texts or not all(isinstance(text, str) and is_unicode(text) for text in texts):
            raise fields.wrong("input", "texts, or lists of an example's texts", example)
    return [tuple(one) if isinstance(one, list) else one for one in examples]


def _answer(classifier: Classifier, prediction: Prediction) -> dict[str, Any]:
    labels = classifier.task.labels
    answer: dict[str, Any] = {"label": prediction.label, "score": prediction.score}
    if prediction.probabilities.size:
        answer["probs"] = [float(f"{value:.6g}") for value in prediction.probabilities]
        answer["labels"] = list(labels) if len(labels) == prediction.probabilities.size else None
    if classifier.task.is_multi_label:
        answer["given"] = list(prediction.labels)
    if prediction.values.size:
        answer["values"] = [float(f"{value:.6g}") for value in prediction.values]
    return answer


async def in_turn(model: ServedModel, compute: Callable[[], Result]) -> Result:
    """Compute in the model's worker thread, one after the other, so that waiting ones hold no
    thread that others need. Raises ApiError, 429 where MAX_PENDING wait already.
    """
    if model.n_pending >= MAX_PENDING:
        raise busy("the server is busy")
    model.n_pending += 1
    try:
        return await asyncio.get_running_loop().run_in_executor(model.worker, compute)
    except Exception as error:
        raise as_api_error(error) from error
    finally:
        model.n_pending -= 1
