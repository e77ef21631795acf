"""How a run is going, on stderr: a live bar on a terminal, one line per evaluation anywhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class Report:
    """Shows steps and evaluations."""

    def __init__(self, console: Console, bar: Progress, task: TaskID) -> None:
        self._console, self._bar, self._task = console, bar, task
        self._started: tuple[float, int] | None = None

    def step(self, n_done: int, loss: float, n_tokens: int) -> None:
        """After each step: `loss` of that step, `n_tokens` since the run began."""
        now = time.monotonic()
        if self._started is None:
            self._started = (now, n_tokens)  # the first step of a process compiles: it would spoil the rate
        rate = (n_tokens - self._started[1]) / max(1e-9, now - self._started[0])
        self._bar.update(self._task, completed=n_done, loss=f"{loss:.3f}", rate=f"{rate:,.0f}")

    def evaluation(self, record: dict[str, Any]) -> None:
        """After each evaluation: the record that also goes to metrics.jsonl."""
        self._console.print(
            f"step {record['step']:>6}  {record['tokens'] / 1e6:6.2f}M tokens  epoch {record['epoch']:>3}  "
            f"train {record['train_loss']:.4f}  valid {record['validation_loss']:.4f}  "
            f"{record['bits_per_byte']:.4f} bits/byte  {record['seconds']:,.0f} s{'  *' if record['is_best'] else ''}",
            highlight=False,
            soft_wrap=True,
        )


@contextmanager
def show_progress(n_steps: int) -> Iterator[Report]:
    """Yield a Report that shows on stderr until the block ends."""
    console = Console(stderr=True)
    columns = (
        TextColumn("step {task.completed}/{task.total}"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]}  {task.fields[rate]} tokens/s"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console, disable=not console.is_terminal)
    task = bar.add_task("train", total=n_steps, loss="-", rate="-")
    with bar:
        yield Report(console, bar, task)
