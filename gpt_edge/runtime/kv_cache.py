"""KVCache: the keys and values of one batch of sequences, in memory that grows in steps.

The edge graph writes into these arrays in place; the portable graph returns new ones, which replace
them. Knows nothing of onnxruntime: `bound` is where a session keeps what it has bound to these
arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpt_edge.arguments import check_whole
from gpt_edge.arrays import IntArray
from gpt_edge.config import GPTConfig
from gpt_edge.errors import ContextLengthError, GPTEdgeError
from gpt_edge.onnx_contract import cache_head_size, past_key, past_value

CacheArray = npt.NDArray[Any]  # float32, or the float16 of a third-party portable file

MAX_BATCH = 1 << 16
FIRST_CAPACITY = 128  # tokens; doubled until the context is full
LENGTHS = "lengths"
WHOLE = (int, np.integer)  # a tuple: isinstance builds a union anew each time


class KVCache:
    """Keys and values of B sequences. One cache belongs to one generation: two threads must not use
    it at once.

    lengths: int64 [B], how many positions of each row count. Always changed in place, as it is
    bound to a graph input. arrays: key 0, value 0, key 1, ..., each [B, H, S, D'] with S =
    `capacity`, of the type `dtype`, named by `names`; what lies beyond a row's length is never
    read. The list is replaced, never changed, when the memory moves.
    """

    def __init__(
        self,
        config: GPTConfig,
        graph: str,
        batch: int = 1,
        capacity: int | None = None,
        dtype: str = "float32",
    ) -> None:
        """Raises ValueError for a batch outside 1 to MAX_BATCH, or a capacity below 1 or beyond the
        context, and GPTEdgeError where there is no memory for it.
        """
        check_whole("batch", batch, 1, MAX_BATCH)
        if capacity is not None:
            check_whole("capacity", capacity, 1, config.n_ctx)
        self.n_ctx = config.n_ctx
        self.batch = batch
        self.lengths: IntArray = np.zeros(batch, np.int64)
        self.bound: object = None
        self.model: object = None  # what a session knows its own caches by
        self.names = [
            name(layer) for layer in range(config.n_layer) for name in (past_key, past_value)
        ]
        self._shape = (config.n_head, cache_head_size(config, graph))
        self.dtype = np.dtype(dtype)
        size = min(FIRST_CAPACITY, config.n_ctx) if capacity is None else capacity
        self.arrays: list[CacheArray] = [
            self._zeros(size if graph == "edge" else 0) for _ in self.names
        ]

    def _zeros(self, capacity: int) -> CacheArray:
        heads, width = self._shape
        shape = (self.batch, heads, capacity, width)
        try:
            return np.zeros(shape, self.dtype)
        except MemoryError as error:
            n_bytes = math.prod(shape) * self.dtype.itemsize * len(self.names)
            raise GPTEdgeError(
                f"keys and values of {self.batch} x {capacity} tokens take {n_bytes:,} bytes, more "
                "than this process gets",
                hint="take a smaller batch, a shorter context, or a machine with more memory",
            ) from error

    @property
    def length(self) -> int:
        """Positions that count in the longest row."""
        return int(self.lengths[0]) if self.batch == 1 else int(self.lengths.max(initial=0))

    @property
    def capacity(self) -> int:
        """Positions there is memory for."""
        return int(self.arrays[0].shape[2])

    @property
    def n_bytes(self) -> int:
        """Memory of all arrays."""
        return sum(array.nbytes for array in self.arrays)

    def reserve(self, length: int) -> None:
        """Make room for rows of `length` positions: doubled as often as needed, never beyond the
        context.

        Raises ContextLengthError, changing nothing, if the context is shorter.
        """
        if length <= self.capacity:
            return
        if length > self.n_ctx:
            raise ContextLengthError(f"{length} tokens do not fit into the context of {self.n_ctx}")
        capacity = max(self.capacity, 1)
        while capacity < length:
            capacity *= 2
        self._resize(min(capacity, self.n_ctx))

    def _resize(self, capacity: int) -> None:
        """Move to memory of another size. Pages of zeros cost nothing until written, so little
        exists twice at a time.
        """
        used = self.length
        # all of it first: an error changes nothing
        moved = [self._zeros(capacity) for _ in self.names]
        old, self.arrays = self.arrays, moved
        self.bound = None  # it holds on to the old arrays
        for array in moved:
            array[:, :, :used] = old.pop(0)[:, :, :used]

    def crop(self, length: int) -> None:
        """Forget what follows the first `length` positions of every row; shorter rows stay as they
        are.

        Raises ValueError unless 0 <= length <= `self.length`.
        """
        if not (isinstance(length, WHOLE) and 0 <= length <= self.length):
            raise ValueError(f"a cache of {self.length} tokens cannot be cropped to {length}")
        np.minimum(self.lengths, length, out=self.lengths)

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Keep only these rows of the batch, in this order. Raises ValueError if there are none or
        one is out of range.
        """
        if not rows or not all(isinstance(row, WHOLE) and 0 <= row < self.batch for row in rows):
            raise ValueError(f"rows must name some of 0 to {self.batch - 1}, got {list(rows)}")
        self.arrays = [array[list(rows)] for array in self.arrays]
        self.lengths = self.lengths[list(rows)]
        self.batch = len(rows)
        self.bound = None

    def share_last(self, row: int) -> None:
        """Let the newest position of every row be that of `row`; rows are equally long."""
        last = self.length - 1
        for array in self.arrays:
            array[:, :, last] = array[row, :, last]

    def row_shape(self, length: int) -> tuple[int, int, int]:
        """[H, length, D'] of one row in each array."""
        return (self._shape[0], length, self._shape[1])

    def row_bytes(self, length: int) -> int:
        """Memory of `length` positions of one row."""
        return len(self.names) * math.prod(self.row_shape(length)) * self.dtype.itemsize

    def copy_row(self, row: int, length: int) -> list[CacheArray]:
        """A copy of the first `length` positions of a row: arrays [1, H, length, D']."""
        return [array[row : row + 1, :, :length].copy() for array in self.arrays]

    def put_row(self, arrays: Sequence[CacheArray], length: int) -> None:
        """Take the first `length` positions of what `copy_row` gave, of the same model, in place of
        this cache's only row.
        """
        self.reserve(length)
        for array, part in zip(self.arrays, arrays, strict=True):
            array[:, :, :length] = part[:, :, :length]
        self.lengths[:] = length

    def save(self) -> dict[str, CacheArray]:
        """A copy of what counts: "lengths" int64 [B] and past_key_values.{i}.key/.value
        [B, H, length, D'].

        numpy.savez takes it as it is. It fits only the model that made it.
        """
        used = self.length
        parts = {
            name: array[:, :, :used].copy()
            for name, array in zip(self.names, self.arrays, strict=True)
        }
        return {LENGTHS: self.lengths.copy(), **parts}

    def restore(self, saved: Mapping[str, CacheArray]) -> None:
        """Take the content of `save`, also from an .npz file, in place of this cache's own.

        Raises ValueError, changing nothing, for a missing part or one of another shape or type.
        """
        lengths = self._part(saved, LENGTHS, (self.batch,), np.dtype(np.int64))
        used = int(lengths.max())
        if lengths.min() < 0 or used > self.n_ctx:
            raise ValueError(
                f"saved lengths must be from 0 to {self.n_ctx}, got {lengths.tolist()}"
            )
        shape = (self.batch, self._shape[0], used, self._shape[1])
        parts = [self._part(saved, name, shape, self.dtype) for name in self.names]
        self.reserve(used)
        for array, part in zip(self.arrays, parts, strict=True):
            array[:, :, :used] = part
        self.lengths[:] = lengths

    def _part(
        self,
        saved: Mapping[str, CacheArray],
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> CacheArray:
        if name not in saved:
            raise ValueError(f"the saved cache has no {name!r}")
        part = saved[name]
        if part.shape != shape or part.dtype != dtype:
            raise ValueError(
                f"saved {name!r} is {part.dtype} {list(part.shape)}, expected {dtype} {list(shape)}"
            )
        return part
