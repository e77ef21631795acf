"""A report in every format, and the figures in it: made up, so that every number can be told."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from gpt_edge.bench.figures import (
    BenchReport,
    Engine,
    LoopRow,
    ProfileRow,
    SpeedRow,
    StartRow,
    flat,
    spread,
)
from gpt_edge.bench.plan import Plan
from gpt_edge.bench.plot import check_target, write_plot
from gpt_edge.bench.report import FORMATS, render
from gpt_edge.errors import MissingDependencyError, OutputError

MACHINE = {
    "gpt_edge": "0.1.0",
    "onnxruntime": "1.31.1",
    "numpy": "2.4",
    "python": "3.11",
    "system": "Linux x86_64",
    "cpu": "a CPU",
    "cpus": 2,
    "default_threads": 2,
    "date": "2026-01-01",
}


def speed_row(bundle: str, test: str = "tg8", depth: int = 0, is_first: bool = True) -> SpeedRow:
    seconds = spread([2.0, 1.0, 4.0])
    ratio = None if is_first else spread([1.0, 1.5, 1.25])
    return SpeedRow(
        Engine(bundle, "int8", "edge", 2),
        1,
        test,
        depth,
        8,
        seconds.per(8),
        seconds,
        5e6,
        0.5,
        ratio,
    )


def start_row(bundle: str) -> StartRow:
    one = spread([0.25])
    return StartRow(Engine(bundle, "int8", "edge", 2), one, one, one, one, one, 32, None, 512, None)


def report(*bundles: str) -> BenchReport:
    speed = tuple(speed_row(bundle, is_first=bundle == bundles[0]) for bundle in bundles)
    engine = speed[0].engine
    profile = (
        ProfileRow(engine, "tg8", "MatMulNBits", 21, 0.0004, 0.75),
        ProfileRow(engine, "tg8", "Gelu", 5, 1e-5, 0.25),
    )
    loop = (LoopRow(engine, spread([5e-5]), spread([1e-4]), 1.5e10, 5_000_000),)
    return BenchReport(
        MACHINE, Plan((), (8,), repetitions=3), speed, tuple(map(start_row, bundles)), loop, profile
    )


def test_a_spread_is_its_middle_and_how_far_the_others_are() -> None:
    values = spread([10.0, 1.0, 4.0, 3.0, 5.0])
    assert (values.median, values.mad) == (4.0, 1.0)
    assert spread([8.0, 9.0]).over(spread([2.0, 3.0])).values == (4.0, 3.0)
    assert spread([2.0, 4.0]).per(8).values == (4.0, 2.0)


def test_a_row_is_flat_with_its_spread() -> None:
    values = flat(speed_row("one"))
    assert values["bundle"] == "one"
    assert (
        values["seconds"],
        values["seconds_mad"],
        values["seconds_min"],
        values["seconds_max"],
    ) == (2, 1, 1, 4)
    assert values["tokens_per_second"] == 4
    assert "engine" not in values
    assert json.loads(json.dumps(values)) == values


def test_json_holds_every_row_and_how_it_was_measured() -> None:
    values = json.loads(render(report("one", "two"), "json"))
    assert {name: len(values[name]) for name in ("speed", "start", "loop", "profile")} == {
        "speed": 2,
        "start": 2,
        "loop": 1,
        "profile": 2,
    }
    assert values["machine"] == MACHINE
    assert values["plan"]["repetitions"] == 3
    assert values["speed"][1]["ratio"] == 1.25
    assert values["start"][0]["peak_bytes"] is None


def test_json_lines_are_the_run_and_one_row_each() -> None:
    first, *rows = [json.loads(line) for line in render(report("one", "two"), "jsonl").splitlines()]
    assert first["plan"]["new_tokens"] == [8]
    assert [row["table"] for row in rows] == [
        "speed",
        "speed",
        "start",
        "start",
        "loop",
        "profile",
        "profile",
    ]


def test_csv_has_the_same_columns_in_every_line() -> None:
    rows = list(csv.DictReader(io.StringIO(render(report("one", 'a,"b"'), "csv"))))
    assert [row["table"] for row in rows] == [
        "speed",
        "speed",
        "start",
        "start",
        "loop",
        "profile",
        "profile",
    ]
    assert rows[1]["bundle"] == 'a,"b"'
    assert float(rows[0]["tokens_per_second"]) == 4
    assert rows[0]["ready_seconds"] == ""
    assert None not in rows[0]


@pytest.mark.parametrize("format", ["table", "md"])
def test_tables_show_the_figures_in_their_units(format: str) -> None:
    text = render(report("one", "two"), format)  # type: ignore[arg-type]
    line = next(line for line in text.splitlines() if "tg8" in line)
    assert re.findall(r"\d[\d.]*%?", line.replace("tg8", ""))[2:] == [
        "4.00",
        "2.00",
        "2.00",
        "8.00",
        "250",
        "5.00",
        "50%",
        "1",
    ]
    assert "two, tg8" not in text
    assert "1.25" in text
    assert "MatMulNBits" in text
    assert "75.0%" in text
    assert "410 µs inside onnxruntime while profiled (without: 250,000 µs" in text
    assert "how many times as fast as one" in text


def test_every_line_of_a_markdown_table_has_as_many_cells() -> None:
    text = render(report("one", "a|b"), "md")
    tables = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    assert len(tables) == 4
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_a_single_bundle_has_no_ratio() -> None:
    assert "ratio" not in render(report("one"), "table")


def test_another_format_is_refused() -> None:
    assert FORMATS == ("table", "md", "csv", "json", "jsonl")
    with pytest.raises(ValueError, match="xml"):
        render(report("one"), "xml")  # type: ignore[arg-type]


def test_the_plot_is_a_png(tmp_path: Path) -> None:
    figures = report("one")
    rows = tuple(speed_row("one", f"tg8 @ d{depth}", depth) for depth in (40, 0, 20))
    path = tmp_path / "speed.png"
    path.write_bytes(b"an older one")
    write_plot(BenchReport(MACHINE, figures.plan, rows, figures.start, ()), path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    assert [found.name for found in tmp_path.iterdir() if found.suffix == ".png"] == ["speed.png"]


def test_a_plot_of_prompts_alone_is_refused(tmp_path: Path) -> None:
    figures = report("one")
    with pytest.raises(OutputError, match="nothing to plot"):
        write_plot(
            BenchReport(MACHINE, figures.plan, (speed_row("one", "pp8"),), figures.start, ()),
            tmp_path / "x.png",
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.svg", "x", "folder.png", "missing/x.png"])
def test_a_place_for_the_plot_is_checked_before_any_work(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError):
        check_target(tmp_path / name)


def test_a_missing_matplotlib_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError) as caught:
        check_target(tmp_path / "x.png")
    assert caught.value.hint == "pip install 'gpt-edge[plot]'"
