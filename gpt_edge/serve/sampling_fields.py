"""SamplingParams from the fields that `/v1/completions` and `/v1/chat/completions` share: OpenAI's,
and further ones by the names that they have elsewhere (vLLM's), such as top_k and min_p.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from gpt_edge.generate.constraints.constraint import Constraint
from gpt_edge.generate.params import (
    DEFAULT_TEMPERATURE,
    MAX_STOP_CHARACTERS,
    MAX_STOP_STRINGS,
    SamplingParams,
)
from gpt_edge.serve.api_error import ApiError
from gpt_edge.serve.fields import Fields, is_unicode

MAX_BIASES = 300
MAX_BIAS = 100.0
MAX_END_TOKENS = 64
MAX_BAD_WORDS = 64
MAX_PENALTY = 2.0
MAX_TEMPERATURE = 2.0
MAX_TOP_K = (1 << 31) - 1
MAX_SEED = (1 << 63) - 1
CONSTRAINTS = {
    "guided_json": "json_schema",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
}
ANY_OBJECT = {"type": "object"}


def read_sampling(
    fields: Fields, defaults: SamplingParams, vocab_size: int, max_tokens: int
) -> SamplingParams:
    """What the fields say; where they are silent the model's own defaults, and where it has none,
    OpenAI's: temperature 1 and every token.

    max_tokens: of the request. Raises ApiError 400 naming the field.
    """
    temperature = fields.number("temperature", 0, MAX_TEMPERATURE)
    truncation = {
        "top_p": fields.number("top_p", 0, 1),
        "min_p": fields.number("min_p", 0, 1),
        "typical_p": fields.number("typical_p", 0, 1),
    }
    top_k = fields.whole("top_k", -1, MAX_TOP_K)
    own: dict[str, Any] = {name: value for name, value in truncation.items() if value is not None}
    if top_k is not None:
        own["top_k"] = vocab_size if top_k < 1 else top_k  # 0 and -1 keep every token
    if temperature is not None:
        own["temperature"] = temperature
    if defaults.temperature is None:
        own.setdefault("temperature", DEFAULT_TEMPERATURE)
    if defaults.top_k is None:
        own.setdefault("top_k", vocab_size)
    own |= {
        "max_new_tokens": max(max_tokens, 1),
        "seed": _seed(fields),
        "stop": _stop(fields),
        "logit_bias": _logit_bias(fields, vocab_size),
        "stop_token_ids": _end_tokens(fields, vocab_size),
        "bad_words": _bad_words(fields),
        "min_new_tokens": fields.whole("min_tokens", 0, max_tokens, 0),
        "ignore_end_token": fields.flag("ignore_eos"),
        "constraint": _constraint(fields),
        **_penalties(fields, defaults),
    }
    try:
        return dataclasses.replace(defaults, **own)
    except ValueError as error:
        raise ApiError(400, str(error)) from error


def _penalties(fields: Fields, defaults: SamplingParams) -> dict[str, Any]:
    repetition = fields.number("repetition_penalty", 0.01, 10)
    ngram = fields.whole("no_repeat_ngram_size", 0, 1 << 16)
    return {
        "presence_penalty": fields.number("presence_penalty", -MAX_PENALTY, MAX_PENALTY) or 0.0,
        "frequency_penalty": fields.number("frequency_penalty", -MAX_PENALTY, MAX_PENALTY) or 0.0,
        "repetition_penalty": defaults.repetition_penalty if repetition is None else repetition,
        "no_repeat_ngram_size": defaults.no_repeat_ngram_size if ngram is None else ngram,
    }


def _seed(fields: Fields) -> int | None:
    seed = fields.whole("seed", -MAX_SEED - 1, MAX_SEED)
    return None if seed is None else seed & ((1 << 64) - 1)


def _stop(fields: Fields) -> tuple[str, ...]:
    value = fields.raw("stop")
    stops = [value] if isinstance(value, str) else ([] if value is None else value)
    is_right = isinstance(stops, list) and len(stops) <= MAX_STOP_STRINGS
    if not is_right or not all(
        isinstance(stop, str) and 1 <= len(stop) <= MAX_STOP_CHARACTERS and is_unicode(stop)
        for stop in stops
    ):
        expected = (
            f"a string or up to {MAX_STOP_STRINGS} strings of 1 to {MAX_STOP_CHARACTERS} characters"
        )
        raise fields.wrong("stop", expected, value)
    return tuple(stops)


def _logit_bias(fields: Fields, vocab_size: int) -> dict[int, float]:
    value = fields.raw("logit_bias")
    if value is None:
        return {}
    expected = (
        f"an object of up to {MAX_BIASES} token ids below {vocab_size} with numbers from "
        f"-{MAX_BIAS:g} to {MAX_BIAS:g}"
    )
    if not isinstance(value, dict) or len(value) > MAX_BIASES:
        raise fields.wrong("logit_bias", expected, value)
    biases: dict[int, float] = {}
    for id, bias in value.items():
        is_number = isinstance(bias, int | float) and not isinstance(bias, bool)
        is_id = id.isascii() and id.isdigit() and len(id) < 10 and int(id) < vocab_size
        if not is_id or not is_number or not -MAX_BIAS <= bias <= MAX_BIAS:
            raise fields.wrong("logit_bias", expected, {id: bias})
        biases[int(id)] = float(bias)
    return biases


def _end_tokens(fields: Fields, vocab_size: int) -> tuple[int, ...]:
    value = fields.raw("stop_token_ids")
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_END_TOKENS or not are_ids(value, vocab_size):
        expected = f"up to {MAX_END_TOKENS} token ids from 0 to {vocab_size - 1}"
        raise fields.wrong("stop_token_ids", expected, value)
    return tuple(value)


def _bad_words(fields: Fields) -> tuple[str, ...]:
    value = fields.raw("bad_words")
    if value is None:
        return ()
    if (
        not isinstance(value, list)
        or len(value) > MAX_BAD_WORDS
        or not all(
            isinstance(word, str) and 1 <= len(word) <= MAX_STOP_CHARACTERS and is_unicode(word)
            for word in value
        )
    ):
        expected = f"up to {MAX_BAD_WORDS} strings of 1 to {MAX_STOP_CHARACTERS} characters"
        raise fields.wrong("bad_words", expected, value)
    return tuple(value)


def _constraint(fields: Fields) -> Constraint | None:
    """Of guided_json and its like, or of OpenAI's response_format; at most one."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    for name, kind in CONSTRAINTS.items():
        if (value := fields.raw(name)) is not None:
            found.append((name, {kind: value}))
    if (schema := _response_format(fields)) is not None:
        found.append(("response_format", {"json_schema": schema}))
    if len(found) > 1:
        raise ApiError(
            400, f"{found[0][0]} and {found[1][0]} are both given: one of them", param=found[1][0]
        )
    if not found:
        return None
    name, value = found[0]
    try:
        return Constraint.from_dict(value)
    except ValueError as error:
        raise ApiError(400, f"{name}: {error}", param=name) from error


def _response_format(fields: Fields) -> Mapping[str, Any] | None:
    form = fields.nested("response_format")
    if form is None:
        return None
    kind = form.text("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return ANY_OBJECT
    if kind == "json_schema" and isinstance(outer := form.raw("json_schema"), dict):
        schema = outer.get("schema")
        if isinstance(schema, dict):
            return schema
    raise fields.wrong(
        "response_format", "of type text, json_object, or json_schema with its schema", kind
    )


def are_ids(value: list[Any], vocab_size: int) -> bool:
    """Whether all are token ids."""
    return all(
        isinstance(id, int) and not isinstance(id, bool) and 0 <= id < vocab_size for id in value
    )
