"""The progress of a run on stderr: a live bar on a terminal, and one line per evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

REFRESH_SECONDS = 0.2  # of the bar: steps may be faster than a terminal


class TrainingProgress:
    """Shows the steps and evaluations of a run."""

    def __init__(self, console: Console, bar: Progress, task: TaskID) -> None:
        self._console = console
        self._bar = bar
        self._task = task
        self._started: tuple[float, int] | None = None
        self._shown = 0.0

    @contextmanager
    def reading(self, name: str) -> Iterator[Callable[[int], None]]:
        """Show a pass over the text; yields a function to call with the number of bytes just read.
        A pass that reads nothing is not shown.
        """
        columns = (SpinnerColumn(), TextColumn(name), DownloadColumn(binary_units=True))
        with Progress(
            *columns, console=self._console, transient=True, disable=self._bar.disable
        ) as bar:
            task = bar.add_task(name, total=None)
            yield lambda n_bytes: bar.advance(task, n_bytes)

    def start(self) -> None:
        """Show the bar of steps from now on."""
        self._bar.start()

    def step(self, n_done: int, loss: float, n_tokens: int) -> None:
        """Show a step: its loss, and the tokens since the run began."""
        now = time.monotonic()
        if self._started is None:
            # the first step of a process compiles the model, and does not count for the rate
            self._started = (now, n_tokens)
        if self._bar.disable or now - self._shown < REFRESH_SECONDS:
            return
        self._shown = now
        rate = (n_tokens - self._started[1]) / max(1e-9, now - self._started[0])
        self._bar.update(self._task, completed=n_done, loss=f"{loss:.3f}", rate=f"{rate:,.0f}")

    def evaluation(self, record: dict[str, Any]) -> None:
        """Show an evaluation: the record that is also written to metrics.jsonl."""
        self.say(
            f"step {record['step']:>6}  {record['tokens'] / 1e6:6.2f}M tokens  "
            f"epoch {record['epoch']:>3}  "
            f"train {record['train_loss']:.4f}  valid {record['validation_loss']:.4f}  "
            f"{record['bits_per_byte']:.4f} bits/byte  "
            f"{record['tokens_per_second']:,.0f} tokens/s  "
            f"{record['seconds']:,.0f} s{'  *' if record['is_best'] else ''}"
        )

    def say(self, line: str) -> None:
        """Print one line above the bar."""
        self._console.print(line, highlight=False, soft_wrap=True, markup=False)


@contextmanager
def show_training_progress(n_steps: int) -> Iterator[TrainingProgress]:
    """Show the progress on stderr until the block ends."""
    console, bar, task = step_bar(n_steps, "loss {task.fields[loss]}  {task.fields[rate]} tokens/s")
    try:
        yield TrainingProgress(console, bar, task)
    finally:
        bar.stop()


def step_bar(n_steps: int, figures: str) -> tuple[Console, Progress, TaskID]:
    """A bar of steps with `figures` of the latest one, not yet started. It is shown only if stderr
    is a terminal.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("step {task.completed}/{task.total}"),
        BarColumn(),
        TextColumn(figures),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console, disable=not console.is_terminal)
    return console, bar, bar.add_task("steps", total=n_steps, loss="-", rate="-")
