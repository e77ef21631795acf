"""Sequences of like lengths together: batches in which little is padding. Knows nothing of
models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gpt_edge.arguments import check_count
from gpt_edge.arrays import IntArray

# of a batch: bounds its memory, and what falls out of the CPU's cache between two layers
MAX_POSITIONS = 2048
# from here on a larger batch is hardly faster, so it need not take longer sequences in
ENOUGH_POSITIONS = 256
MAX_PADDING = 1 / 16  # of the positions of a batch that is large enough


def batches(
    lengths: Sequence[int] | IntArray, batch: int, per_example: int = 1
) -> Iterator[IntArray]:
    """Yield the rows of each batch, every row once, short ones first; `per_example` neighbours stay
    neighbours.

    lengths: of each row; neighbours of one example have equal ones. batch: examples at most. Rows
    that are much longer than the batch's first one begin a new batch, once there is enough to
    compute. Raises ValueError for a batch below 1.
    """
    check_count("batch", batch)
    sizes = np.asarray(lengths, np.int64)[::per_example]
    order = np.argsort(sizes, kind="stable")
    start, total = 0, 0
    for end, example in enumerate(order):
        size, count = int(sizes[example]), end - start
        if count and _is_full(count, total, size, batch, per_example):
            yield _rows(order[start:end], per_example)
            start, total = end, 0
        total += size * per_example
    if order.size:
        yield _rows(order[start:], per_example)


def equal_batches(lengths: Sequence[int] | IntArray, batch: int) -> Iterator[IntArray]:
    """As `batches`, but a batch's rows have one length: for graphs that find a row's end by
    themselves, so that nothing may be padded.
    """
    sizes = np.asarray(lengths, np.int64)
    for size in np.unique(sizes):
        rows = np.flatnonzero(sizes == size)
        for chosen in batches(sizes[rows], batch):
            yield rows[chosen]


def _is_full(count: int, total: int, size: int, batch: int, per_example: int) -> bool:
    """Whether one more example of `size` tokens a row is too much for `count` examples of `total`
    tokens.
    """
    positions = (count + 1) * per_example * size
    padding = positions - total - per_example * size
    return (
        count >= batch
        or positions > MAX_POSITIONS
        or (total >= ENOUGH_POSITIONS and padding > MAX_PADDING * positions)
    )


def _rows(examples: IntArray, per_example: int) -> IntArray:
    return (examples[:, None] * per_example + np.arange(per_example)).reshape(-1)


def pad(sequences: Sequence[Sequence[int]]) -> tuple[IntArray, IntArray]:
    """Return ids int64 [S, T], padded at the ends with 0, and lengths int64 [S]."""
    lengths = np.array([len(ids) for ids in sequences], np.int64)
    padded = np.zeros((len(sequences), int(lengths.max())), np.int64)
    for row, ids in zip(padded, sequences, strict=True):
        row[: len(ids)] = ids
    return padded, lengths
