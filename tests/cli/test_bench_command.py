"""`gpt-edge bench`: what it prints, what it writes, what it refuses. The figures themselves are
tested in tests/unit.
"""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from gpt_edge.cli.support import console
from tests.conftest import REPO
from tests.support.runner import done, listing, run

TINY = [REPO / "tests" / "golden" / name for name in ("tiny-edge", "tiny-portable")]
SHORT = ("-r", "1", "--warmup", "0", "-p", "8", "-n", "4", "-t", "1")


def test_the_table_compares_the_bundles() -> None:
    text = done("bench", *TINY, *SHORT, "-d", "0,16").out
    assert "tiny-portable" in text
    found = re.findall(r"^(tiny-\w+) +((?:pp|tg)\d+(?: @ d\d+)?) ", text, re.MULTILINE)
    assert found == [
        (bundle.name, test) for test in ("pp8", "pp8 @ d16", "tg4", "tg4 @ d16") for bundle in TINY
    ]
    assert "ratio" in text
    assert "ready ms" in text
    assert "greedy µs/token" in text


def test_one_json_object_holds_all_of_it() -> None:
    values = done("bench", TINY[0], *SHORT, "-b", "1,2", "--profile", "--json").json
    assert [(row["test"], row["batch"]) for row in values["speed"]] == [
        ("pp8", 1),
        ("pp8", 2),
        ("tg4", 1),
        ("tg4", 2),
    ]
    for row in values["speed"]:
        assert row["tokens_per_second"] == pytest.approx(
            row["n_tokens"] * row["batch"] / row["seconds"], rel=1e-5
        )
    decode = values["speed"][2]
    assert decode["roofline_share"] == pytest.approx(
        decode["tokens_per_second"] * decode["bytes_per_token"] / values["loop"][0]["bandwidth"],
        rel=1e-5,
    )
    assert 0 < values["loop"][0]["greedy_seconds"] < 0.05
    (start,) = values["start"]
    assert 0 < start["model_seconds"] < start["ready_seconds"] < start["first_token_seconds"]
    assert {row["phase"] for row in values["profile"]} == {"pp8", "tg4"}
    assert values == json.loads(json.dumps(values))


@pytest.mark.parametrize("format", ["md", "csv", "jsonl"])
def test_other_formats_hold_the_same_rows(format: str) -> None:
    text = done("bench", TINY[0], *SHORT, "-n", "0", "--format", format).out
    if format == "csv":
        assert [row["test"] for row in csv.DictReader(io.StringIO(text))] == ["pp8", ""]
    elif format == "jsonl":
        assert [json.loads(line).get("table") for line in text.splitlines()] == [
            None,
            "speed",
            "start",
        ]
    else:
        assert text.count("\n| --- |") == 2


def test_a_plot_spreads_over_the_context(tmp_path: Path) -> None:
    path = tmp_path / "speed.png"
    values = done(
        "bench", TINY[0], "-r", "1", "--warmup", "0", "-n", "4", "-t", "1", "--plot", path, "--json"
    ).json
    assert values["plan"]["depths"] == [0, 7, 15, 22, 30, 37, 45, 52, 60]
    assert path.read_bytes().startswith(b"\x89PNG")


def test_every_stage_is_told_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stages: list[str] = []

    class Shown:
        def __enter__(self) -> object:
            return stages.append

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(console, "progress", lambda _: Shown())
    done("bench", TINY[0], *SHORT, "--profile")
    assert [stage.split()[0] for stage in stages] == [
        "starting",
        "starting",
        "loading",
        "round",
        "round",
        "profiling",
    ]
    assert "round 1 of 1, 1 threads: tg4, tiny-edge" in stages


@pytest.mark.parametrize(
    ("arguments", "code", "name"),
    [
        (("-p", "2000"), 1, "pp2000 needs a context of 2000 tokens, tiny-edge has 64"),
        (("-n", "64"), 1, "tg64"),
        (("-d", "60"), 1, "d60"),
        (("-r", "0"), 2, "repetitions must be a whole number from 1"),
        (("--warmup", "-1"), 2, "warm-up"),
        (("--format", "xml"), 2, "xml"),
        (("--format", "csv", "--json"), 2, "--json and --format csv"),
        (("-p", "0", "-n", "0"), 2, "nothing to measure"),
        (("-p", "many"), 2, "'many'"),
        (("-p", "4-1+1"), 2, "4-1+1"),
        (("-t", "0"), 2, "threads"),
        (("-b", "0"), 2, "batch"),
        (("-d", "-1"), 2, "'-1'"),
        (("--plot", "speed.svg"), 1, "speed.svg"),
        (("--plot", "missing/speed.png"), 1, "missing"),
        (("missing-bundle",), 1, "missing-bundle"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    arguments: tuple[str, ...],
    code: int,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("bench", TINY[0], *arguments)
    assert result.code == code, result
    assert result.out == ""
    (error,) = result.errors
    assert error.startswith("error: ")
    assert name in error
    assert listing(tmp_path) == {}


def test_a_missing_matplotlib_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    result = run("bench", TINY[0], "--plot", tmp_path / "speed.png")
    assert result.code == 1
    assert result.err.splitlines() == [
        "error: this needs the package 'matplotlib', which is not installed",
        "hint: pip install 'gpt-edge[plot]'",
    ]
