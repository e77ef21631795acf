"""A plot of the confusion matrix. Needs the extra `plot` (matplotlib), which is imported only to
draw.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpt_edge.arrays import IntArray
from gpt_edge.errors import require
from gpt_edge.system.atomic_files import atomic_write

MAX_NUMBERED = 12  # classes; with more, the cells show no counts
INCHES_PER_CLASS = 0.16


def draw_confusion(confusion: IntArray, labels: Sequence[str], title: str, path: Path) -> None:
    """Write a PNG: a row per true class, a column per predicted one; the colour is the fraction of
    the row.

    Raises MissingDependencyError without matplotlib, OutputError.
    """
    figure_module = require("matplotlib.figure", "plot")
    n = len(labels)
    inches = min(40.0, max(4.5, 2.5 + INCHES_PER_CLASS * n))
    figure = figure_module.Figure(figsize=(inches, inches), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    fractions = confusion / np.maximum(1, confusion.sum(1, keepdims=True))
    image = axes.imshow(fractions, cmap="Blues", vmin=0.0, vmax=1.0)
    size = 9 if n <= MAX_NUMBERED else 6
    axes.set_xticks(range(n), labels, rotation=90, fontsize=size, parse_math=False)  # a $ is a $
    axes.set_yticks(range(n), labels, fontsize=size, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"{title}: {np.trace(confusion):,} of {confusion.sum():,} right")
    if n <= MAX_NUMBERED:
        for row in range(n):
            for column in range(n):
                colour = "white" if fractions[row, column] > 0.5 else "black"
                axes.text(
                    column,
                    row,
                    f"{confusion[row, column]:,}",
                    ha="center",
                    va="center",
                    color=colour,
                )
    figure.colorbar(image, ax=axes, shrink=0.7, label="fraction of the true class")
    content = io.BytesIO()
    figure.savefig(content, format="png")
    atomic_write(path, content.getvalue())
