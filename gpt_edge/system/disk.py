"""What is on a disk and what fits on it: hashes, an open folder, free space, and OSError reported
as OutputError.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from gpt_edge.errors import OutputError

if sys.platform != "win32":
    import resource

FULL = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT})  # disk, file size limit, quota
FREE_SPACE_FACTOR = 1.1  # a folder's own blocks and names come on top of the bytes


def sha256_stream(stream: BufferedReader) -> str:
    """Return the SHA-256 of what is left to read, 64 lowercase hex digits; memory stays small
    whatever the size.
    """
    return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_file(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes, 64 lowercase hex digits. Raises OSError as
    `open` does.
    """
    with open(path, "rb") as stream:
        return sha256_stream(stream)


class FolderReader:
    """A folder held open: its names keep leading to its own files, even while another folder takes
    its path.

    Windows has no such handle; there the path is looked up again each time.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError as `open` does; NotADirectoryError for a file."""
        self.path = path
        self._descriptor: int | None = None
        if sys.platform != "win32":
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def __enter__(self) -> FolderReader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def names(self) -> list[str]:
        """Names in the folder, sorted."""
        return sorted(os.listdir(self.path if self._descriptor is None else self._descriptor))

    @contextmanager
    def open(self, name: str) -> Iterator[BufferedReader]:
        """Open a file of the folder. Raises OSError; ValueError for a link, a folder, a pipe or a
        device.
        """
        place = name if self._descriptor is not None else self.path / name
        if not stat.S_ISREG(os.stat(place, dir_fd=self._descriptor, follow_symlinks=False).st_mode):
            raise ValueError(f"{self.path / name} is not a regular file")
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
        # A link or pipe put there since the check is neither followed nor waited for.
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        with os.fdopen(os.open(place, flags, dir_fd=self._descriptor), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise ValueError(f"{self.path / name} is not a regular file")
            yield stream

    def is_current(self) -> bool:
        """False once another folder, or none, has this folder's path."""
        if self._descriptor is None:
            return True
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
        except OSError:
            return False


def free_bytes(folder: Path) -> int:
    """Return the bytes free for this user on the disk of `folder`, or of its nearest parent that
    exists.
    """
    folder = folder.absolute()
    return shutil.disk_usage(
        next(place for place in (folder, *folder.parents) if place.exists())
    ).free


def check_free_space(folder: Path, n_bytes: int) -> None:
    """Raise OutputError unless `n_bytes` and a tenth more are free on the disk of `folder`: ask
    before the long work.
    """
    needed = int(n_bytes * FREE_SPACE_FACTOR)
    if needed > (free := free_bytes(folder)):
        raise OutputError(
            f"{folder} has {free} bytes free, {needed} bytes are needed",
            hint="free some space, or choose a folder on another disk",
        )


def write_check(path: Path, n_bytes: int) -> None:
    """Raise OutputError unless the file at `path` has exactly `n_bytes`: a full disk can cut a file
    without an error.
    """
    found = path.stat().st_size
    if found != n_bytes:
        raise OutputError(
            f"{path} has {found} bytes after writing {n_bytes}; {free_bytes(path.parent)} bytes "
            "are free",
            hint="free some space on the disk, or choose a folder on another one",
        )


def output_error(error: OSError, target: Path, n_bytes: int = 0) -> OutputError:
    """Return the OutputError that says what `error` means for `target`; n_bytes: known need, 0 if
    unknown.
    """
    reason = error.strerror or str(error)
    if error.errno not in FULL:
        return OutputError(
            f"cannot write {target}: {reason}", hint="choose a folder that you may write to"
        )
    try:
        room = f"{free_bytes(target.parent)} bytes free"
    except OSError:
        room = "free space unknown"
    if error.errno == errno.EFBIG and sys.platform != "win32":
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        room += (
            ""
            if limit == resource.RLIM_INFINITY
            else f", files limited to {limit} bytes each (ulimit -f)"
        )
    return OutputError(
        f"cannot write {target}: {reason}; at least {n_bytes} bytes needed, {room}",
        hint="free some space, or choose a folder on another disk",
    )
