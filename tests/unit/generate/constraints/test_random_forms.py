"""Texts under random schemas and expressions, judged by `jsonschema` and `re`."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest

import gpt_edge
from gpt_edge.generate.constraints.constraint import Constraint
from gpt_edge.generate.constraints.processor import admits
from gpt_edge.generate.generator import Generator
from tests.support.random_forms import random_pattern, random_schema

pytest.importorskip("llguidance")
jsonschema = pytest.importorskip("jsonschema")

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def generator() -> Generator:
    return gpt_edge.load(threads=1)


def settings(rng: random.Random) -> dict[str, Any]:
    """Greedy, top-k or the whole distribution, which has the odd tokens."""
    return rng.choice(
        [
            {},
            {"temperature": 1.0},
            {"temperature": 1.3, "top_p": 0.98},
            {"temperature": 1.0, "top_k": 2048},
        ]
    )


def whole(generator: Generator, constraint: Constraint, rng: random.Random) -> str | None:
    """A text under `constraint`; None for one that is said to be cut inside it."""
    done = generator.complete(
        PROMPT, constraint=constraint, max_new_tokens=60, seed=rng.getrandbits(32), **settings(rng)
    )
    # a text that is cut inside a character ends with U+FFFD, which a pattern may match
    if not done.text.endswith("\N{REPLACEMENT CHARACTER}"):
        assert done.is_constraint_met == admits(constraint, done.text), (constraint, done)
    assert done.finish_reason in ("stop", "length"), (constraint, done)
    assert done.is_constraint_met or done.finish_reason == "length", (constraint, done)
    return done.text if done.is_constraint_met else None


def check_schemas(generator: Generator, seed: int, n: int) -> None:
    rng = random.Random(seed)
    n_whole = 0
    for _ in range(n):
        schema = random_schema(rng)
        text = whole(generator, Constraint.json_schema(schema), rng)
        if text is not None:
            n_whole += 1
            jsonschema.Draft202012Validator(schema).validate(json.loads(text))
    assert n_whole > 0.8 * n


def check_patterns(generator: Generator, seed: int, n: int) -> None:
    rng = random.Random(seed)
    n_whole = 0
    for _ in range(n):
        pattern = random_pattern(rng)
        text = whole(generator, Constraint.regex(pattern), rng)
        if text is not None:
            n_whole += 1
            assert re.fullmatch(pattern, text), (pattern, text)
    assert n_whole > 0.7 * n


def test_json_under_random_schemas_is_valid(generator: Generator) -> None:
    check_schemas(generator, 1, 25)


def test_text_under_random_expressions_matches(generator: Generator) -> None:
    check_patterns(generator, 2, 25)


@pytest.mark.slow
def test_a_thousand_schemas_and_expressions_leave_none_invalid(generator: Generator) -> None:
    check_schemas(generator, 3, 500)
    check_patterns(generator, 4, 500)
