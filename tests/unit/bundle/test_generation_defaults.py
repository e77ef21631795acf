"""GenerationDefaults: what a generation_config.json says, and what it may not say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gpt_edge.bundle.generation_defaults import MAX_TOP_K, GenerationDefaults

FROM_CONFIG: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
    ({}, None),
    ({"transformers_version": "5.0", "_from_model_config": True, "max_length": 50}, None),
    ({"eos_token_id": None, "temperature": None}, None),
    ({"eos_token_id": 7}, {"eos_token_id": 7}),
    ({"eos_token_id": [7, 3]}, {"eos_token_id": [7, 3]}),
    ({"eos_token_id": [7]}, {"eos_token_id": 7}),
    ({"eos_token_id": 50256}, None),  # GPT-2's, with a smaller vocabulary
    ({"eos_token_id": [50256, 7]}, {"eos_token_id": 7}),
    ({"do_sample": False, "pad_token_id": 0}, {"do_sample": False}),
    ({"do_sample": True}, {"do_sample": True, "top_k": 50}),
    (
        {"do_sample": True, "temperature": 0.7, "top_k": 0, "top_p": 0.9},
        {"do_sample": True, "temperature": 0.7, "top_k": 0, "top_p": 0.9},
    ),
]


@pytest.mark.parametrize(("values", "expected"), FROM_CONFIG)
def test_a_generation_config_is_read(
    values: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    defaults = GenerationDefaults.from_generation_config(values, vocab_size=100)
    assert (defaults.to_dict() if defaults else None) == expected
    if defaults is not None:
        assert GenerationDefaults.from_dict(json.loads(json.dumps(expected))) == defaults


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"do_sample": "yes"}, "do_sample must be true or false, got 'yes'"),
        ({"temperature": -1}, "temperature must be a finite number of 0 or more, got -1"),
        ({"temperature": float("nan")}, "temperature must be a finite number"),
        ({"top_k": 1.5}, "top_k must be a whole number from 0"),
        ({"top_p": 0.0}, "top_p must be a number above 0, at most 1, got 0.0"),
        ({"eos_token_id": "end"}, "eos_token_id must be a token id or a list"),
        ({"eos_token_id": -1}, "eos_token_id must be a token id or a list"),
        ({"eos_token_id": list(range(65))}, "eos_token_id must be a token id or a list of up to"),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GenerationDefaults.from_generation_config(values, vocab_size=100)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("temperature", (0, 0.5, 10), (-1e-9, True, "1", float("inf"))),
        ("top_p", (1, 1.0, 1e-9), (0, 1.0001, -1, True, "1")),
        ("typical_p", (1, 0.5), (0, 1.0001, True)),
        ("min_p", (0, 1, 0.5), (-1e-9, 1.0001, True)),
        ("repetition_penalty", (1e-9, 1, 5.0), (0, -1, float("inf"), True)),
        ("top_k", (0, 1, MAX_TOP_K), (-1, MAX_TOP_K + 1, 2.0, True)),
        ("no_repeat_ngram_size", (0, 1, MAX_TOP_K), (-1, MAX_TOP_K + 1, 2.0, True)),
        ("do_sample", (True, False), (0, 1, "true")),
        ("eos_token_id", (0, MAX_TOP_K, [0], list(range(64))), (-1, MAX_TOP_K + 1, True, [1.0])),
    ],
)
def test_every_bound_of_a_field(name: str, right: tuple[Any, ...], wrong: tuple[Any, ...]) -> None:
    for value in right:
        found = GenerationDefaults.from_dict({name: value}).to_dict()[name]
        assert found == (value[0] if value == [0] else value)
    for value in wrong:
        with pytest.raises(ValueError, match=name):
            GenerationDefaults.from_dict({name: value})


def test_a_manifest_says_something_or_nothing() -> None:
    with pytest.raises(ValueError, match=r"unknown fields: 'beams', 'zeal'$"):
        GenerationDefaults.from_dict({"zeal": 1, "beams": 2, "top_k": 3})
    with pytest.raises(ValueError, match="top_k must not be null"):
        GenerationDefaults.from_dict({"top_k": None})
    for values in ({}, {"eos_token_id": []}):
        with pytest.raises(ValueError, match="at least one field"):
            GenerationDefaults.from_dict(values)


def test_an_end_token_is_in_the_vocabulary() -> None:
    read = GenerationDefaults.from_generation_config
    found = read({"eos_token_id": [99, 100]}, vocab_size=100)
    assert found is not None
    assert found.eos_token_id == (99,)
