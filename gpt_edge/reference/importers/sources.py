"""Named tensors in files: first their names, types and places, then one tensor at a time.

Files are memory-mapped, so a float32 tensor needs no copy, and `release` returns its pages to the
system. Knows nothing of models.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from gpt_edge.arrays import FloatArray
from gpt_edge.errors import CheckpointError, NumericError
from gpt_edge.reference.importers.crc32c import masked_crc32c

FLOAT_DTYPES = ("F32", "F16", "BF16")
_STORED_AS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def printable(name: str) -> str:
    """An untrusted name, safe in a one-line message: no control characters, limited length."""
    clean = name if name.isprintable() else ascii(name)
    return clean if len(clean) <= 120 else f"{clean[:120]}..."


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as its file declares it. `dtype` is a safetensors name; only FLOAT_DTYPES can be
    read.
    """

    dtype: str
    shape: tuple[int, ...]


class TensorSource(Protocol):
    """Tensors by their names in the file."""

    @property
    def where(self) -> str:
        """The file, for messages."""

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        """Every tensor; known without reading any."""

    def read(self, name: str) -> FloatArray:
        """The tensor in its stored shape; read-only if it is a view of the file, writeable if it is
        a copy.
        """

    def release(self, name: str) -> None:
        """Return the tensor's pages to the system; views of it stay valid and are read again on
        access.
        """


class MappedFile:
    """One file, mapped read-only on first access."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_bytes = path.stat().st_size
        self._mapping: mmap.mmap | None = None

    @property
    def mapping(self) -> mmap.mmap:
        """The whole file as bytes. Raises CheckpointError when its size has changed: reading a file
        that shrank would crash.
        """
        if self._mapping is None:
            with self.path.open("rb") as file:
                self._mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if len(self._mapping) != self.n_bytes:
            raise CheckpointError(
                f"{self.path} changed from {self.n_bytes} to {len(self._mapping)} bytes while open"
            )
        return self._mapping

    def release(self, offset: int, n_bytes: int) -> None:
        """Drop the complete pages inside the range from this process's memory; they are read from
        the file again.
        """
        first = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (offset + n_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if self._mapping is not None and last > first and hasattr(mmap, "MADV_DONTNEED"):
            self._mapping.madvise(mmap.MADV_DONTNEED, first, last - first)


@dataclass(frozen=True, slots=True)
class Extent:
    """A range of bytes in a file. Its creator has checked that it lies inside."""

    file: MappedFile
    offset: int
    n_bytes: int


@dataclass(frozen=True)
class MappedTensors:
    """Tensors in mapped files, each in one extent or in several consecutive ones."""

    where: str
    infos: Mapping[str, TensorInfo]
    extents: Mapping[str, tuple[Extent, ...]]
    # masked CRC-32C, where the format has them
    checksums: Mapping[str, int] = field(default_factory=dict)

    def read(self, name: str) -> FloatArray:
        """Raises CheckpointError if the format has a checksum and it differs."""
        info, extents = self.infos[name], self.extents[name]
        if name in self.checksums:
            checksum = masked_crc32c(
                b"".join(
                    part.file.mapping[part.offset : part.offset + part.n_bytes] for part in extents
                )
            )
            if checksum != self.checksums[name]:
                raise CheckpointError(
                    f"{self.where}: {name} has checksum {checksum:08x}, the index has "
                    f"{self.checksums[name]:08x}",
                    hint="copy the checkpoint again",
                )
        parts = [_floats(extent, info.dtype) for extent in extents]
        flat = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return flat.reshape(info.shape)

    def release(self, name: str) -> None:
        """As TensorSource.release."""
        for extent in self.extents[name]:
            extent.file.release(extent.offset, extent.n_bytes)


def _floats(extent: Extent, dtype: str) -> FloatArray:
    """float32 [n] from the stored bytes; a view when they are aligned float32."""
    stored = np.dtype(_STORED_AS[dtype])
    count = extent.n_bytes // stored.itemsize
    if count == 0:
        return np.zeros(0, dtype=np.float32)
    raw = np.frombuffer(extent.file.mapping, dtype=stored, count=count, offset=extent.offset)
    if dtype == "BF16":  # the upper half of a float32
        return (raw.astype(np.uint32) << 16).view(np.float32)
    floats = raw.astype(np.float32, copy=False)
    return floats if floats.flags.aligned else floats.copy()


def merge(where: str, shards: Iterable[MappedTensors]) -> MappedTensors:
    """One source for several files. Raises CheckpointError for a tensor that two of them hold."""
    infos: dict[str, TensorInfo] = {}
    extents: dict[str, tuple[Extent, ...]] = {}
    for shard in shards:
        if twice := sorted(infos.keys() & shard.infos.keys()):
            raise CheckpointError(
                f"{shard.where} holds {printable(twice[0])} again, another file of the checkpoint "
                "has it already"
            )
        infos.update(shard.infos)
        extents.update(shard.extents)
    return MappedTensors(where, infos, extents)


def check_finite(array: FloatArray, where: str, name: str) -> None:
    """Raise NumericError with the tensor and the index of the first NaN or infinite weight."""
    flat = array.reshape(-1)
    # in pieces: the flags of a whole embedding would take 80 MB
    for start in range(0, flat.size, 1 << 22):
        finite = np.isfinite(flat[start : start + (1 << 22)])
        if not finite.all():
            first = start + int(np.argmin(finite))
            index = ", ".join(str(int(i)) for i in np.unravel_index(first, array.shape))
            raise NumericError(
                f"{where}: {name}[{index}] is {flat[first]}, every weight must be finite"
            )
