"""ReadSequence: what a model has read of one text, as ids and as keys and values. It reads more,
and forgets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from gpt_edge.arrays import FloatArray
from gpt_edge.runtime.session import Session
from gpt_edge.runtime.tuning import PREFILL_CHUNK


class IsCancelled(Protocol):
    """A threading.Event, or what answers like one."""

    def is_set(self) -> bool:
        """Whether to stop."""


TakeRows = Callable[[FloatArray], None]


class ReadSequence:
    """The ids that a session has read, `ids`, and their cache. Not thread-safe: one generation, one
    sequence.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.ids: list[int] = []
        self.cache = session.new_cache()

    def read(
        self,
        ids: Sequence[int],
        cancel: IsCancelled | None = None,
        take_rows: TakeRows | None = None,
    ) -> FloatArray | None:
        """Read more ids, chunk by chunk, and return the logits [V] after the last; None if
        cancelled, which is checked before every chunk.

        take_rows: called with the logits [T, V] of each chunk. Raises ContextLengthError for more
        than the context holds, before any work.
        """
        tokens = np.array(ids, np.int64)[None]
        self.session.reserve(self.cache, len(self.ids) + tokens.size)
        logits: FloatArray | None = None
        for start in range(0, tokens.size, PREFILL_CHUNK):
            if cancel is not None and cancel.is_set():
                return None
            chunk = tokens[:, start : start + PREFILL_CHUNK]
            if take_rows is None:
                rows = self.session.forward(chunk, self.cache)[0]
            else:
                rows = self.session.forward(chunk, self.cache, "all")[0]
                take_rows(rows)
            self.ids += chunk[0].tolist()
            logits = rows[-1]
        return logits

    def step(self, id: int) -> FloatArray:
        """Read one id and return the logits [V] after it, which the next call overwrites. Raises
        ContextLengthError if the context is full.
        """
        logits: FloatArray = self.session.decode([id], self.cache)[0]
        self.ids.append(id)
        return logits

    def read_rows(self, ids: Sequence[int]) -> FloatArray:
        """Read two to eight ids and return the logits [T, V] after each, which the next call
        overwrites. Raises ContextLengthError for more than the context holds.
        """
        rows = self.session.decode_several(ids, self.cache)
        self.ids += ids
        return rows

    def crop(self, length: int) -> None:
        """Forget what follows the first `length` ids."""
        self.cache.crop(length)
        del self.ids[length:]
