"""The progress of a fine-tuning run on stderr: a live bar on a terminal, and one line per epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID

from gpt_edge.training.progress import step_bar


class FinetuneProgress:
    """Shows the steps and epochs of a run."""

    def __init__(self, console: Console, bar: Progress, task: TaskID) -> None:
        self._console = console
        self._bar = bar
        self._task = task

    def step(self, n_done: int, loss: float) -> None:
        """Show a step: its loss."""
        self._bar.update(self._task, completed=n_done, loss=f"{loss:.3f}")

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Show an epoch: the record that is also written to metrics.jsonl."""
        figures = [
            f"{name.replace('_', ' ')} {value:.4f}"
            for name, value in record.items()
            if name.startswith("dev_")
        ]
        self._console.print(
            f"epoch {record['epoch']:>3}  train loss {record['train_loss']:.4f}  "
            f"{'  '.join(figures)}  "
            f"{record['seconds']:,.0f} s{'  *' if record['is_best'] else ''}",
            highlight=False,
            soft_wrap=True,
        )


@contextmanager
def show_finetune_progress(n_steps: int) -> Iterator[FinetuneProgress]:
    """Show the progress on stderr until the block ends."""
    console, bar, task = step_bar(n_steps, "loss {task.fields[loss]}")
    with bar:
        yield FinetuneProgress(console, bar, task)
