"""A sliding window over token ids: how a text longer than the context is scored, as in
transformers' documentation ("Perplexity of fixed-length models").

A window holds the `context` ids that the model reads, and the target of the last one. It moves by
`stride` targets, and only these count, so each target counts once, and all but the first `context`
are predicted from at least context - stride + 1 ids:

    ids     0 1 2 3 4 5 6 7 8     context 4, stride 2
    first   i t t t t             t: a target that counts
    second      i . . t t         i, .: read, and not counted again
    third           i . . t t

The smaller the stride, the more is read again and the lower the loss; a perplexity without its
stride cannot be compared. transformers counts the last target with its window: its max_length is
`context` + 1.
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
        self._context = context
        self._stride = stride
        self._held: IntArray = np.empty(0, np.int64)
        self._n_counted = 0  # targets of `_held` that the windows before counted

    def push(self, ids: IntArray) -> Iterator[Window]:
        """Take the next ids [T], and yield the windows that they fill."""
        self._held = np.concatenate((self._held, ids))
        while True:
            window_end = self._context + 1
            if window_end > self._held.size:
                return
            yield self._held[:window_end], self._n_counted
            self._drop(self._stride)

    def _drop(self, next_start: int) -> None:
        """Start the next window at `next_start` of the one before."""
        self._held = self._held[next_start:]
        self._n_counted = self._context - next_start

    def finish(self) -> Iterator[Window]:
        """Yield what is left: a shorter window, or none."""
        if self._held.size - 1 > self._n_counted:
            yield self._held, self._n_counted
        self._held = self._held[:0]
        self._n_counted = 0


def windows(document: IntArray, context: int, stride: int | None = None) -> list[Window]:
    """The windows of ids [N], each of at most `context` + 1 ids, with the number of its targets
    that were counted before.

    stride: None moves by half a context. Raises ValueError unless 1 <= stride <= context.
    """
    cutter = WindowCutter(context, max(1, context // 2) if stride is None else stride)
    return [*cutter.push(document), *cutter.finish()]
