"""RowDraws: the tokens of a batch's rows, drawn side by side where a draw takes long.

A draw from a whole vocabulary is passes of float64 arithmetic over 50,000 numbers, 0.8 ms, which
numpy does without the interpreter's lock. Each row keeps its own random numbers, so who draws it
changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from gpt_edge.arrays import FloatArray
from gpt_edge.generate.completion import TokenChoice

MIN_TOKENS = 1 << 13  # of a vocabulary; below, waking a thread costs what it saves

Drawn = int | Exception | None


class RowDraws:
    """Draws for the thread that steps a batch, and in threads of its own. Not thread-safe."""

    def __init__(self, threads: int) -> None:
        """threads: that draw, the caller's among them."""
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None

    def draw(self, choices: Sequence[TokenChoice], logits: Sequence[FloatArray]) -> list[Drawn]:
        """For each row the id that its choice draws after its logits [V], or the error that it
        raises; None where the row is to be chosen in its turn: it is quick, or calls what a caller
        gave.
        """
        drawn: list[Drawn] = [None] * len(choices)
        slow = [row for row, choice in enumerate(choices) if choice.is_slow_draw(MIN_TOKENS)]
        n = min(self._threads, len(slow))
        if n < 2:
            return drawn

        def work(rows: list[int]) -> None:
            for row in rows:
                try:
                    drawn[row] = choices[row].draw(logits[row])
                except Exception as error:
                    drawn[row] = error

        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads - 1, "RowDraws")
        others = [self._pool.submit(work, slow[first::n]) for first in range(1, n)]
        work(slow[::n])
        for other in others:
            other.result()
        return drawn

    def close(self) -> None:
        """End its threads; the next draw starts them again."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
