"""The plot of a search: size against loss, one point for each measured scheme and assignment. Needs
matplotlib.
"""

from __future__ import annotations

import io
from pathlib import Path

from gpt_edge.errors import require
from gpt_edge.export.budget.search import Outcome
from gpt_edge.system.atomic_files import atomic_write

MIN_KL = 1e-9  # of a logarithmic axis


def plot_outcome(outcome: Outcome, path: Path, title: str) -> None:
    """Write a PNG to `path`, replacing what is there. Raises MissingDependencyError,
    OutputError.
    """
    require("matplotlib", "plot")
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    figure = Figure(figsize=(7.5, 4.5), dpi=120)
    axes = figure.add_subplot()
    for point in outcome.points:
        x = point.n_bytes / 1e6
        y = max(point.measured.mean_kl, MIN_KL)
        is_best = point is outcome.best
        colour = "tab:green" if point.is_met else "tab:red"
        axes.plot(x, y, "*" if is_best else "o", color=colour, markersize=13 if is_best else 6)
        axes.annotate(point.label, (x, y), textcoords="offset points", xytext=(6, 4), fontsize=8)
    axes.set_yscale("log")
    if outcome.budget.max_kl is not None:
        axes.axhline(
            outcome.budget.max_kl, color="gray", linestyle="--", linewidth=1, label="--max-kl"
        )
        axes.legend(loc="best", fontsize=8)
    axes.set_xlabel("quantized weights, MB")
    axes.set_ylabel("mean KL from fp32, nats")
    axes.set_title(f"{title}: green meets the budget, the star is chosen", fontsize=10)
    axes.grid(True, which="both", alpha=0.25)
    figure.tight_layout()
    content = io.BytesIO()
    # no version: the same points, the same bytes
    figure.savefig(content, format="png", metadata={"Software": None})
    atomic_write(path, content.getvalue())
