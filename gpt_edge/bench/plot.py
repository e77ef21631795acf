"""Tokens per second over the length of the context, as a PNG. Needs matplotlib, the extra
`plot`.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from gpt_edge.bench.figures import BenchReport, SpeedRow
from gpt_edge.errors import OutputError, require
from gpt_edge.system.atomic_files import atomic_write

WIDTH, HEIGHT, DPI = 7.0, 4.2, 150


def check_target(path: Path) -> None:
    """Raise MissingDependencyError without matplotlib and OutputError for an invalid path, before
    minutes of work.
    """
    require("matplotlib", "plot")
    if path.suffix.lower() != ".png":
        raise OutputError(f"{path} does not end in .png, the only format of plots")
    if path.is_dir():
        raise OutputError(f"{path} is a folder")
    if not path.parent.is_dir():
        raise OutputError(f"{path.parent} is not a folder", hint=f"mkdir -p {path.parent}")


def write_plot(report: BenchReport, path: Path) -> None:
    """Plot the decode rows of `report`: one line for each bundle, number of threads and batch, and
    a band from minimum to maximum.

    Raises the errors of `check_target`, and OutputError if nothing was decoded.
    """
    check_target(path)
    lines: dict[str, list[SpeedRow]] = {}
    for row in report.speed:
        if row.test.startswith("tg"):
            lines.setdefault(_label(row), []).append(row)
    if not lines:
        raise OutputError(
            "there is nothing to plot: no decoding was measured",
            hint="measure some new tokens",
            cli_hint="leave out -n 0",
        )
    atomic_write(path, _draw(lines, report.machine))


def _label(row: SpeedRow) -> str:
    threads = f"{row.engine.threads} thread{'s' if row.engine.threads > 1 else ''}"
    batch = f", batch {row.batch}" if row.batch > 1 else ""
    return f"{row.engine.bundle}, {threads}{batch}, tg{row.n_tokens}"


def _draw(lines: dict[str, list[SpeedRow]], machine: Any) -> bytes:
    figure_type = require("matplotlib.figure", "plot").Figure
    figure = figure_type(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.subplots()
    for label, rows in lines.items():
        rows = sorted(rows, key=lambda row: row.depth)
        contexts = [row.depth + row.n_tokens / 2 for row in rows]
        (line,) = axes.plot(
            contexts, [row.tokens_per_second.median for row in rows], marker="o", label=label
        )
        axes.fill_between(
            contexts,
            [min(row.tokens_per_second.values) for row in rows],
            [max(row.tokens_per_second.values) for row in rows],
            color=line.get_color(),
            alpha=0.2,
        )
    axes.set_xlabel("tokens in the context")
    axes.set_ylabel("decoded tokens per second")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    axes.set_title(f"{machine['cpu']}, onnxruntime {machine['onnxruntime']}", fontsize="small")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI)
    return picture.getvalue()
