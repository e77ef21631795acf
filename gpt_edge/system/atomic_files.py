"""Write files atomically, and publish a finished folder by one rename. The only module
that publishes.

A folder or file is made under a temporary name beside its target, flushed to the disk, and renamed;
killed at any moment, the target is the old one or the new one. A writer holds a lock that dies with
its process, so whatever a dead one left is cleared by the next. Recipe: Pillai et al. 2014 (ALICE):
same folder, fsync, rename, fsync the folder.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gpt_edge.errors import OutputError
from gpt_edge.system.disk import FULL, check_free_space, output_error, sha256_file, write_check
from gpt_edge.system.lock import (
    hold_lock,
    neighbours,
    recover,
    remove_temporary,
    temporary_name,
)

__all__ = [
    "atomic_write",
    "check_free_space",
    "find_set_aside",
    "flush_folder",
    "make_folder",
    "publish_file",
    "publish_folder",
    "sha256_file",
    "write_check",
    "write_file",
]

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Write a new file, all of it, flushed to the disk. Raises OSError, FileExistsError included;
    OutputError if cut.
    """
    descriptor = os.open(path, WRITE_FLAGS, 0o666)
    try:
        rest = memoryview(data)
        # a write may stop short where a disk or a limit is nearly full; the next one says why
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    except OSError as error:
        error.filename = str(path)  # these two calls know no name
        raise
    finally:
        os.close(descriptor)
    write_check(path, len(data))


def atomic_write(path: Path, data: bytes | memoryview) -> None:
    """Put `data`, a memoryview being of bytes, at `path` by one rename: a reader, or a crash, finds
    the old content or the new one, whole.

    Raises OutputError: busy with another writer, not writable, or no room; then nothing is left
    behind.
    """
    path = _canonical(path)
    with hold_lock(path):
        temporary = temporary_name(path)
        try:
            write_file(temporary, data)
            os.replace(temporary, path)
            flush_folder(path.parent)
        except OSError as error:
            raise output_error(error, path, len(data)) from error
        finally:
            remove_temporary(temporary)


@contextmanager
def publish_file(
    target: Path,
    *,
    force: bool,
    is_ours: Callable[[Path], bool],
    n_bytes: int = 0,
    folder_mode: int = 0o777,
) -> Iterator[Path]:
    """Yield the name of a file to write beside `target`; when the block ends well, one rename puts
    it in its place.

    force: replace a file that `is_ours(target)` says may go. n_bytes: what the caller is about to
    write, checked against the free space first. folder_mode: of parents that are made. After an
    exception nothing is left. Raises OutputError for all that stands in the way, also for an
    OSError of the block that is about this disk.
    """
    target = _canonical(target)
    with _parents(target.parent, folder_mode), hold_lock(target):
        _check_target_file(target, force, is_ours)
        check_free_space(target.parent, n_bytes)
        temporary = temporary_name(target)
        try:
            with _disk_errors(temporary, target, n_bytes):
                yield temporary
            try:
                _fsync_file(temporary)
                _check_target_file(target, force, is_ours)
                os.replace(temporary, target)
                flush_folder(target.parent)
            except OSError as error:
                raise output_error(error, target, n_bytes) from error
        finally:
            remove_temporary(temporary)


def _check_target_file(target: Path, force: bool, is_ours: Callable[[Path], bool]) -> None:
    """Raise OutputError unless a file may be put at `target`."""
    if not os.path.lexists(target):
        return
    if not target.is_file() or not is_ours(target):
        raise OutputError(
            f"{target} exists and is not a file that was written here",
            hint="give another name, or remove it yourself",
        )
    if not force:
        raise OutputError(
            f"{target} exists",
            hint="replace it with force=True",
            cli_hint="replace it with --force",
        )


@contextmanager
def publish_folder(
    target: Path,
    *,
    force: bool,
    is_ours: Callable[[Path], bool],
    source: Path | None = None,
    n_bytes: int = 0,
) -> Iterator[Path]:
    """Yield an empty temporary folder beside `target`; when the block ends well, one rename puts it
    in its place.

    force: replace an existing folder, if it is empty or `is_ours(target)` says that it may go.
    source: file or folder that is being read; it may not lie in `target`, nor `target` in it.
    n_bytes: what the caller is about to write, checked against the free space first; 0 if unknown.
    Parents of `target` are made. After an exception (KeyboardInterrupt too) the temporary folder
    and those parents are gone and `target` is untouched. Raises OutputError for all that stands in
    the way, also for an OSError of the block that is about this disk; other exceptions of the block
    pass through.
    """
    target = _canonical(target)
    _check_apart(target, source)
    with _parents(target.parent), hold_lock(target):
        # not earlier: without the lock another writer may be at it
        _check_target(target, force, is_ours)
        check_free_space(target.parent, n_bytes)
        temporary = temporary_name(target)
        try:
            with _disk_errors(temporary, target, n_bytes):
                os.mkdir(temporary)
                yield temporary
            try:
                _fsync_tree(temporary)
                # the work took a while: another writer may have come
                _check_target(target, force, is_ours)
                _put_in_place(temporary, target)
                flush_folder(target.parent)
            except OSError as error:
                raise output_error(error, target, _size(temporary)) from error
        finally:
            # after an exchange this name holds the old folder
            remove_temporary(temporary)


def find_set_aside(target: Path) -> Path | None:
    """Return the folder that a killed writer had moved out of the way of `target`, if there is one.

    Only where the system cannot exchange two folders at once; the next writer puts it back.
    """
    try:
        return next(iter(neighbours(target, "old")), None)
    except OSError:
        return None


def _canonical(target: Path) -> Path:
    """Absolute, its parents free of links and `..`: one target, one lock. The last name is left
    alone.
    """
    path = Path(os.path.abspath(target))
    if "\0" in str(target) or not path.name:
        raise OutputError(
            f"{str(target)!r} cannot be written to", hint="give the name of a folder to make"
        )
    try:
        return path.parent.resolve() / path.name
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise OutputError(f"cannot write {target}: {error}") from error


def _check_apart(target: Path, source: Path | None) -> None:
    if source is None:
        return
    source, real = source.resolve(), target.resolve()
    if source == real:
        raise OutputError(f"{target} is the source itself", hint="choose another output folder")
    if real.is_relative_to(source):
        raise OutputError(
            f"{target} lies inside the source {source}", hint="choose an output folder outside it"
        )
    if source.is_relative_to(real):
        raise OutputError(
            f"the source {source} lies inside {target}", hint="choose another output folder"
        )


def _check_target(target: Path, force: bool, is_ours: Callable[[Path], bool]) -> None:
    try:
        mode = os.lstat(target).st_mode
    except FileNotFoundError:
        return
    except (
        OSError
    ) as error:  # a file among the parents, a folder that may not be searched, a name too long
        raise output_error(error, target) from error
    if stat.S_ISLNK(mode):
        raise OutputError(
            f"{target} is a symbolic link", hint="give the folder that it should lead to"
        )
    if not stat.S_ISDIR(mode):
        raise OutputError(f"{target} is a file, expected a folder", hint="choose another name")
    if not force:
        raise OutputError(
            f"{target} exists",
            hint="choose another folder, or replace it with force=True",
            cli_hint="choose another folder, or replace it with --force",
        )
    try:
        if os.listdir(target) and not is_ours(target):
            raise OutputError(
                f"{target} holds files that gpt-edge did not write; it is left alone",
                hint="choose another folder, or remove it yourself",
            )
    except OSError as error:
        raise output_error(error, target) from error


def make_folder(folder: Path, made: list[Path] | None = None, mode: int = 0o777) -> None:
    """Make `folder`, an absolute path, and its parents where they are missing; they outlast a power
    cut. made: gets those that were made. Raises OutputError.
    """
    try:
        for place in reversed([place for place in (folder, *folder.parents) if not place.exists()]):
            with suppress(FileExistsError):  # another writer was quicker
                os.mkdir(place, mode)
                if made is not None:
                    made.append(place)
            flush_folder(place.parent)
    except OSError as error:
        raise output_error(error, folder) from error


@contextmanager
def _parents(folder: Path, mode: int = 0o777) -> Iterator[None]:
    """Make `folder` and its parents; after an exception those it made are removed again."""
    made: list[Path] = []
    try:
        make_folder(folder, made, mode)
        yield
    except BaseException:
        for place in reversed(made):
            with suppress(OSError):  # not empty: somebody uses it by now
                os.rmdir(place)
        raise


@contextmanager
def _disk_errors(temporary: Path, target: Path, n_bytes: int) -> Iterator[None]:
    """Turn an OSError about the room on this disk, a file in `temporary`, or no file at all, into
    an OutputError.
    """
    try:
        yield
    except OSError as error:
        name = error.filename
        inside = isinstance(name, str | os.PathLike) and Path(name).is_relative_to(temporary)
        if error.errno in FULL or inside or name is None:  # a failed write names no file
            raise output_error(error, target, max(n_bytes, _size(temporary))) from error
        raise


def _put_in_place(temporary: Path, target: Path) -> None:
    if not os.path.lexists(target):
        os.rename(temporary, target)
    elif not _exchange(temporary, target):
        try:
            os.rename(target, temporary_name(target, "old"))
            os.rename(temporary, target)
            flush_folder(target.parent)  # before files of the old one go
        finally:
            recover(target)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step; False where the system or the disk's format cannot."""
    if sys.platform != "linux":
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # an old C library
        return False
    if renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _fsync_tree(folder: Path) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            _fsync_file(Path(place, name))
        flush_folder(Path(place))


def _fsync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """Let the names in a folder outlast a power cut. Raises OSError."""
    if sys.platform == "win32":  # has no way to flush a folder
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total
