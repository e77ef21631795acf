"""BatchQueue: the requests of a BatchEngine that wait for a place, first come, first served."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from gpt_edge.errors import BusyError
from gpt_edge.generate.batch_handle import BatchHandle


class BatchQueue:
    """Thread-safe. condition: notified when a request comes; the engine waits by it."""

    def __init__(self, condition: threading.Condition, max_waiting: int | None) -> None:
        self._condition = condition
        self._max_waiting = max_waiting
        self._waiting: deque[BatchHandle] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def append(self, handle: BatchHandle) -> None:
        """Take a request. Raises BusyError if as many wait as may."""
        with self._condition:
            if self._max_waiting is not None and len(self._waiting) >= self._max_waiting:
                raise BusyError(
                    f"{len(self._waiting)} requests wait already, as many as may",
                    hint="try again later, or give the engine a larger max_waiting",
                )
            self._waiting.append(handle)
            self._condition.notify_all()

    def take_matching(
        self, matches: Callable[[BatchHandle], bool], n: int
    ) -> tuple[list[BatchHandle], int]:
        """The first `n` requests that match, and how many more do."""
        with self._condition:
            matching = [handle for handle in self._waiting if matches(handle)]
            for handle in matching[:n]:
                self._waiting.remove(handle)
        return matching[:n], len(matching[n:])

    def take_cancelled(self, *, everyone: bool = False) -> list[BatchHandle]:
        """The requests that are cancelled, or all."""
        with self._condition:
            taken = [handle for handle in self._waiting if everyone or handle.is_cancelled]
            for handle in taken:
                self._waiting.remove(handle)
        return taken
