"""Scorer: what `evaluate` needs of a model, ids to logits in blocks of rows; and a Session as one.

`gpt_edge/reference/scoring.py` is the same in torch. All scorers yield the same blocks, so that two
models can be compared block by block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np

from gpt_edge.arrays import FloatArray, IntArray
from gpt_edge.config import GPTConfig
from gpt_edge.errors import NumericError

if TYPE_CHECKING:
    # training scores in torch, without onnxruntime
    from gpt_edge.runtime.session import Session

# rows of logits at a time, 51 MB for 50,257 tokens: the chunk of a session's prefill, so the sums
# are those of generation
ROWS = 256


class Scorer(Protocol):
    """A model that can be scored."""

    name: str  # for messages and tables
    config: GPTConfig
    threads: int

    def rows(self, ids: IntArray, first: int) -> Iterator[FloatArray]:
        """Yield the logits float32 [r, V] of rows first .. T - 1 of ids [T], in the blocks of
        `blocks`.

        ids: 1 to n_ctx of them, read from an empty context. The next array may overwrite one.
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
    """Return `logits`. Raises NumericError for NaN or an infinity in them: a measure of them would
    mean nothing.
    """
    if not np.isfinite(logits).all():
        raise NumericError(
            f"{name} gives NaN or infinite logits",
            hint="gpt-edge verify names the operator that is wrong",
        )
    return logits
