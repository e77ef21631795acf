"""Scorer: ids in, logits of the rows that are asked for out, in blocks. What `evaluate` wants of a
model, and a Session as one.

Torch's twin is `gpt_edge/reference/scoring.py`. Blocks are alike in all scorers, so that two can be
read side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np

from gpt_edge.arrays import FloatArray, IntArray
from gpt_edge.config import GPTConfig
from gpt_edge.errors import NumericError

if TYPE_CHECKING:
    # training scores in torch and has no use for onnxruntime
    from gpt_edge.runtime.session import Session

# logits at a time: 51 MB for 50,257 tokens; a session's own chunk, so the sums are those of
# generating
ROWS = 256


class Scorer(Protocol):
    """A model that can be scored."""

    name: str  # for messages and tables
    config: GPTConfig
    threads: int

    def rows(self, ids: IntArray, first: int) -> Iterator[FloatArray]:
        """Logits float32 [r, V] of rows first .. T - 1 of ids [T], what follows each id, in the
        blocks of `blocks`.

        ids: 1 to n_ctx of them, read from an empty context. An array may be overwritten by the
        next.
        """


def blocks(n_ids: int, first: int) -> Iterator[tuple[int, int]]:
    """Start and end of each block of rows first .. n_ids - 1; they meet at multiples of ROWS."""
    for start in range(first - first % ROWS, n_ids, ROWS):
        yield max(start, first), min(start + ROWS, n_ids)


class SessionScorer:
    """A bundle's session as a Scorer."""

    def __init__(self, session: Session, name: str) -> None:
        self.name = name
        self.config: GPTConfig = session.config
        self.threads: int = session.threads
        self._session = session

    def rows(self, ids: IntArray, first: int) -> Iterator[FloatArray]:
        """See Scorer. Raises ContextLengthError, and ValueError for ids beyond the vocabulary."""
        cache = self._session.new_cache(capacity=min(ids.size, self.config.n_ctx))
        for start in range(0, ids.size, ROWS):
            chunk = ids[None, start : start + ROWS]
            if (skipped := max(first - start, 0)) < chunk.size:
                yield self._session.forward(chunk, cache, np.arange(skipped, chunk.size))[0]
            else:
                self._session.forward(chunk, cache, "last")


def finite(logits: FloatArray, name: str) -> FloatArray:
    """Return `logits`. Raises NumericError for NaN or an infinity in them: no measure after it
    would mean anything.
    """
    if not np.isfinite(logits).all():
        raise NumericError(
            f"{name} gives NaN or infinite logits",
            hint="gpt-edge verify says where a bundle goes wrong",
        )
    return logits
