"""KVSlots: a KVCache whose rows join and leave, for a batch that changes between two steps.

The edge graph's memory is one block for all slots, of which the first `batch` rows are in use and
bound as a view: a row that joins is copied behind them, and one that leaves is overwritten by the
last. The portable graph makes new arrays at every step, so there a joining row moves all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpt_edge.arguments import is_whole
from gpt_edge.arrays import IntArray
from gpt_edge.config import GPTConfig
from gpt_edge.runtime.kv_cache import CacheArray, KVCache


class KVSlots(KVCache):
    """Keys and values of 0 to `n_slots` sequences. Rows keep their places, but `leave` moves the
    last one to the place that it frees.
    """

    def __init__(self, config: GPTConfig, graph: str, n_slots: int, dtype: str = "float32") -> None:
        """Raises ValueError for fewer slots than one, and as `KVCache`."""
        if not is_whole(n_slots, 1, None):
            raise ValueError(f"a batch needs at least one slot, got {n_slots!r:.80}")
        self.n_slots = n_slots
        self._is_in_place = graph == "edge"
        super().__init__(config, graph, n_slots, dtype=dtype)
        # pages of zeros cost nothing until written: unused slots take no memory
        self._memory = self.arrays
        self._all_lengths: IntArray = self.lengths
        self._show(0)

    def _show(self, batch: int) -> None:
        """Let the first `batch` rows be the cache."""
        arrays = self._memory if self._is_in_place else self.arrays
        self.arrays = [array[:batch] for array in arrays]
        self.lengths = self._all_lengths[:batch]
        self.batch = batch
        self.bound = None

    def join(self, sequence: KVCache) -> int:
        """Copy a cache of one sequence behind the rows, and return its row. Raises ValueError if no
        slot is free or it is no single sequence.
        """
        if self.batch == self.n_slots or sequence.batch != 1:
            raise ValueError(
                f"{self.batch} of {self.n_slots} slots are in use, {sequence.batch} rows to join"
            )
        row = self.batch
        used = sequence.length
        if self._is_in_place:
            self.reserve(used)
        else:
            self.arrays = [self._with_one_more(array, used) for array in self.arrays]
        self._show(row + 1)
        for array, other in zip(self.arrays, sequence.arrays, strict=True):
            array[row, :, :used] = other[0, :, :used]
        self.lengths[row] = used
        return row

    def leave(self, row: int) -> int:
        """Forget a row; the last one takes its place. Returns the row that moved, `row` itself if
        it was the last.
        """
        last = self.batch - 1
        used = int(self.lengths[last])
        if row != last:
            for array in self.arrays:
                array[row, :, :used] = array[last, :, :used]
            self.lengths[row] = used
        self._show(last)
        return last

    def _with_one_more(self, array: CacheArray, length: int) -> CacheArray:
        """A growing array with room for one more row, which has `length` positions."""
        heads, width = self._shape
        capacity = max(self.length, length)
        larger = np.zeros((self.batch + 1, heads, capacity, width), self.dtype)
        used = self.length
        larger[: self.batch, :, :used] = array[:, :, :used]
        return larger

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Rows leave one by one here: raises ValueError."""
        raise ValueError("rows of slots end with leave(row)")

    def _zeros(self, capacity: int) -> CacheArray:
        heads, width = self._shape
        rows = self.n_slots if self._is_in_place else self.batch
        return np.zeros((rows, heads, capacity, width), self.dtype)

    def _resize(self, capacity: int) -> None:
        if not self._is_in_place:
            super()._resize(capacity)
            return
        used = self.length
        # all of it first: MemoryError changes nothing
        moved = [self._zeros(capacity) for _ in self.names]
        old, self.arrays, self._memory = self.arrays, [], moved
        for array in moved:
            array[: self.batch, :, :used] = old.pop(0)[:, :, :used]
        self._show(self.batch)
