"""Errors tell Python users what to write in Python, and users of the command line which option to
give.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt_edge.errors import MAX_MESSAGE, ContextLengthError, GPTEdgeError, ParityError
from tests.conftest import REPO
from tests.support.runner import run

# what `import gpt_edge` gives; the folders behind export and train are called by their commands
API = ("bench", "bundle", "classify", "evaluate", "generate", "native", "runtime", "system")
API_FILES = [
    path for folder in (*API, "verify") for path in (REPO / "gpt_edge" / folder).rglob("*.py")
]


def hints(path: Path) -> Iterator[str]:
    """Every text that the file gives as `hint=`."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "hint":
            parts = [
                part.value
                for part in ast.walk(node.value)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            ]
            if parts:
                yield "".join(parts)


def test_a_hint_for_python_names_an_option_only_beside_its_command() -> None:
    found = [hint for path in API_FILES for hint in hints(path)]
    assert len(found) > 30
    for hint in found:
        if re.search(r"(?<!\S)-{1,2}[a-z]", hint):
            assert re.search(r"gpt-edge |pip |optimum-cli |mkdir |PyInstaller ", hint), hint


def test_the_terminal_has_a_hint_of_its_own_or_that_of_python() -> None:
    error = ContextLengthError("too long", hint="truncate='left'", cli_hint="--truncate left")
    assert (error.hint, error.cli_hint) == ("truncate='left'", "--truncate left")
    assert GPTEdgeError("x", hint="pip install y").cli_hint == "pip install y"
    assert GPTEdgeError("x").cli_hint is None


def test_an_error_within_something_keeps_its_type_and_both_hints() -> None:
    error = ParityError("differs", hint="a", cli_hint="b").within("text 3")
    assert (type(error), error.message) == (ParityError, "text 3: differs")
    assert (error.hint, error.cli_hint) == ("a", "b")


@pytest.mark.parametrize("arguments", [["generate", "-m"], ["embed"]])
def test_the_command_line_shows_the_option(arguments: list[str]) -> None:
    result = run(*arguments, REPO / "tests" / "golden" / "tiny-edge", stdin=b"x" * 999)
    assert result.code == 1
    assert "--truncate" in result.err
    assert "truncate=" not in result.err


def test_a_message_is_one_short_line_that_no_terminal_obeys() -> None:
    error = GPTEdgeError("a file named \x1b]0;x\x07 and \u202e, with\na second line")
    assert error.message == r"a file named \x1b]0;x\x07 and \u202e, with\x0aa second line"
    assert str(error) == error.message
    long = GPTEdgeError("begin " + "x" * 100_000 + " end")
    assert len(long.message) <= MAX_MESSAGE
    assert long.message.startswith("begin x")
    assert long.message.endswith("x end")
    assert "(100010 characters)" in long.message
