"""Constraint as a value: equal, hashable, to JSON and back; and what is refused by name."""

from __future__ import annotations

import json
import pickle
import re

import pytest

import gpt_edge
from gpt_edge.generate.constraints.constraint import Constraint
from gpt_edge.generate.constraints.grammar import check_constraint
from gpt_edge.generate.constraints.python_regex import to_rust_syntax
from gpt_edge.generate.params import SamplingParams

ALL = (
    Constraint.json_schema({"type": "object", "properties": {"b": {}, "a": {"enum": ["é"]}}}),
    Constraint.regex(r"[a-z]+\d"),
    Constraint.choice(["yes", "no"]),
    Constraint.grammar('start: "a"'),
)


@pytest.mark.parametrize("constraint", ALL, ids=lambda one: one.kind)
def test_a_constraint_goes_to_json_and_back(constraint: Constraint) -> None:
    assert Constraint.from_dict(json.loads(json.dumps(constraint.to_dict()))) == constraint
    assert pickle.loads(pickle.dumps(constraint)) == constraint
    params = SamplingParams(constraint=constraint)
    assert SamplingParams(constraint=constraint.to_dict()) == params  # type: ignore[arg-type]
    assert len({params, SamplingParams(constraint=constraint), SamplingParams()}) == 2


def test_a_schema_is_its_text_and_keeps_its_order() -> None:
    schema = {"properties": {"b": {}, "a": {}}}
    assert Constraint.json_schema(schema) == Constraint.json_schema(json.dumps(schema))
    assert Constraint.json_schema(schema) != Constraint.json_schema(
        {"properties": {"a": {}, "b": {}}}
    )
    assert gpt_edge.Constraint is Constraint


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "a constraint is one of json_schema, regex, choice, grammar, got nothing"),
        ({"json": {}}, "got 'json'"),
        ({"regex": "a", "choice": ["b"]}, "got 'regex', 'choice'"),
        ({"regex": ""}, "regex must be a text with something in it"),
        ({"regex": 3}, "regex must be a text"),
        ({"regex": "\ud800"}, "regex has a lone surrogate at character 0"),
        ({"regex": "a" * (1 << 21)}, "regex must have at most 1048576 characters"),
        ({"choice": "yes"}, "choice must be a list of texts, got 'yes'"),
        ({"choice": []}, "choice must have 1 to 16384 options, got 0"),
        ({"choice": ["a", ""]}, "an option of choice must be a text that is not empty"),
        ({"json_schema": [1]}, "json_schema must be an object, got"),
        ({"json_schema": "{"}, "json_schema is not JSON"),
        ({"json_schema": {"const": float("nan")}}, "json_schema must be plain JSON values"),
    ],
)
def test_values_of_another_kind_are_refused_by_name(
    values: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        SamplingParams(constraint=values)  # type: ignore[arg-type]


def test_other_types_and_stop_strings_are_refused() -> None:
    with pytest.raises(ValueError, match="constraint must be a Constraint, or a mapping"):
        SamplingParams(constraint="[a-z]+")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="stop and constraint exclude each other"):
        SamplingParams(constraint=ALL[1], stop=("x",))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("^ab$", "ab"),
        (r"\Aab\Z", "ab"),
        (r"a\$", r"a\$"),
        (r"a\\$", r"a\\"),
        ("a{,3}", "a{0,3}"),
        ("[[&&a]b", r"[\[\&\&a]b"),
        ("[]a]", r"[\]a]"),
        ("[^]a]", r"[^\]a]"),
        (r"[\]\w]\w", r"[\][\p{L}\p{N}_]][\p{L}\p{N}_]"),
        (r"\d\.\S", r"\d\.[^\s\x1c-\x1f]"),
        ("[a", "[a"),
    ],
)
def test_pythons_syntax_becomes_rusts(pattern: str, expected: str) -> None:
    assert to_rust_syntax(pattern) == expected


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        (Constraint.regex("("), "regex '(' is refused by llguidance: unclosed group"),
        (Constraint.regex("(?=a)b"), "look-around, including look-ahead"),
        (Constraint.regex(r"(a)\1"), "backreferences are not supported"),
        (Constraint.regex(r"\bcat"), "lookarounds not supported yet"),
        (Constraint.json_schema({"type": "foo"}), "llguidance: Invalid type: foo"),
        (Constraint.json_schema({"not": {}}), 'llguidance: Unimplemented keys: ["not"]'),
        (Constraint.json_schema({"enum": []}), "llguidance: Unsatisfiable schema"),
        (Constraint.grammar("start: foo"), 'llguidance: at 1(8): unknown name: "foo"'),
        (Constraint.grammar('begin: "a"'), "llguidance: no start rule found"),
    ],
)
def test_what_llguidance_refuses_is_one_line_with_its_reason(
    constraint: Constraint, message: str
) -> None:
    pytest.importorskip("llguidance")
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        check_constraint(constraint)
    assert "\n" not in str(caught.value)


def test_without_the_extra_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    with pytest.raises(gpt_edge.MissingDependencyError) as caught:
        check_constraint(ALL[1])
    assert caught.value.hint == "pip install 'gpt-edge[constraints]'"
