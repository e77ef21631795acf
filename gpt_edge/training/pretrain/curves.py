"""The figures of a run: metrics.jsonl, TensorBoard scalars, and a plot of the losses.

metrics.jsonl is the source of the other two. TensorBoard and matplotlib are imported only when they
are used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from gpt_edge.errors import require
from gpt_edge.system.atomic_files import atomic_write
from gpt_edge.system.disk import output_error

METRICS, PLOT, TENSORBOARD = "metrics.jsonl", "loss.png", "tensorboard"
SCALARS = ("train_loss", "validation_loss", "bits_per_byte", "learning_rate", "tokens_per_second")


class Curves:
    """The figures in a run's folder. Figures of steps after `step`, which the run will repeat, are
    dropped.
    """

    def __init__(self, folder: Path, step: int, has_tensorboard: bool) -> None:
        """Raises MissingDependencyError when TensorBoard is requested and not installed;
        OutputError.
        """
        self._folder = folder
        self._writer: Any = None
        records = list(read_records(folder / METRICS))
        done = [record for record in records if record["step"] <= step]
        if (folder / METRICS).exists():
            lines = "".join(json.dumps(record) + "\n" for record in done)
            atomic_write(folder / METRICS, lines.encode())
        if has_tensorboard:
            require("tensorboard", "tensorboard")
            from torch.utils.tensorboard import SummaryWriter

            # purge_step hides what a killed process wrote for steps that are repeated.
            self._writer = SummaryWriter(str(folder / TENSORBOARD), purge_step=step + 1)

    def add(self, record: dict[str, Any]) -> None:
        """Append a record to metrics.jsonl, and its numbers to TensorBoard."""
        path = self._folder / METRICS
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise output_error(error, path) from error
        if self._writer is not None:
            for name in SCALARS:
                self._writer.add_scalar(name, record[name], record["step"])
            self._writer.flush()

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()

    def draw(self, say: Callable[[str], None]) -> Path | None:
        """Plot the losses to loss.png and return its path; without matplotlib or an evaluation
        `say` why not, and return None.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError:
            say("no loss.png: matplotlib is not installed (pip install 'gpt-edge[plot]')")
            return None
        records = list(read_records(self._folder / METRICS))
        if not any(record["is_best"] for record in records):
            say(f"no loss.png: {self._folder / METRICS} holds no evaluation")
            return None
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        steps = [record["step"] for record in records]
        axes.plot(steps, [record["train_loss"] for record in records], label="training")
        axes.plot(steps, [record["validation_loss"] for record in records], label="validation")
        best = [record for record in records if record["is_best"]][-1]
        axes.plot(
            best["step"], best["validation_loss"], "o", label=f"best: {best['validation_loss']:.4f}"
        )
        axes.set(xlabel="step", ylabel="loss, nats per token")
        axes.set_title(self._folder.resolve().name, parse_math=False)
        axes.legend()
        axes.grid(alpha=0.3)
        picture = BytesIO()
        figure.savefig(picture, format="png", dpi=120)
        atomic_write(self._folder / PLOT, picture.getvalue())
        return self._folder / PLOT


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a metrics file; a line that a killed process left incomplete is skipped."""
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and "step" in record:
            yield record
