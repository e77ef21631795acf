"""A BenchReport as text: tables for a terminal or in Markdown, or every figure as CSV, JSON or JSON
lines. Prints nothing.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from gpt_edge.bench.figures import (
    BenchReport,
    EnergyRow,
    Engine,
    LoopRow,
    ProfileRow,
    Row,
    SpeedRow,
    Spread,
    StartRow,
    flat,
)

Format = Literal["table", "md", "csv", "json", "jsonl"]
FORMATS: tuple[Format, ...] = ("table", "md", "csv", "json", "jsonl")

Column = tuple[str, Callable[[Any], str]]  # heading, and a row's cell
Draw = Callable[[Sequence[Sequence[str]]], str]  # a table's cells as text


def render(report: BenchReport, format: Format) -> str:
    """Return the whole report. "table" and "md" are rounded; the others are not, and have the
    spread of every figure.

    json: one object. jsonl: the run, then one row per line. csv: one row per line with the columns
    of all tables; `table` names the row's. Raises ValueError for another format.
    """
    match format:
        case "table":
            return _text(report, _aligned)
        case "md":
            return _text(report, _markdown)
        case "csv":
            return _csv(report)
        case "json":
            rows = {
                name: [_plain(flat(row)) for row in table]
                for name, table in report.tables().items()
            }
            return json.dumps({**_run(report), **rows}, allow_nan=False)
        case "jsonl":
            lines = [_run(report)] + [{"table": name, **_plain(row)} for name, row in _rows(report)]
            return "\n".join(json.dumps(line, allow_nan=False) for line in lines)
        case _:
            raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")


def _run(report: BenchReport) -> dict[str, Any]:
    run = {"machine": dict(report.machine), "plan": dataclasses.asdict(report.plan)}
    return {**run, "no_energy": report.no_energy} if report.no_energy else run


def _rows(report: BenchReport) -> list[tuple[str, dict[str, Any]]]:
    return [(name, flat(row)) for name, table in report.tables().items() for row in table]


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Figures with seven digits: more would be noise."""
    return {
        name: float(f"{value:.7g}") if isinstance(value, float) else value
        for name, value in values.items()
    }


def _csv(report: BenchReport) -> str:
    rows = [{"table": name, **_plain(row)} for name, row in _rows(report)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().rstrip("\n")


def _text(report: BenchReport, draw: Draw) -> str:
    profiled = dict.fromkeys((row.engine, row.phase) for row in report.profile)
    sections = [
        header(report),
        speed_section(report, draw),
        start_section(report, draw),
        loop_section(report, draw),
        energy_section(report, draw),
        *(profile_section(report, engine, phase, draw) for engine, phase in profiled),
    ]
    return "\n\n".join(section for section in sections if section)


def header(report: BenchReport) -> str:
    """Return one line: the versions, the machine and the date."""
    machine = report.machine
    versions = (
        f"gpt-edge {machine['gpt_edge']}, onnxruntime {machine['onnxruntime']}, "
        f"numpy {machine['numpy']}, Python {machine['python']}"
    )
    return (
        f"{versions}; {machine['system']}, {machine['cpu']}, {machine['cpus']} CPUs; "
        f"{machine['date']}"
    )


def speed_section(report: BenchReport, draw: Draw) -> str:
    """Return the table of prompts and decoding, and a paragraph that explains its columns."""
    plan = report.plan
    table = draw(_cells(report.speed, _speed_columns(_is_comparison(report))))
    note = (
        f"Medians of {plan.repetitions} rounds after {plan.warmup} of warm-up; ± is the median "
        "absolute deviation. ms: a prompt until its first token, or one step of decoding. "
        "of limit: bytes read per second as a fraction of the memory bandwidth."
    )
    if _is_comparison(report):
        note += f" ratio: how many times as fast as {report.start[0].engine.bundle}."
    return f"{table}\n\n{note}"


def start_section(report: BenchReport, draw: Draw) -> str:
    """Return the table of fresh processes: time until ready, until the first token, memory."""
    return draw(_cells(report.start, _start_columns(report, _is_comparison(report))))


def loop_section(report: BenchReport, draw: Draw) -> str:
    """Return the table of the time outside onnxruntime, or "" if nothing was decoded."""
    return draw(_cells(report.loop, LOOP_COLUMNS)) if report.loop else ""


def energy_section(report: BenchReport, draw: Draw) -> str:
    """Return the table of joules, why there is none, or "" if it was not requested."""
    if report.no_energy:
        return f"energy: {report.no_energy}"
    return draw(_cells(report.energy, ENERGY_COLUMNS)) if report.energy else ""


def profile_section(report: BenchReport, engine: Engine, phase: str, draw: Draw) -> str:
    """Return the operators of one engine and one test by their time, under a line with the sums."""
    rows = [row for row in report.profile if (row.engine, row.phase) == (engine, phase)]
    unit = "prompt" if phase.startswith("pp") else "token"
    profiled = _scaled(sum(row.seconds for row in rows), 1e-6)
    title = (
        f"{engine.bundle}, {_threads(engine.threads)}, {phase}: time of a {unit} by operator, "
        f"{profiled} µs inside onnxruntime while profiled "
        f"(without: {_unprofiled(report, engine, phase)} µs, inside and outside)"
    )
    return f"{title}\n\n{draw(_cells(rows, _profile_columns(unit)))}"


def _unprofiled(report: BenchReport, engine: Engine, phase: str) -> str:
    """Microseconds of a prompt or of a token of the same test, from the table of speeds."""
    for row in report.speed:
        if (row.engine, row.test, row.batch) == (engine, phase, 1):
            return _scaled(_unit_seconds(row), 1e-6)
    return ""


def _is_comparison(report: BenchReport) -> bool:
    return len({row.engine.bundle for row in report.start}) > 1


def _unit_seconds(row: SpeedRow) -> float:
    """Median seconds of a whole prompt, or of one decoded token."""
    n_units = row.n_tokens if row.test.startswith("tg") else 1
    return row.seconds.median / n_units


def _speed_columns(is_comparison: bool) -> list[Column]:
    columns: list[tuple[str, Callable[[SpeedRow], str]]] = [
        ("bundle", lambda row: row.engine.bundle),
        ("test", lambda row: row.test),
        ("threads", lambda row: str(row.engine.threads)),
        ("batch", lambda row: str(row.batch)),
        ("tokens/s", lambda row: _short(row.tokens_per_second.median)),
        ("±", lambda row: _short(row.tokens_per_second.mad)),
        ("min", lambda row: _short(min(row.tokens_per_second.values))),
        ("max", lambda row: _short(max(row.tokens_per_second.values))),
        ("ms", lambda row: _short(1e3 * _unit_seconds(row))),
        ("MB/token", lambda row: _scaled(row.bytes_per_token, 1e6)),
        ("of limit", lambda row: "" if row.roofline_share is None else f"{row.roofline_share:.0%}"),
    ]
    return columns + ([("ratio", lambda row: _ratio(row.ratio))] if is_comparison else [])


def _start_columns(report: BenchReport, is_comparison: bool) -> list[Column]:
    n_prompt = report.start[0].prompt_tokens if report.start else 0
    n_context = report.start[0].context_tokens if report.start else 0
    columns: list[tuple[str, Callable[[StartRow], str]]] = [
        ("fresh process", lambda row: row.engine.bundle),
        ("threads", lambda row: str(row.engine.threads)),
        ("ready ms", lambda row: _scaled(row.ready_seconds.median, 1e-3)),
        ("±", lambda row: _scaled(row.ready_seconds.mad, 1e-3)),
        ("interpreter", lambda row: _scaled(row.interpreter_seconds.median, 1e-3)),
        ("imports", lambda row: _scaled(row.imports_seconds.median, 1e-3)),
        ("model", lambda row: _scaled(row.model_seconds.median, 1e-3)),
        (f"first token of pp{n_prompt}", lambda row: _scaled(row.first_token_seconds.median, 1e-3)),
        (
            f"peak MB at {n_context}",
            lambda row: _scaled(row.peak_bytes.median if row.peak_bytes else None, 1e6),
        ),
    ]
    return columns + ([("ratio", lambda row: _ratio(row.ratio))] if is_comparison else [])


LOOP_COLUMNS: list[tuple[str, Callable[[LoopRow], str]]] = [
    ("outside onnxruntime", lambda row: row.engine.bundle),
    ("threads", lambda row: str(row.engine.threads)),
    ("greedy µs/token", lambda row: _scaled(row.greedy_seconds.median, 1e-6)),
    ("±", lambda row: _scaled(row.greedy_seconds.mad, 1e-6)),
    ("top-k 40 µs/token", lambda row: _scaled(row.top_k_seconds.median, 1e-6)),
    ("±", lambda row: _scaled(row.top_k_seconds.mad, 1e-6)),
    ("bandwidth GB/s", lambda row: _scaled(row.bandwidth, 1e9)),
    ("of MB", lambda row: _scaled(row.buffer_bytes, 1e6)),
]


ENERGY_COLUMNS: list[tuple[str, Callable[[EnergyRow], str]]] = [
    ("energy of all packages", lambda row: row.engine.bundle),
    ("threads", lambda row: str(row.engine.threads)),
    ("J/token", lambda row: _short(row.joules_per_token)),
]


def _profile_columns(unit: str) -> list[Column]:
    columns: list[tuple[str, Callable[[ProfileRow], str]]] = [
        ("operator", lambda row: row.operator),
        (f"calls/{unit}", lambda row: f"{row.calls:g}"),
        (f"µs/{unit}", lambda row: _scaled(row.seconds, 1e-6)),
        ("share", lambda row: f"{row.share:.1%}"),
    ]
    return columns


def _cells(rows: Sequence[Row], columns: Sequence[Column]) -> list[list[str]]:
    return [[heading for heading, _ in columns]] + [
        [cell(row) for _, cell in columns] for row in rows
    ]


def _aligned(cells: Sequence[Sequence[str]]) -> str:
    """Aligned columns, the first one to the left."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for first, *others in cells:
        padded = [
            first.ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)),
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _markdown(cells: Sequence[Sequence[str]]) -> str:
    heading, *rows = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    rule = ["---", *["---:" for _ in heading[1:]]]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, rule, *rows))


def _threads(n: int) -> str:
    return f"{n} thread{'s' if n > 1 else ''}"


def _ratio(ratio: Spread | None) -> str:
    return "1" if ratio is None else f"{ratio.median:.2f}"


def _scaled(value: float | None, unit: float) -> str:
    return "" if value is None else _short(value / unit)


def _short(value: float) -> str:
    """Three digits, and whole numbers from a hundred on: 12,345, 123, 12.3, 1.23."""
    if not math.isfinite(value) or abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"
