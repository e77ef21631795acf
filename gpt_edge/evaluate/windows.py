"""A sliding window over token ids: how a text longer than the context is read, as transformers'
documentation does it.

A window holds the `context` ids that the model reads, and the target of the last one. It moves on
by `stride` targets, and only these count, so each target counts once, and all but the first
`context` are predicted from at least context - stride + 1 ids. The smaller the stride, the more is
read again and the lower the loss; a perplexity without its stride cannot be compared. transformers
counts the last target with its window: its max_length is `context` + 1.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpt_edge.arrays import IntArray

# ids [2 .. context + 1], and how many of their targets, ids[1:], were counted before
Window = tuple[IntArray, int]


def check_window(context: int, stride: int) -> None:
    """Raise ValueError unless 1 <= stride <= context."""
    if context < 1:
        raise ValueError(f"window must be at least 1, got {context}")
    if not 1 <= stride <= context:
        raise ValueError(f"stride must be from 1 to the window of {context}, got {stride}")


class WindowCutter:
    """Cuts the ids of one document, which come in pieces, into windows; holds little more than one
    window of them.
    """

    def __init__(self, context: int, stride: int) -> None:
        check_window(context, stride)
        self._context, self._stride = context, stride
        self._held: IntArray = np.empty(0, np.int64)
        # targets of `_held` that a window has counted: 0 only before the first window
        self._n_counted = 0

    def push(self, ids: IntArray) -> Iterator[Window]:
        """Take the next ids [T], and give the windows that are full with them."""
        self._held = np.concatenate((self._held, ids))
        while (
            stop := self._n_counted + (self._stride if self._n_counted else self._context)
        ) < self._held.size:
            yield self._held[: stop + 1], self._n_counted
            kept = stop + self._stride - self._context  # the next window starts here
            self._held, self._n_counted = self._held[kept:], stop - kept

    def finish(self) -> Iterator[Window]:
        """Give what is left: a shorter window, or none."""
        if self._held.size - 1 > self._n_counted:
            yield self._held, self._n_counted
        self._held, self._n_counted = self._held[:0], 0


def windows(document: IntArray, context: int, stride: int | None = None) -> list[Window]:
    """Cut ids [N] into parts of at most `context` + 1, and say how many of each one's targets were
    counted before.

    stride: None moves by half a context. Raises ValueError unless 1 <= stride <= context.
    """
    cutter = WindowCutter(context, max(1, context // 2) if stride is None else stride)
    return [*cutter.push(document), *cutter.finish()]
