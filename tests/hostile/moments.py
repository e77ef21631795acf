"""Moments of one run of a command: at each the process forks, the fork gets Ctrl-C and ends, and
the process itself goes on as if nothing had been.

Two hundred moments so cost one run and two hundred ends. A moment is counted in CPU time, and comes
where Python looks at signals, as Ctrl-C does. A fork has the folder that it works in, and its open
files, for itself: a copy is mounted in its place. Linux only; needs root or user namespaces.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

MS_BIND, MS_PRIVATE_TREE = 0x1000, 0x44000  # linux/mount.h: MS_PRIVATE | MS_REC
NEW_MOUNTS, NEW_USER = 0x20000, 0x10000000  # linux/sched.h
HANGS = 120  # seconds of the clock
SOON = 1e-4  # seconds of CPU time
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Ended:
    """How a fork ended. code: negative is a signal, None hung. seconds: of CPU time, from Ctrl-C
    on. where: what ran then.
    """

    code: int | None
    errors: str
    seconds: float
    where: str
    files: list[str]  # that are left
    was_done: bool = False  # the command: it ignores Ctrl-C by then


class Moments:
    """The moments of this process; `begin` is called just before the command."""

    def __init__(self, world: Path, seconds: list[float], results: Path) -> None:
        """seconds: of CPU time from `begin` on, sorted. results: gets a line of JSON a moment."""
        self.world = world
        self.seconds = seconds
        self.results = results
        self.own = world.parent / "fork"
        self.lost = 0.0  # CPU time that the forks took here

    def begin(self) -> None:
        """From here on moments come."""
        signal.signal(signal.SIGPROF, self._fork)
        self.lost = time.process_time()
        self._wait()

    def _wait(self) -> None:
        if self.seconds:
            left = self.seconds.pop(0) - (time.process_time() - self.lost)
            signal.setitimer(signal.ITIMER_PROF, max(left, 1e-5))

    def _fork(self, number: int, frame: FrameType | None) -> None:
        if holds_a_lock():
            signal.setitimer(signal.ITIMER_PROF, SOON)
            return
        began = time.process_time()
        shutil.rmtree(self.own, ignore_errors=True)
        self.own.mkdir()
        child = os.fork()
        if child == 0:
            interrupt_here(self.world, self.own)
            return
        where = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""
        ended = self._outcome(child, where)
        with self.results.open("a") as stream:
            stream.write(json.dumps(asdict(ended)) + "\n")
        self.lost += time.process_time() - began
        self._wait()

    def _outcome(self, child: int, where: str) -> Ended:
        deadline = time.monotonic() + HANGS
        while not (found := os.wait4(child, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.wait4(child, 0)
                return Ended(None, self._said(), 0.0, where, [])
            time.sleep(0.002)
        base = float((self.own / "began").read_text())
        seconds = found[2].ru_utime + found[2].ru_stime - base
        code = os.waitstatus_to_exitcode(found[1])
        names = names_in(self.own / "world")
        return Ended(code, self._said(), seconds, where, names, (self.own / "ignored").exists())

    def _said(self) -> str:
        return (self.own / "errors").read_text()


def holds_a_lock() -> bool:
    """Whether this thread holds a lock that a fork would wait for, that of pools, or would find
    released, that of logging.
    """
    pool = getattr(sys.modules.get("concurrent.futures.thread"), "_global_shutdown_lock", None)
    log = getattr(sys.modules.get("logging"), "_lock", None)  # none while it is imported
    return (pool is not None and pool.locked()) or (log is not None and log._is_owned())


def names_in(folder: Path) -> list[str]:
    """What lies below a folder, sorted."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def interrupt_here(world: Path, own: Path) -> None:
    """Ctrl-C for this fork, in a world of its own."""
    move_to_copy(world, own / "world")
    os.dup2(os.open(own / "errors", os.O_WRONLY | os.O_CREAT), 2)
    (own / "began").write_text(str(time.process_time()))
    signal.raise_signal(signal.SIGINT)
    (own / "ignored").touch()


def move_to_copy(world: Path, copy: Path) -> None:
    """Let this fork alone see a copy in place of `world`, with its files open as they were. To
    gpt-edge it is its parent, whose models it goes on with: there are no threads that it lacks.
    """
    parent = os.getppid()
    os.getpid = lambda: parent
    shutil.copytree(world, copy, symlinks=True)
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError, ValueError):  # of the listing; a file without a name
            path = Path(os.readlink(f"/proc/self/fd/{name}"))
            _open_again(int(name), copy / path.relative_to(world), _is_locked(path))
    mount_own(copy, world)


def mount_own(copy: Path, folder: Path) -> None:
    """Let this process alone see `copy` in place of `folder`."""
    namespaces = NEW_MOUNTS if os.geteuid() == 0 else NEW_MOUNTS | NEW_USER
    _check(_libc.unshare(namespaces))
    _check(_libc.mount(b"none", b"/", None, MS_PRIVATE_TREE, None))
    _check(_libc.mount(os.fsencode(copy), os.fsencode(folder), None, MS_BIND, None))
    os.chdir(os.getcwd())  # looked up anew


def _is_locked(path: Path) -> bool:
    """Whether a descriptor of a lock file holds the lock: Ctrl-C may come just before."""
    if path.suffix != ".lock":
        return False
    another = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(another)
    return False


def _open_again(descriptor: int, path: Path, is_locked: bool) -> None:
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    new = os.open(path, flags)
    with suppress(OSError):  # a folder
        os.lseek(new, os.lseek(descriptor, 0, os.SEEK_CUR), os.SEEK_SET)
    os.dup2(new, descriptor, inheritable=False)
    os.close(new)
    if is_locked:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _check(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def can_isolate() -> bool:
    """Whether a fork may have mounts of its own here."""
    if sys.platform != "linux":
        return False
    child = os.fork()
    if child == 0:
        namespaces = NEW_MOUNTS if os.geteuid() == 0 else NEW_MOUNTS | NEW_USER
        is_allowed = _libc.unshare(namespaces) == 0
        is_allowed = is_allowed and not _libc.mount(b"none", b"/", None, MS_PRIVATE_TREE, None)
        os._exit(0 if is_allowed else 1)
    return os.waitpid(child, 0)[1] == 0
