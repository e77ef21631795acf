"""Processes that have imported torch already.

An export in a process of its own spends most of its time on imports. Here one process has done them
for a whole worker, and forks: signals, exit codes, limits and streams are those of any process. Not
for tests whose subject is how the interpreter starts or ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPO, run_on

# seconds that anything may take on a busy machine; pytest itself ends a test after 900
PATIENCE = 880

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.support.warm_imports"])


class WarmProcess:
    """`python -c CODE ARGUMENTS` without input, with what tests use of subprocess.Popen.

    env: the whole environment. stderr: a file descriptor; None collects it, as standard output is.
    before: what the process calls first.
    """

    def __init__(
        self,
        code: str,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        stderr: int | None = None,
        before: Callable[[], object] | None = None,
    ) -> None:
        self._out = tempfile.TemporaryFile()  # noqa: SIM115, it outlives this call
        self._err = tempfile.TemporaryFile()  # noqa: SIM115
        program = Program(code, [str(argument) for argument in arguments], env, before)
        program.streams = (self._out.fileno(), self._err.fileno() if stderr is None else stderr)
        with contextlib.chdir(REPO), pytest.MonkeyPatch.context() as patch:
            patch.setenv("OMP_NUM_THREADS", "1")  # read by torch when it is imported
            self._process = CONTEXT.Process(target=program)
            self._process.start()

    @property
    def returncode(self) -> int | None:
        """As subprocess.Popen's."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """As subprocess.Popen's."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """By SIGKILL, unless it has ended."""
        self._process.kill()

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for its end; returns what it wrote."""
        self._process.join(timeout)
        assert self.returncode is not None, f"still running after {timeout} s"
        written = []
        for file in (self._out, self._err):
            file.seek(0)
            written.append(file.read().decode())
            file.close()
        return written[0], written[1]


class Program:
    """What the forked process does; its streams travel as file descriptors."""

    streams: tuple[Any, ...]

    def __init__(
        self,
        code: str,
        arguments: list[str],
        env: Mapping[str, str] | None,
        before: Callable[[], object] | None,
    ) -> None:
        self.code = code
        self.arguments = arguments
        self.env = dict(os.environ if env is None else env)
        self.before = before
        self.folder = os.getcwd()
        self.cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "streams": [DupFd(stream) for stream in self.streams]}

    def __call__(self) -> None:
        for number, stream in enumerate(self.streams, start=1):
            os.dup2(stream.detach(), number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(self.env)
        os.chdir(self.folder)
        run_on(self.cores)
        if self.before is not None:
            self.before()
        sys.argv = ["-c", *self.arguments]
        exec(self.code, {"__name__": "__main__"})
