"""`generate --json-schema`, `--regex`, `--choice` and `--grammar`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.runner import done, run
from tests.support.tiny_model import bundle_path

pytest.importorskip("llguidance")

TINY = ["generate", "the end", "-m", str(bundle_path()), "--threads", "1"]
SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["age"],
    "additionalProperties": False,
}


def test_the_text_has_the_form_that_an_option_asks_for(tmp_path: Path) -> None:
    schema = tmp_path / "person.json"
    schema.write_text("\ufeff" + json.dumps(SCHEMA), "utf-8")
    grammar = tmp_path / "list.lark"
    grammar.write_text('start: word ("," word){2}\nword: /[ab]{2}/')
    person = done(*TINY, "--json-schema", schema, "-n", "30")
    assert list(json.loads(person.out)) == ["age"]
    text = done(*TINY, "--regex", "^[a-c]{4}$", "--temperature", "2", "--seed", "1").out
    assert re.fullmatch("[a-c]{4}\n", text)
    assert done(*TINY, "--choice", "left", "--choice", "right").out in ("left\n", "right\n")
    assert re.fullmatch(r"(?:[ab]{2},){2}[ab]{2}\n", done(*TINY, "--grammar", grammar).out)


def test_json_says_whether_the_text_is_whole() -> None:
    whole = done(*TINY, "--regex", "[ab]{3}", "--json").json
    assert (whole["finish_reason"], whole["is_constraint_met"]) == ("stop", True)
    assert whole["constraint"] == {"regex": "[ab]{3}"}
    cut = done(*TINY, "--regex", "[ab]{30}", "--json", "-n", "4").json
    assert (cut["finish_reason"], cut["is_constraint_met"]) == ("length", False)
    plain = done(*TINY, "--json", "-n", "4").json
    assert not {"is_constraint_met", "constraint"} & {*plain}


def test_a_text_that_is_cut_is_said_on_standard_error() -> None:
    result = run(*TINY, "--regex", "[ab]{30}", "-n", "4")
    assert result.code == 0
    assert result.err == "warning: the text ends inside its form, by length\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--regex", "("], "--regex '(' is refused by llguidance: unclosed group"),
        (["--regex", ""], "--regex must be a text with something in it"),
        (["--choice", ""], "--choice an option of choice must be a text that is not empty"),
        (["--regex", "a", "--choice", "b"], "--regex and --choice exclude each other"),
        (["--regex", "a", "--stop", "b"], "--stop: stop and constraint exclude each other"),
        (["--regex", r"[^\s\S]"], "the regex constraint admits no text of this model's tokens"),
        (["--json-schema", "{bad}"], "--json-schema {bad}: is not JSON: Expecting"),
        (["--json-schema", "{odd}"], "--json-schema {odd}: is refused by llguidance: Invalid type"),
        (["--json-schema", "{latin}"], "--json-schema {latin} is not UTF-8: byte 1"),
        (["--grammar", "{bad}"], "--grammar {bad}: is refused by llguidance"),
    ],
)
def test_a_form_that_cannot_be_used_is_one_line_that_names_the_option(
    options: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "bad").write_text("{")
    (tmp_path / "odd").write_text('{"type": "foo"}')
    (tmp_path / "latin").write_bytes(b'"\xe9"')
    places = {name: str(tmp_path / name) for name in ("bad", "odd", "latin")}
    for name, place in places.items():
        options = [option.replace("{" + name + "}", place) for option in options]
        message = message.replace("{" + name + "}", place)
    result = run(*TINY, *options)
    assert result.code == 2
    assert len(result.errors) == 1
    assert result.errors[0].startswith(f"error: {message}")


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    result = run(*TINY, "--json-schema", tmp_path / "none.json")
    assert result.code == 1
    assert result.errors == [f"error: {tmp_path / 'none.json'}: No such file or directory"]
