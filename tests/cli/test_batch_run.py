"""`generate --batch`: results in order, errors per line, and runs that were interrupted."""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.runner import COMMAND, run
from tests.support.tiny_model import bundle_path, open_generator

LINES = (
    '\ufeff{"prompt": "the end of", "max_new_tokens": 9, "id": "first"}',
    "",
    '{"prompt": "he was", "temperature": 1.5, "seed": 3, "max_new_tokens": 30}',
    "   ",
    '{"prompt": "the", "temprature": 1}',
    '{"prompt": "re", "stop": ["e"], "logit_bias": {"101": 50.0}, "bad_words": [[5], "x"]}',
    "{",
    '{"prompt": 3}',
    "[1]",
    '{"prompt": "the end", "top_p": 3}',
    '{"prompt": "' + "long " * 90 + '"}',
    '{"prompt": "an", "max_new_tokens": 4, "logprobs": 2}',
    '{"prompt": "and", "ignore_end_token": true, "max_new_tokens": 12}',
)
ERRORS = {
    5: "'temprature' is no setting of SamplingParams; did you mean temperature?",
    7: "the line is not JSON: Expecting property name",
    8: "prompt must be a string, got 3",
    9: "the line must be an object with a prompt, got [1]",
    10: "top_p must be a number above 0, at most 1, got 3",
    11: "the prompt has",
}


def arguments(source: Path | str, out: Path | None, *more: str) -> list[str]:
    model = ["generate", "-m", str(bundle_path()), "--threads", "1", "--batch", str(source)]
    return [*model, *([] if out is None else ["--out", str(out)]), *more]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(LINES), "utf-8")  # the last line has no line break
    return path


def results(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_each_line_has_its_result_in_order(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    ran = run(*arguments(source, out, "-n", "7", "--batch-size", "2"))
    assert ran.code == 1
    assert ran.out == ""
    assert ran.err == (
        f"{out}: 11 results, 6 of them errors\n"
        'error: 6 lines have an "error" in place of a text\n'
        f"hint: see {out}\n"
    )
    found = results(out)
    assert [one["line"] for one in found] == [1, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13]
    errors = {one["line"]: one["error"] for one in found if "error" in one}
    assert errors.keys() == ERRORS.keys()
    for line, message in ERRORS.items():
        assert errors[line].startswith(message)
    assert found[8]["hint"] == "shorten it, or keep its end with --truncate left"
    assert found[0]["id"] == "first"
    assert "id" not in found[1]
    generator = open_generator()
    for one, settings in (
        (found[0], {"prompt": "the end of", "max_new_tokens": 9}),
        (found[1], {"prompt": "he was", "temperature": 1.5, "seed": 3, "max_new_tokens": 30}),
        (found[9], {"prompt": "an", "max_new_tokens": 4, "logprobs": 2}),
    ):
        alone = generator.complete(**settings)  # type: ignore[arg-type]
        assert (one["text"], one["finish_reason"], one["seed"], one["completion_tokens"]) == (
            alone.text,
            alone.finish_reason,
            alone.seed,
            len(alone.ids),
        )
    assert len(found[9]["logprobs"]) == 4


def test_without_out_results_go_to_standard_output(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    run(*arguments(source, out))
    piped = run(*arguments("-", None), stdin=source.read_bytes())
    assert piped.code == 1
    assert piped.out == out.read_text("utf-8")


def test_a_run_that_was_cut_off_anywhere_continues_to_the_same_file(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "results.jsonl"
    run(*arguments(source, out))
    whole = out.read_bytes()
    moments = random.Random(0)
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    for place in (0, 1, 8, *ends[:3], ends[2] - 1, *moments.sample(range(len(whole)), 8)):
        out.write_bytes(whole[:place])
        assert run(*arguments(source, out)).code == 1
        assert out.read_bytes() == whole, place
    written = out.stat().st_mtime_ns
    assert run(*arguments(source, out)).code == 1  # nothing is left to do
    assert (out.read_bytes(), out.stat().st_mtime_ns) == (whole, written)


def test_lines_that_a_power_cut_turned_to_zeros_are_made_again(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    run(*arguments(source, out))
    whole = out.read_bytes()
    end = whole.index(b"\n") + 1
    for place in (end, end + 20):  # the beginning of a line, and its middle
        out.write_bytes(whole[:place] + b"\0" * 30 + whole[place + 30 :])
        assert run(*arguments(source, out)).code == 1  # a line of the source has an error
        assert out.read_bytes() == whole
    out.write_bytes(b"\0\0notes")
    assert "no result that was cut off" in run(*arguments(source, out)).err
    assert out.read_bytes() == b"\0\0notes"


def test_more_lines_are_appended_to_what_is_there(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    run(*arguments(source, out))
    before = out.read_bytes()
    with source.open("a") as file:
        file.write('\n{"prompt": "on", "max_new_tokens": 2}\n')
    run(*arguments(source, out))
    assert out.read_bytes().startswith(before)
    assert [one["line"] for one in results(out)][-2:] == [13, 14]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("settings", "has the result of another line, model or settings as its number 1"),
        ("input", "has the result of another line, model or settings as its number 2"),
        ("fewer", "has the result of another line, model or settings as its number 5"),
        ("text", "line 1, is no result of generate --batch"),
        ("nested", "line 1, is no result of generate --batch"),
        ("notes", "does not end with a whole line, and it is no result that was cut off"),
        ("folder", "is not a regular file"),
    ],
)
def test_a_file_of_something_else_is_left_alone(
    change: str, message: str, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "results.jsonl"
    more: list[str] = []
    if change == "text":
        out.write_text("a line\n")
    elif change == "nested":
        out.write_text("[" * 10_000 + "\n")
    elif change == "notes":
        out.write_text("my notes")
    elif change == "folder":
        out.mkdir()
    else:
        run(*arguments(source, out))
    if change == "settings":
        more = ["-n", "5"]
    elif change == "input":
        source.write_text(source.read_text("utf-8").replace("he was", "she was"), "utf-8")
    elif change == "fewer":
        source.write_text("\n".join(LINES[:6]), "utf-8")
    before = None if out.is_dir() else out.read_bytes()
    ran = run(*arguments(source, out, *more))
    assert ran.code == 1
    assert len(ran.errors) == 1
    assert message in ran.errors[0]
    assert out.is_dir() if before is None else out.read_bytes() == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["a prompt"], "PROMPT goes with a single text, not with --batch"),
        (["--echo"], "--echo goes with a single text, not with --batch"),
    ],
)
def test_what_goes_with_a_single_text_is_refused(
    more: list[str], message: str, source: Path
) -> None:
    ran = run(*arguments(source, None), *more)
    assert (ran.code, ran.errors) == (2, [f"error: {message}"])


def test_lines_that_outgrow_the_context_go_on_as_windows(tmp_path: Path) -> None:
    source = tmp_path / "prompts.jsonl"
    asked = {"prompt": "the end", "max_new_tokens": 100, "ignore_end_token": True}
    source.write_text(json.dumps(asked), "utf-8")
    ran = run(*arguments(source, None, "--context", "window", "--keep-first", "3"))
    (found,) = (json.loads(line) for line in ran.out.splitlines())
    alone = open_generator().complete(**asked, context="window", keep_first=3)
    assert (found["text"], found["finish_reason"]) == (alone.text, "length")
    ran = run(*arguments(source, None, "--keep-first", "3"))
    assert (ran.code, ran.out) == (2, "")
    assert ran.errors == ["error: keep_first needs the context 'window', got 'error'"]


def test_out_is_for_batches(tmp_path: Path) -> None:
    ran = run("generate", "x", "-m", str(bundle_path()), "--out", tmp_path / "results.jsonl")
    assert ran.code == 2
    assert ran.errors == ["error: --out is for --batch: a single text goes to standard output"]
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_is_too_long_is_an_error_of_that_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt_edge.generate.batch_lines.MAX_LINE_BYTES", 64)
    source = tmp_path / "prompts.jsonl"
    source.write_text('{"prompt": "' + "x" * 200 + '"}\n{"prompt": "he", "max_new_tokens": 2}\n')
    found = [json.loads(line) for line in run(*arguments(source, None)).out.splitlines()]
    assert [one["line"] for one in found] == [1, 2]
    assert "the line has more than" in found[0]["error"]
    assert "text" in found[1]


def test_a_constraint_of_a_line_is_met(tmp_path: Path) -> None:
    pytest.importorskip("llguidance")
    source = tmp_path / "prompts.jsonl"
    line = {"prompt": "he", "constraint": {"choice": ["yes", "no"]}}
    source.write_text(json.dumps(line) + "\n" + json.dumps(line | {"constraint": {"regex": "("}}))
    first, second = (json.loads(line) for line in run(*arguments(source, None)).out.splitlines())
    assert first["text"] in ("yes", "no")
    assert first["is_constraint_met"] is True
    assert second["error"] == "regex '(' is refused by llguidance: unclosed group"


def check_kills(n_kills: int, tmp_path: Path) -> None:
    """Kill runs when the file has grown by a random number of bytes, then let one end."""
    from tests.support.warm_process import PATIENCE, WarmProcess

    source, out = tmp_path / "prompts.jsonl", tmp_path / "results.jsonl"
    n_lines = 30 * n_kills
    lines = [
        {"prompt": f"the {number}", "max_new_tokens": 1 + number % 40, "seed": number, "top_k": 9}
        for number in range(n_lines)
    ]
    source.write_text("\n\n".join(map(json.dumps, lines)))
    expected = run(*arguments(source, None, "--batch-size", "4")).out.encode()
    moments = random.Random(n_kills)
    stages = []
    for number in range(n_kills):
        process = WarmProcess(COMMAND[2], *arguments(source, out, "--batch-size", "4"))
        wanted = len(expected) * (number + moments.random()) / (n_kills + 1)
        give_up = time.monotonic() + PATIENCE
        while process.returncode is None and time.monotonic() < give_up:
            if out.exists() and out.stat().st_size >= wanted:
                time.sleep(moments.uniform(0, 0.01))
                break
            time.sleep(0.001)
        process.kill()
        process.communicate(PATIENCE)
        assert expected.startswith(out.read_bytes())
        stages.append(out.stat().st_size)
    assert len(set(stages)) > n_kills // 2
    assert run(*arguments(source, out, "--batch-size", "4")).code == 0
    assert out.read_bytes() == expected


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_killed_runs_continue_without_a_lost_or_doubled_line(tmp_path: Path) -> None:
    check_kills(3, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_twenty_killed_runs_continue_without_a_lost_or_doubled_line(tmp_path: Path) -> None:
    check_kills(20, tmp_path)
