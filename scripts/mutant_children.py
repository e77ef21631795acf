"""Jobs in forked children, with limits of processor seconds, of memory and of endless sleep."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MEMORY = 8 << 30  # bytes that a child may take in addition
IDLE = 90.0  # seconds that a child may sleep without a break
Answer = dict[str, Any]
Work = Callable[[], Answer]


@dataclass
class Child:
    """A job that runs."""

    key: Any
    folder: Path
    began: float = field(default_factory=time.monotonic)
    looked: float = 0.0
    idle: float = 0.0  # seconds in a row

    def hangs(self, pid: int) -> bool:
        """Whether it and what it started have slept for IDLE seconds: they wait for each other for
        ever. One that a busy machine does not let run is not asleep.
        """
        now = time.monotonic()
        if now - self.looked < 1:
            return False
        is_asleep = self.looked > 0 and set(_states(pid)) <= {"S"}
        self.idle = self.idle + now - self.looked if is_asleep else 0.0
        self.looked = now
        return self.idle > IDLE


def _states(session: int) -> Iterator[str]:
    """The states of the processes of a session, a letter each: S for one that sleeps."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                yield fields[0]


def run_jobs(
    jobs: Iterator[tuple[Any, Work, float]], n_children: int, prepare: Callable[[Path], None]
) -> Iterator[tuple[Any, Answer]]:
    """Run jobs, each with a key and a limit of processor seconds, and yield what they return.

    prepare: what a child does first with its folder.
    """
    running: dict[int, Child] = {}
    is_done = False
    while running or not is_done:
        while not is_done and len(running) < n_children:
            try:
                key, work, limit = next(jobs)
            except StopIteration:
                is_done = True
                break
            folder = Path(tempfile.mkdtemp(prefix="gpt-edge-mutant-"))
            pid = os.fork()
            if pid == 0:
                _be_child(work, folder, limit, prepare)
            running[pid] = Child(key, folder)
        for pid, child in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended and not child.hangs(pid):
                continue
            _end(pid)
            if not ended:
                status = os.waitpid(pid, 0)[1]
            del running[pid]
            seconds = time.monotonic() - child.began
            yield child.key, {**_answer(child.folder, status), "seconds": seconds}
            shutil.rmtree(child.folder, ignore_errors=True)
        time.sleep(0.02)


def _be_child(work: Work, folder: Path, limit: float, prepare: Callable[[Path], None]) -> None:
    """Run a job and end this process."""
    os.setsid()
    quiet = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(quiet, descriptor)
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    prepare(folder)
    try:
        (folder / "answer.json").write_text(json.dumps(work()))
    except BaseException as error:
        text = json.dumps({"outcome": "killed", "test": f"ended by {type(error).__name__}"})
        (folder / "answer.json").write_text(text)
    os._exit(0)


def _answer(folder: Path, status: int) -> dict[str, Any]:
    path = folder / "answer.json"
    if path.is_file() and (text := path.read_text()):
        answer: dict[str, Any] = json.loads(text)
        return answer
    return {"outcome": "killed", "test": f"ended by {_ending(status)}"}


def _ending(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return f"exit {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    slow = (signal.SIGXCPU, signal.SIGKILL)
    return "too slow" if number in slow else f"signal {number}"


def _end(pid: int) -> None:
    """End a child and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
