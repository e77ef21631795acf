"""The lock of a target, and what dead writers left beside it.

Names are neighbours of the target: `.NAME.lock`, `.NAME.tmp-PID-HEX` (being made),
`.NAME.old-PID-HEX` (moved aside). The lock dies with its process, so whoever holds it knows that
every other such name is dead, and clears it.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gpt_edge.errors import OutputError
from gpt_edge.system.disk import output_error

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_TEMPORARY = re.compile(r"\.(.+)\.(?:lock|(?:tmp|old)-[0-9]+-[0-9a-f]{8})")
LOCK_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)


def temporary_name(target: Path, kind: str = "tmp") -> Path:
    """Return a new name beside `target`, of a form that the next holder of the lock knows as a dead
    writer's.
    """
    return target.with_name(f".{target.name}.{kind}-{os.getpid()}-{secrets.token_hex(4)}")


def neighbours(target: Path, kind: str) -> list[Path]:
    """Return the temporary names of one kind that are there, sorted. Raises OSError if the folder
    cannot be listed.
    """
    pattern = re.compile(re.escape(f".{target.name}.{kind}-") + "[0-9]+-[0-9a-f]{8}")
    return sorted(
        target.with_name(name) for name in os.listdir(target.parent) if pattern.fullmatch(name)
    )


def recover(target: Path) -> None:
    """Put a folder that was moved aside back where `target` is gone, or remove it where `target` is
    there.
    """
    for aside in neighbours(target, "old"):
        if os.path.lexists(target):
            remove_temporary(aside)
        else:
            os.rename(aside, target)


def clear_folder(folder: Path) -> None:
    """Clear what dead writers left at any depth of `folder`, whose targets nobody may write again.
    What a living one holds stays, and what cannot be removed.
    """
    for place, folders, files in os.walk(folder):
        found = map(_TEMPORARY.fullmatch, [*folders, *files])
        for name in sorted({match[1] for match in found if match}):
            with suppress(OutputError), hold_lock(Path(place, name)):
                pass


def remove_temporary(path: Path) -> None:
    """Remove a file or folder of ours, as far as that can be done. Ctrl-C comes when it is gone."""
    try:
        _remove(path)
    except KeyboardInterrupt:
        _remove(path)
        raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            os.unlink(path)


@contextmanager
def hold_lock(target: Path) -> Iterator[None]:
    """Hold the lock of `target`, and clear what dead writers left: with the lock held, every such
    name is dead.

    Raises OutputError at once while another writer holds it.
    """
    path = target.with_name(f".{target.name}.lock")
    try:
        descriptor = _acquire(path, target)
    except OSError as error:
        raise output_error(error, target) from error
    except KeyboardInterrupt:
        # it came as the file had just been made; who else holds it by now keeps it
        with suppress(OSError, OutputError):
            descriptor = _acquire(path, target)
            os.unlink(path)
            os.close(descriptor)
        raise
    try:
        try:
            recover(target)
            for stray in neighbours(target, "tmp"):
                if stray.is_dir() and not stray.is_symlink():
                    shutil.rmtree(stray, ignore_errors=True)
                else:
                    os.unlink(stray)
        except OSError as error:
            raise output_error(error, target) from error
        yield
    finally:
        try:
            # Windows does not remove an open file; there the empty lock file stays
            with suppress(OSError):
                os.unlink(path)  # still held, so nobody else can hold this name
        except KeyboardInterrupt:
            # it came before the removal or after; another's new file of this name stays
            with suppress(OSError):
                if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                    os.unlink(path)
            raise
        finally:
            os.close(descriptor)


def _acquire(path: Path, target: Path) -> int:
    """Return the descriptor of the locked file at `path`. Raises OSError, and OutputError when it
    is taken.
    """
    while True:
        descriptor = os.open(path, LOCK_FLAGS, 0o666)
        try:
            if sys.platform == "win32":
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder removed the file between our two calls: what we hold has no name any
            # more.
            if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        except (BlockingIOError, PermissionError) as error:
            os.close(descriptor)
            raise OutputError(
                f"{target} is busy: another gpt-edge is writing it", hint="wait for it to end"
            ) from error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
