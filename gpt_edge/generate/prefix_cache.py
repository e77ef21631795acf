"""PrefixCache: keys and values of texts that were read, so that a prompt which begins like one of
them is read only from where it differs.

Source of the idea: prompt caches of llama.cpp and vLLM's automatic prefix caching; here whole texts
are held, each a copy of its own.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpt_edge.arguments import check_count
from gpt_edge.arrays import IntArray
from gpt_edge.runtime.kv_cache import CacheArray, KVCache
from gpt_edge.runtime.session import Session


@dataclass(frozen=True, slots=True, eq=False)
class _Text:
    """ids [T] and the arrays of a cache, each [1, H, T, D']."""

    session: weakref.ref[Session]
    ids: IntArray
    arrays: list[CacheArray]

    @property
    def n_bytes(self) -> int:
        return self.ids.nbytes + sum(array.nbytes for array in self.arrays)


class PrefixCache:
    """Holds at most `max_bytes` of keys and values; the text that was not used for longest goes
    first. Thread-safe; it may serve several models.

    With custom operators a prompt gives the same bits whether its start was held or read. With
    onnxruntime's operators another split into chunks adds in another order, and logits may differ
    in their last bits (`Session.is_row_exact` says which), so nothing is held unless asked for.
    """

    def __init__(self, max_bytes: int) -> None:
        """Raises ValueError for max_bytes below 1."""
        check_count("max_bytes", max_bytes)
        self.max_bytes = max_bytes
        self._texts: list[_Text] = []  # the last used at the end
        # re-entrant: a signal handler may close a stream while another text is taken in
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """How many texts are held."""
        return len(self._texts)

    @property
    def n_bytes(self) -> int:
        """What is held."""
        with self._lock:
            return sum(text.n_bytes for text in self._texts)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._texts.clear()

    def restore(self, session: Session, ids: Sequence[int], cache: KVCache) -> int:
        """Put the keys and values of the longest start of `ids` that is held into a cache of one
        row, if that is more than the cache has, and return how many ids it has then.
        """
        expected = np.asarray(ids, np.int64)
        with self._lock:
            best, length = None, cache.length
            for text in self._texts:
                shared = _n_shared(text.ids, expected) if text.session() is session else 0
                if shared > length:
                    best, length = text, shared
            if best is None:
                return length
            self._texts.remove(best)
            self._texts.append(best)
        cache.put_row(best.arrays, length)
        return length

    def store(self, session: Session, ids: Sequence[int], cache: KVCache, row: int = 0) -> None:
        """Hold the text `ids`, whose keys and values a row of `cache` has; of one that exceeds
        `max_bytes` by itself, the start.
        """
        per_id = cache.row_bytes(1) + np.dtype(np.int64).itemsize
        kept = np.asarray(ids[: self.max_bytes // per_id], np.int64)
        if kept.size == 0:
            return
        with self._lock:
            if self._touch(session, kept):
                return
        # copied without the lock: others may look for theirs meanwhile
        text = _Text(weakref.ref(session), kept, cache.copy_row(row, kept.size))
        with self._lock:
            self._texts = [
                other for other in self._texts if not _begins(text, other) and other.session()
            ]
            self._texts.append(text)
            n_bytes = self.n_bytes
            while n_bytes > self.max_bytes:
                n_bytes -= self._texts.pop(0).n_bytes

    def _touch(self, session: Session, ids: IntArray) -> bool:
        """Whether a text that begins with `ids` is held already; it counts as used."""
        for text in self._texts:
            if text.session() is session and _n_shared(text.ids, ids) == ids.size:
                self._texts.remove(text)
                self._texts.append(text)
                return True
        return False


def _n_shared(one: IntArray, other: IntArray) -> int:
    """How many ids two texts begin with in common."""
    n = min(one.size, other.size)
    differs = one[:n] != other[:n]
    return int(differs.argmax()) if differs.any() else n


def _begins(text: _Text, other: _Text) -> bool:
    """Whether `other` is a start of `text`."""
    is_same_model = text.session() is other.session()
    return is_same_model and _n_shared(text.ids, other.ids) == other.ids.size
