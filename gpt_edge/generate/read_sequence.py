"""ReadSequence: what a model has read of one text, as ids and as keys and values. It reads more,
and forgets.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import numpy as np

from gpt_edge.arrays import FloatArray
from gpt_edge.generate.context import window_of
from gpt_edge.generate.prefix_cache import PrefixCache
from gpt_edge.runtime.session import Session
from gpt_edge.runtime.tuning import PREFILL_CHUNK


class IsCancelled(Protocol):
    """A threading.Event, or what answers like one."""

    def is_set(self) -> bool:
        """Whether to stop."""


TakeRows = Callable[[FloatArray], None]


class Borrower(Protocol):
    """A generation that uses a sequence; `is_over` once it has ended."""

    @property
    def is_over(self) -> bool: ...


class ReadSequence:
    """The ids that a session has read, `ids`, and their cache. Not thread-safe: one generation at a
    time, see `lend`.
    """

    def __init__(self, session: Session, prefixes: PrefixCache | None = None) -> None:
        """prefixes: where `keep_prefix` finds texts that were read before."""
        self.session = session
        self.ids: list[int] = []
        self.cache = session.new_cache()
        # for a window: how many ids stay when the context is full; None lets it be an error
        self.keep_first: int | None = None
        self.n_dropped = 0  # ids behind the first that windows dropped
        self._prefixes = prefixes
        self._borrower: weakref.ref[Borrower] | None = None

    def lend(self, borrower: Borrower) -> None:
        """Give it to a generation until that has ended. Raises RuntimeError while another has
        it.
        """
        other = None if self._borrower is None else self._borrower()
        if other is not None and other is not borrower and not other.is_over:
            raise RuntimeError(
                "another generation that has not ended uses this text: read it to its end, or "
                "close it"
            )
        self._borrower = weakref.ref(borrower)
        self.cache.crop(len(self.ids))  # a step that was interrupted may have added to it

    def keep_prefix(self, ids: Sequence[int]) -> int:
        """Keep what `ids` begin with and forget the rest, or take more from the prefix cache.
        Returns how many of `ids` are read: all but the last at most, whose logits are needed.
        """
        n_most = len(ids) - 1
        shared = 0
        for mine, other in zip(self.ids, ids[:n_most], strict=False):
            if mine != other:
                break
            shared += 1
        self.crop(shared)
        if self._prefixes is not None and shared < n_most:
            shared = self._prefixes.restore(self.session, ids[:n_most], self.cache)
            self.ids = list(ids[:shared])
        return shared

    def remember(self) -> None:
        """Give what was read to the prefix cache, if there is one."""
        if self._prefixes is not None and self.ids:
            self._prefixes.store(self.session, self.ids, self.cache)

    def read(
        self,
        ids: Sequence[int],
        cancel: IsCancelled | None = None,
        take_rows: TakeRows | None = None,
        hidden: FloatArray | None = None,
    ) -> FloatArray | None:
        """Read more ids, chunk by chunk, and return the logits [V] after the last; None if
        cancelled, which is checked before every chunk.

        take_rows: called with the logits [T, V] of each chunk. hidden: where the hidden states
        float32 [T, C] of all ids go. Raises ContextLengthError for more than the context holds,
        before any work, and as `Session.forward` for hidden states.
        """
        tokens = np.array(ids, np.int64)[None]
        self.session.reserve(self.cache, len(self.ids) + tokens.size)
        logits: FloatArray | None = None
        for start in range(0, tokens.size, PREFILL_CHUNK):
            if cancel is not None and cancel.is_set():
                return None
            chunk = tokens[:, start : start + PREFILL_CHUNK]
            states = None if hidden is None else hidden[None, start : start + chunk.size]
            wanted: Literal["last", "all"] = "last" if take_rows is None else "all"
            rows = self.session.forward(chunk, self.cache, wanted, hidden=states)[0]
            if take_rows is not None:
                take_rows(rows)
            self.ids += chunk[0].tolist()
            logits = rows[-1]
        return logits

    def step(self, id: int) -> FloatArray:
        """Read one id and return the logits [V] after it, which the next call overwrites. A full
        context becomes a window that is half empty, see `context.py`; without `keep_first` it
        raises ContextLengthError.
        """
        n_ctx = self.session.config.n_ctx
        if self.keep_first is not None and len(self.ids) == n_ctx:
            newest = window_of([*self.ids, id], self.keep_first, n_ctx)[self.keep_first :]
            self.n_dropped += len(self.ids) + 1 - self.keep_first - len(newest)
            self.crop(self.keep_first)
            shifted = self.read(newest)
            assert shifted is not None
            return shifted
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

    def copy(self) -> ReadSequence:
        """Another sequence that has read the same."""
        other = ReadSequence(self.session, self._prefixes)
        if self.ids:
            other.cache.put_row(self.cache.copy_row(0, len(self.ids)), len(self.ids))
            other.ids = list(self.ids)
        return other

    def crop(self, length: int) -> None:
        """Forget what follows the first `length` ids."""
        self.cache.crop(length)
        del self.ids[length:]
