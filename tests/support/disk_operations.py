"""Stands between this process and the files below one folder: every operation that changes them is
counted, may be made to fail, and can be recorded.

It replaces functions of `os` and `open` while it is installed; the program has no seam for it and
pays nothing. What C code writes by itself would be missed: `tests.hostile.power_loss` compares what
was recorded with what lies on the disk. Nothing is flushed to the disk: only a power cut shows it.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from gpt_edge.system import atomic_files

# one that needs room can find the disk full; a removal cannot
NEEDS_ROOM = {"open", "write", "truncate", "fsync", "rename", "mkdir", "exchange"}
REMOVES = {"unlink", "rmdir"}


@dataclass(frozen=True)
class Operation:
    """One change: what is done to which paths below the folder; data: what is written, and where.

    name: open, which creates a file, write, truncate, fsync, rename, exchange, mkdir, unlink or
    rmdir. data of truncate: its length in `at`.
    """

    name: str
    path: str
    other: str = ""
    data: bytes = b""
    at: int = 0

    def __str__(self) -> str:
        return f"{self.name} {self.path}"


# what happens at an operation, the count of those before it first: None, "short" for a write that
# stops half-way, or "after" for an interrupt that comes when it is done; or it raises
Fault = Callable[[int, str], str | None]


def no_fault(count: int, name: str) -> str | None:
    """Let everything be done."""
    return None


def fault_at(index: int, kind: str) -> Fault:
    """A fault at the operation `index`, one of KINDS."""

    def fault(count: int, name: str) -> str | None:
        if kind == "full from then on" and count >= index and name in NEEDS_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if count != index:
            return None
        if kind == "full once" and name in NEEDS_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if kind == "broken disk":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if kind == "Ctrl-C before":
            signal.raise_signal(signal.SIGINT)
        if kind == "death":
            os._exit(DEATH)
        return {"short write": "short", "Ctrl-C after": "after"}.get(kind)

    return fault


DEATH = 9
KINDS = (
    "full once",
    "full from then on",
    "broken disk",
    "short write",
    "Ctrl-C before",
    "Ctrl-C after",
    "death",
)


class Disk:
    """The operations below `root`, from `installed` on. If asked for, all are kept in `tried`, in
    the order of their counts, and those that came about in `done`.
    """

    def __init__(self, root: Path, fault: Fault = no_fault, *, is_recorded: bool = False) -> None:
        self.root = os.path.realpath(root)
        self.fault = fault
        self.is_recorded = is_recorded
        self.count = 0
        self.tried: list[Operation] = []
        self.done: list[Operation] = []
        self._is_interrupted = False  # by a write, see `look`
        self._paths: dict[int, str] = {}  # of open descriptors below the root
        self._real = {name: getattr(os, name) for name in PATCHED}
        self._builtin_open = io.open
        self._exchange = atomic_files._exchange

    @contextmanager
    def installed(self) -> Iterator[Disk]:
        """Until the block ends."""
        replaced = [patch.object(os, name, getattr(self, f"_{name}")) for name in PATCHED]
        replaced += [patch.object(module, "open", self._open_file) for module in (builtins, io)]
        replaced += [patch.object(atomic_files, "_exchange", self._exchange_folders)]
        for patcher in replaced:
            patcher.start()
        try:
            yield self
        finally:
            for patcher in reversed(replaced):
                patcher.stop()

    def place(self, path: object, dir_fd: int | None = None) -> str | None:
        """The name of a path below the root, "" for the root; None for one that lies elsewhere."""
        if isinstance(path, int) or not isinstance(path, str | bytes | os.PathLike):
            return None
        text = os.fsdecode(path)
        if dir_fd is not None:
            text = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), text)
        folder, name = os.path.split(os.path.abspath(text))
        found = os.path.join(os.path.realpath(folder), name)
        inside = f"{found}{os.sep}".startswith(self.root + os.sep)
        return found[len(self.root) + 1 :] if inside else None

    def act(self, operation: Operation, work: Callable[[], Any]) -> Any:
        """Do it, unless it is made to fail."""
        how = self._begin(operation)
        result = work()
        if self.is_recorded and result is not False:  # folders that could not be exchanged
            self.done.append(operation)
        if how == "after":
            signal.raise_signal(signal.SIGINT)
        return result

    def _begin(self, operation: Operation) -> str | None:
        """Count it; what the fault says of it."""
        self.count += 1
        if self.is_recorded:
            self.tried.append(operation)
        return self.fault(self.count - 1, operation.name)

    def write(self, descriptor: int, data: Any, write: Callable[[Any], int], at: int) -> int:
        """A write, which may stop half-way."""
        content = bytes(data)
        path = self._paths[descriptor]
        how = self._begin(Operation("write", path))
        if how == "short":
            content = content[: max(1, len(content) // 2)]
        n_bytes = write(content)
        if self.is_recorded:
            self.done.append(Operation("write", path, data=content[:n_bytes], at=at))
        self._is_interrupted = how == "after"
        return n_bytes

    def look(self) -> None:
        """Ctrl-C that came during a write. Python looks at it when its buffer has noted what was
        written; raised earlier, the buffer would write the same once more.
        """
        if self._is_interrupted:
            self._is_interrupted = False
            signal.raise_signal(signal.SIGINT)

    # functions of `os`

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        place = self.place(path, dir_fd)
        real = self._real["open"]
        if place is None:
            descriptor = int(real(path, flags, mode, dir_fd=dir_fd))
            self._paths.pop(descriptor, None)
            return descriptor
        name = os.path.join(self.root, place)
        makes = bool(flags & os.O_CREAT) and not os.path.lexists(name)
        empties = bool(flags & os.O_TRUNC) and os.path.lexists(name)
        work = lambda: real(path, flags, mode, dir_fd=dir_fd)  # noqa: E731
        if makes:
            descriptor = self.act(Operation("open", place), work)
        elif empties:
            descriptor = self.act(Operation("truncate", place), work)
        else:
            descriptor = work()
        self._paths[descriptor] = place
        return int(descriptor)

    def _close(self, descriptor: int) -> None:
        self._paths.pop(descriptor, None)
        self._real["close"](descriptor)

    def _write(self, descriptor: int, data: Any) -> int:
        real = self._real["write"]
        if descriptor not in self._paths:
            return int(real(descriptor, data))
        at = os.lseek(descriptor, 0, os.SEEK_CUR)
        n_bytes = self.write(descriptor, data, lambda content: real(descriptor, content), at)
        self.look()
        return n_bytes

    def _sendfile(self, out: int, source: int, offset: int | None, count: int) -> int:
        real = self._real["sendfile"]
        if out not in self._paths:
            return int(real(out, source, offset, count))
        begin = os.lseek(source, 0, os.SEEK_CUR) if offset is None else offset
        content = os.pread(source, count, begin)
        at = os.lseek(out, 0, os.SEEK_CUR)

        def send(part: bytes) -> int:
            return int(real(out, source, offset, len(part))) if part else 0

        n_bytes = self.write(out, content, send, at) if content else 0
        self.look()
        return n_bytes

    def _fsync(self, descriptor: int) -> None:
        if descriptor in self._paths:
            self.act(Operation("fsync", self._paths[descriptor]), lambda: None)

    _fdatasync = _fsync

    def _ftruncate(self, descriptor: int, length: int) -> None:
        work = lambda: self._real["ftruncate"](descriptor, length)  # noqa: E731
        if descriptor in self._paths:
            self.act(Operation("truncate", self._paths[descriptor], at=length), work)
        else:
            work()

    def _move(self, name: str, source: Any, target: Any, **options: Any) -> None:
        places = self.place(source), self.place(target)
        work = lambda: self._real[name](source, target, **options)  # noqa: E731
        if places[0] is None or places[1] is None:
            work()
        else:
            self.act(Operation("rename", places[0], places[1]), work)

    def _rename(self, source: Any, target: Any, **options: Any) -> None:
        self._move("rename", source, target, **options)

    def _replace(self, source: Any, target: Any, **options: Any) -> None:
        self._move("replace", source, target, **options)

    def _exchange_folders(self, one: Path, other: Path) -> bool:
        places = self.place(one), self.place(other)
        work = lambda: self._exchange(one, other)  # noqa: E731
        if places[0] is None or places[1] is None:
            return work()
        return bool(self.act(Operation("exchange", places[0], places[1]), work))

    def _single(self, name: str, path: Any, *rest: Any, **options: Any) -> None:
        place = self.place(path, options.get("dir_fd"))
        work = lambda: self._real[name](path, *rest, **options)  # noqa: E731
        if place is None:
            work()
        else:
            self.act(Operation("unlink" if name == "remove" else name, place), work)

    def _mkdir(self, path: Any, *rest: Any, **options: Any) -> None:
        self._single("mkdir", path, *rest, **options)

    def _rmdir(self, path: Any, **options: Any) -> None:
        self._single("rmdir", path, **options)

    def _unlink(self, path: Any, **options: Any) -> None:
        self._single("unlink", path, **options)

    def _remove(self, path: Any, **options: Any) -> None:
        self._single("remove", path, **options)

    def _open_file(
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        """`open`, with a raw file of our own where it writes below the root."""
        descriptor = file if isinstance(file, int) else None
        is_ours = descriptor in self._paths or self.place(file) is not None
        if not is_ours or not set(mode) & set("wax+"):
            rest = (buffering, encoding, errors, newline, closefd, opener)
            opened = self._builtin_open(file, mode, *rest)
            if descriptor is None:
                self.forget(opened.fileno())
            return opened
        raw = _RawFile(self, file, mode, closefd)
        if "+" in mode:
            buffered: Any = _Random(raw)
        else:
            buffered = _Writer(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    def forget(self, descriptor: int) -> None:
        """A file is closed: its number may come again."""
        self._paths.pop(descriptor, None)


class _RawFile(io.FileIO):
    """A file below the root whose writes are the disk's to watch."""

    def __init__(self, disk: Disk, file: Any, mode: str, closefd: bool) -> None:
        self._disk = disk
        self._appends = "a" in mode
        plain = mode.replace("b", "").replace("t", "")
        super().__init__(file, plain, closefd, lambda path, flags: disk._open(path, flags, 0o666))

    def write(self, data: Any) -> int:  # type: ignore[override]
        at = os.fstat(self.fileno()).st_size if self._appends else self.tell()
        return self._disk.write(self.fileno(), data, super().write, at)

    def truncate(self, size: int | None = None) -> int:
        length = self.tell() if size is None else size
        operation = Operation("truncate", self._disk._paths[self.fileno()], at=length)
        return int(self._disk.act(operation, lambda: super(_RawFile, self).truncate(size)))

    def close(self) -> None:
        if not self.closed:
            self._disk.forget(self.fileno())
        super().close()


class _Looking:
    """A buffer that looks at Ctrl-C where Python's do."""

    raw: _RawFile

    def write(self, data: Any) -> int:
        n_bytes = super().write(data)  # type: ignore[misc]
        self.raw._disk.look()
        return int(n_bytes)

    def flush(self) -> None:
        super().flush()  # type: ignore[misc]
        self.raw._disk.look()


class _Writer(_Looking, io.BufferedWriter):  # type: ignore[misc]
    pass


class _Random(_Looking, io.BufferedRandom):  # type: ignore[misc]
    pass


PATCHED = (
    "open",
    "close",
    "write",
    "sendfile",
    "fsync",
    "fdatasync",
    "ftruncate",
    "rename",
    "replace",
    "mkdir",
    "rmdir",
    "unlink",
    "remove",
)
