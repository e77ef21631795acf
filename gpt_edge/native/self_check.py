"""Does the library compute what it should on this machine? Asked once, in a process of its own, and
remembered in the cache folder.

The library runs every operator on numbers of its own and compares a hash of the results with the
one that all bodies have (kernels/body.h): some milliseconds. A wrong result, a CPU that lacks an
instruction and a crash all read as no.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import signal
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path

from gpt_edge.errors import GPTEdgeError
from gpt_edge.native.library import cache_folder, is_own
from gpt_edge.system.atomic_files import atomic_write

SECONDS = 60
PROGRAM = (
    "import ctypes, sys\n"
    "sys.exit(0 if ctypes.CDLL(sys.argv[1]).gpt_edge_check(sys.argv[2].encode()) else 3)"
)
RIGHT, WRONG = b"right\n", b"wrong\n"


@functools.cache
def is_proven(library: Path, body: str) -> bool:
    """True if the body of the library is right on this machine. Takes 50 ms at the first call on a
    machine, and well below one afterwards.
    """
    try:
        record = _record_path(library, body)
        if record.is_file() and is_own(record):
            return record.read_bytes() == RIGHT
    except (OSError, GPTEdgeError):  # no home, or a folder that may not be read
        return check(library, body)
    is_right = check(library, body)
    with suppress(OSError, GPTEdgeError):  # a folder that may not be written: asked again
        record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        atomic_write(record, RIGHT if is_right else WRONG)
        record.chmod(0o644)
    return is_right


def check(library: Path, body: str) -> bool:
    """Run the library's check of a body in a process of its own."""
    if getattr(sys, "frozen", False):  # sys.executable is the frozen program, not a Python
        return _check_in_fork(library, body)
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, str(library), body]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _check_in_fork(library: Path, body: str) -> bool:
    """`check` without an interpreter to start: the fork calls the library and ends at once."""
    if not hasattr(os, "fork"):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads: the fork needs none of them
        pid = os.fork()
    if pid == 0:
        code = 3
        try:
            code = 0 if ctypes.CDLL(str(library)).gpt_edge_check(body.encode()) else 3
        finally:
            os._exit(code)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def _record_path(library: Path, body: str) -> Path:
    """Named by what the answer depends on: the file, the body, and the machine."""
    status = library.stat()
    machine = f"{platform.node()} {platform.machine()} {platform.release()}"
    key = f"{library} {status.st_size} {status.st_mtime_ns} {body} {machine}"
    digest = hashlib.sha256(os.fsencode(key)).hexdigest()[:16]
    return cache_folder() / f"checked-{digest}"
