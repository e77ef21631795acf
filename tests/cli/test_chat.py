"""`chat`: as a script through a pipe, and as a user on a terminal."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path

import pytest

import gpt_edge
from gpt_edge.cli.support.chat_commands import COMMANDS
from gpt_edge.generate.chat_template import ChatTemplate
from tests.conftest import REPO
from tests.support.bundle_factory import write_with_template
from tests.support.runner import Result, run

GREEDY = gpt_edge.SamplingParams(max_new_tokens=6)
PROMPT = r">(\x08\x1b\[2C| )"  # as prompt_toolkit draws it
ROLES = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


def chat(model: Path, lines: str, *options: str | Path) -> Result:
    return run("chat", "-m", model, "-n", "6", *options, stdin=lines.encode())


def test_each_line_is_continued_and_an_empty_one_goes_on(tiny_edge: Path) -> None:
    model = gpt_edge.load(tiny_edge)
    talk = gpt_edge.Conversation(model, context="window")
    expected = [talk.complete(text, GREEDY).text for text in ("the rain", "", " in é")]
    result = chat(tiny_edge, "the rain\n\n in é\n")
    assert (result.code, result.err) == (0, "")
    assert result.out == "".join(f"{text}\n" for text in expected)


def test_a_backslash_continues_a_line(tiny_edge: Path) -> None:
    talk = gpt_edge.Conversation(gpt_edge.load(tiny_edge), context="window")
    expected = talk.complete("one\ntwo\\three", GREEDY).text
    assert chat(tiny_edge, "one\\\ntwo\\three").out == expected + "\n"


def test_a_template_makes_turns_messages(tiny_edge: Path, tmp_path: Path) -> None:
    model = gpt_edge.load(tiny_edge)
    talk = gpt_edge.Conversation(
        model, template=ChatTemplate(ROLES), system="be brief", context="window"
    )
    expected = [talk.complete(text, GREEDY).text for text in ("hi", "more<|endoftext|>")]
    template = tmp_path / "roles.jinja"
    template.write_text(ROLES)
    lines = "hi\n\nmore<|endoftext|>\n/stats\n"  # a chat takes no empty message
    result = chat(tiny_edge, lines, "--template", template, "--system", "be brief")
    assert result.code == 0
    assert result.out == "".join(f"{text}\n" for text in expected)
    _, counts, *_ = result.err.splitlines()  # the first says that a turn spells a special token
    assert counts == f"2 turns, {len(talk.ids)} tokens; the context holds 64"
    # what a user types never becomes a control token
    assert model.tokenizer.end_token not in talk.turns[1].ids


def test_special_tokens_are_read_where_asked_and_else_noted(tiny_edge: Path) -> None:
    model = gpt_edge.load(tiny_edge)
    for options in ((), ("--special",)):
        talk = gpt_edge.Conversation(model, context="window", special=bool(options))
        texts = ("a<|endoftext|>b", "c")
        expected = [talk.complete(text, GREEDY).text for text in texts]
        result = chat(tiny_edge, "a<|endoftext|>b\nc\n", *options)
        assert result.out == "".join(f"{text}\n" for text in expected)
        assert (model.tokenizer.end_token in talk.ids) == bool(options)
        note = "the text spells the special token '<|endoftext|>', which is read as plain text"
        assert result.err.count(note) == (not options)


def test_the_bundles_own_template_is_used(tiny_edge: Path, tmp_path: Path) -> None:
    path = write_with_template(tmp_path / "bundle", ROLES).path
    model = gpt_edge.load(path)
    talk = gpt_edge.Conversation(model, template=model.chat_template(), context="window")
    assert chat(path, "hi\n").out == talk.complete("hi", GREEDY).text + "\n"


def test_commands_change_take_back_and_keep(tiny_edge: Path, tmp_path: Path) -> None:
    model = gpt_edge.load(tiny_edge)
    talk = gpt_edge.Conversation(model, context="window")
    first = talk.complete("the rain", GREEDY).text
    shorter = gpt_edge.SamplingParams(max_new_tokens=2)
    second = talk.complete(" falls", shorter).text
    kept = tmp_path / "talk.state"
    lines = [
        "the rain",
        "/set max-new-tokens 2",
        " falls",
        f"/save {kept}",
        "/undo",
        f"/load {kept}",
        "/retry",
        "/params",
        "/set max_new_tokens none",
        "/params",
        "//x",
        "/exit",
        "never read",
    ]
    result = chat(tiny_edge, "\n".join(lines))
    assert result.code == 0
    talk.rewind(1)
    talk.complete(" falls", shorter)
    last = talk.complete("/x", max_new_tokens=400).text
    assert result.out == "".join(f"{text}\n" for text in (first, second, second, last))
    assert result.err.splitlines() == [
        f"2 turns kept in {kept}",
        "forgotten; 1 turn is left",
        f"2 turns continued from {kept}",
        "greedy replies are always the same: /set temperature 0.8 varies them",
        "greedy",
        "  max_new_tokens 2",
        "greedy",
        "  max_new_tokens 400",
    ]


def test_a_seed_gives_each_turn_and_retry_its_own(tiny_edge: Path) -> None:
    options = ["--temperature", "2", "--seed", "7"]
    one = chat(tiny_edge, "the rain\n/retry\n/stats\n", *options)
    two = chat(tiny_edge, "the rain\n/retry\n/stats\n", *options)
    assert one.out == two.out
    assert one.err.splitlines()[-1].endswith("seed 8")
    model = gpt_edge.load(tiny_edge)
    expected = [
        model.complete("the rain", max_new_tokens=6, temperature=2.0, seed=seed).text
        for seed in (7, 8)
    ]
    assert one.out == "".join(f"{text}\n" for text in expected)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/nope", "/nope is no command: /help lists them"),
        ("/set", "/set needs NAME VALUE"),
        ("/set temperature", "/set needs a name and a value"),
        ("/set temperature x", "temperature must be a finite number >= 0, got 'x'"),
        (f"/set temperature {'[' * 3000}", "temperature must be a finite number"),
        ("/set temprature 1", "'temprature' is no setting of SamplingParams; did you mean"),
        ("/set logit_bias {}x", "logit_bias must map token ids to numbers"),
        ("/save", "/save needs FILE"),
        ("/load nowhere.state", "nowhere.state"),
        ("/undo", "there is no turn to take back"),
        ("/retry", "there is no turn to take back"),
        ("/undo 3", "/undo takes nothing, got '3'"),
    ],
)
def test_a_wrong_line_is_one_line_and_ends_nothing(
    line: str, message: str, tiny_edge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = chat(tiny_edge, f"{line}\nthe rain\n")
    assert result.code == 1
    assert result.out.count("\n") >= 1  # the reply to the next line
    errors = [text for text in result.errors if text.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in result.err
    assert list(tmp_path.iterdir()) == []


def test_input_that_is_no_text_names_its_line(tiny_edge: Path) -> None:
    result = run("chat", "-m", tiny_edge, "-n", "2", stdin=b"a\n\xff\nb\n")
    assert result.code == 1
    assert "error: line 2 is not UTF-8: byte 0 is 0xff" in result.err
    result = run("chat", "-m", tiny_edge, "-n", "2", stdin=b"x" * (1 << 21) + b"\nb\n")
    assert "error: line 1 has more than 1 MiB" in result.err
    assert result.out.count("\n") == 1


def test_a_template_that_is_none_is_refused_by_name(tiny_edge: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jinja"
    for content, message in (
        (b"{% for %}", "bad.jinja: the chat template is not Jinja"),
        (b"\xff", "is not UTF-8"),
    ):
        bad.write_bytes(content)
        result = chat(tiny_edge, "a\n", "--template", bad)
        assert (result.code, result.out) == (1, "")
        assert message in result.err
    missing = chat(tiny_edge, "a\n", "--template", tmp_path / "none.jinja")
    assert missing.code == 1
    assert "none.jinja" in missing.err


def test_every_command_is_in_help(tiny_edge: Path) -> None:
    result = chat(tiny_edge, "/help\n")
    assert [line.split()[0] for line in result.err.splitlines()[:-1]] == list(COMMANDS)


@pytest.mark.skipif(sys.platform == "win32", reason="pexpect needs a pty")
def test_on_a_terminal_ctrl_c_stops_a_reply_and_ctrl_d_the_chat(
    tiny_edge: Path, tmp_path: Path
) -> None:
    pexpect = pytest.importorskip("pexpect")
    pytest.importorskip("prompt_toolkit")
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPO),
        "XDG_STATE_HOME": str(tmp_path),
        "PROMPT_TOOLKIT_NO_CPR": "1",
        "TERM": "xterm",
    }
    program = ["-m", "gpt_edge", "chat", "-m", str(tiny_edge), "-n", "1000000"]
    child = pexpect.spawn(
        sys.executable, program, env=environment, timeout=30, encoding="utf-8", dimensions=(30, 200)
    )
    child.expect("tiny-edge continues text, it does not answer")
    child.expect(PROMPT)
    child.send("the rain\r")
    child.expect("the rain")
    child.expect("\n.{200}")  # the reply runs
    child.send("\x03")
    child.expect("stopped")
    child.expect(PROMPT)
    child.send("/set max_new_tokens 2\r")
    child.expect(PROMPT)
    child.send("one\x1b\rtwo\r")  # Alt-Enter between the lines
    child.expect(PROMPT)
    child.send("/stats\r")
    child.expect("2 turns, ")
    child.expect("last reply: 2 tokens")
    child.send("half a line\x03")
    child.expect("Ctrl-D or /exit ends the chat")
    child.send("\x04")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    history = tmp_path / "gpt-edge" / "chat_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert stat.S_IMODE(history.parent.stat().st_mode) == 0o700
    assert "+one\n+two\n" in history.read_text("utf-8")


def test_a_home_that_cannot_be_written_keeps_no_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt_edge.cli.support.chat_input import history_file

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert history_file() is None
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = history_file()
    assert path is not None
    path.write_text("kept")
    path.chmod(0o644)
    assert history_file() == path
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("kept", 0o600)
    shutil.rmtree(path.parent)
