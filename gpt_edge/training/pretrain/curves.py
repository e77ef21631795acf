"""A run's figures for people: metrics.jsonl, TensorBoard scalars, and the losses as a picture.

metrics.jsonl is the source of the other two. TensorBoard and matplotlib are asked for only when
they are to be used.
"""

from __future__ import annotations

import json
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
    """The figures in a run's folder. `step` is the run's: figures of later steps, which it will do
    again, are dropped.
    """

    def __init__(self, folder: Path, step: int, has_tensorboard: bool) -> None:
        """Raises MissingDependencyError when TensorBoard is wanted and not installed;
        OutputError.
        """
        self._folder = folder
        self._writer: Any = None
        records = list(read_records(folder / METRICS))
        kept = [record for record in records if record["step"] <= step]
        if (folder / METRICS).exists():
            atomic_write(
                folder / METRICS, "".join(json.dumps(record) + "\n" for record in kept).encode()
            )
        if has_tensorboard:
            require("tensorboard", "tensorboard")
            from torch.utils.tensorboard import SummaryWriter

            # purge_step hides what a killed process wrote of steps that are done again.
            self._writer = SummaryWriter(str(folder / TENSORBOARD), purge_step=step + 1)

    def add(self, record: dict[str, Any]) -> None:
        """Append a record to metrics.jsonl, and its numbers to TensorBoard."""
        path = self._folder / METRICS
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise output_error(error, path) from error
        if self._writer is not None:
            for name in SCALARS:
                self._writer.add_scalar(name, record[name], record["step"])
            self._writer.flush()

    def close(self) -> None:
        """Let go of TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()

    def draw(self, say: Callable[[str], None]) -> Path | None:
        """Draw the losses into loss.png and return its path; None, with one line, where there is no
        matplotlib.
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
    """The records of a metrics file; half a line of a killed writer is left out."""
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "step" in record:
            yield record
