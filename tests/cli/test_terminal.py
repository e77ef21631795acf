"""What reaches a terminal: no control character of a model, a prompt or a file, unless --raw asks
for it. Pipes get the text as it is.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import gpt_edge
from gpt_edge.cli.support import console
from tests.support.runner import done, run
from tests.support.terminal import run_on_terminal, terminal_output

ESC, BELL = 27, 7  # the tiny model's first 256 tokens are the bytes


def biased(*ids: int) -> list[str]:
    """Options that make the model write these tokens and no others."""
    return ["-n", "6", *(f"--logit-bias={id}=1000" for id in ids)]


@pytest.mark.parametrize(("id", "shown"), [(ESC, "\\x1b"), (BELL, "\\x07"), (13, "\\x0d")])
def test_the_models_control_characters_are_shown_as_escapes(
    id: int, shown: str, tiny_edge: Path
) -> None:
    options = ["generate", "a", "-m", tiny_edge, *biased(id)]
    assert run_on_terminal(*options) == (0, shown * 6 + "\n")
    assert done(*options).out == chr(id) * 6 + "\n"  # a pipe
    code, raw = run_on_terminal(*options, "--raw")
    assert (code, raw) == (0, chr(id) * 6 + "\n")


def test_lines_and_tabs_stay(tiny_edge: Path) -> None:
    code, shown = run_on_terminal("generate", "a\tb\nc", "--echo", "-m", tiny_edge, *biased(9))
    assert (code, shown) == (0, "a\tb\nc" + "\t" * 6 + "\n")


def test_a_sequence_in_pieces_is_disarmed_like_a_whole_one() -> None:
    clear = "\x1b[2J\x9b2J\x1b]0;title\x07"
    with terminal_output() as whole:
        console.write(clear)
    with terminal_output() as pieces:
        for character in clear:
            console.write(character)
    assert pieces.getvalue() == whole.getvalue() == b"\\x1b[2J\\x9b2J\\x1b]0;title\\x07"


def test_a_control_character_of_several_tokens_is_escaped(tiny_edge: Path) -> None:
    """U+009B, which some terminals take for ESC [, is the bytes C2 9B: two tokens."""
    ids = gpt_edge.load(tiny_edge).tokenizer.encode("\x9b31m")
    assert len(ids) == 5
    options = ["tokenize", "--decode", " ".join(map(str, ids)), "-m", tiny_edge]
    assert run_on_terminal(*options) == (0, "\\x9b31m\n")
    assert run_on_terminal(*options, "--raw") == (0, "\x9b31m\n")


def test_what_turns_the_direction_of_text_is_shown() -> None:
    with terminal_output() as shown:
        console.write("a\u202egnp.exe \u05d0 \u2067\u05d1\u2069")
    assert shown.getvalue().decode() == "a\\u202egnp.exe \u05d0 \u2067\u05d1\u2069"


def test_the_names_of_a_checkpoint_cannot_draw_on_the_terminal() -> None:
    with terminal_output() as shown, console.progress("reading \x1b]0;x\x07") as show:
        show("h.0.\x1b]0;evil\x07weight")
    assert b"\x1b]0;" not in shown.getvalue()


def test_errors_and_warnings_hold_no_control_characters(tiny_edge: Path) -> None:
    code, shown = run_on_terminal("generate", "x", "-m", "no\x1b[31m\x9bsuch")
    assert (code, "\x1b" in shown, "\x9b" in shown) == (1, False, False)
    assert "no\\x1b[31m\\x9bsuch" in shown


def test_json_needs_no_escapes(tiny_edge: Path) -> None:
    code, shown = run_on_terminal("generate", "a", "-m", tiny_edge, *biased(ESC), "--json")
    assert code == 0
    assert '"text": "' + "\\u001b" * 6 in shown
    assert run("generate", "a", "-m", tiny_edge, *biased(ESC), "--json", "--raw").code == 0
