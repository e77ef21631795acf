"""A command in a fork, with faults of the disk below `out` of its world; see `writers.py`.

As it is a fork, this process may import everything once. Needs torch.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from gpt_edge.cli import main
from gpt_edge.evaluate import state
from gpt_edge.verify import native_operators
from tests.hostile.moments import move_to_copy
from tests.support.disk_operations import Disk, Fault, Operation, fault_at, no_fault
from tests.support.traces import FOLDER, share_traces

CPU_SECONDS, SECONDS = 60, 900  # of a command; longer is hung, on however busy a machine
FORKING = 1000  # times as long, of one that forks at each of its operations


@dataclass(frozen=True)
class Outcome:
    """Of one command: its exit code, None if it was killed or hung; standard error.

    tried: its operations, with those that failed of themselves, such as the removal of a file that
    is gone; done: those that did not. modules: that were imported. All three if it was recorded.
    """

    code: int | None
    errors: str
    tried: list[Operation] = field(default_factory=list)
    done: list[Operation] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)

    @property
    def problem(self) -> str:
        """What is wrong with how it ended; nothing if it is empty."""
        said = [line for line in self.errors.splitlines() if line.startswith("error: ")]
        is_clear = len(said) == 1 and not any(word in self.errors for word in UNCLEAR)
        if self.code is None:
            return "killed or hung"
        if self.code == 1:
            return "" if is_clear else f"unclear: {self.errors[-300:]!r}"
        if self.code == 130:
            is_quiet = not any(word in self.errors for word in (*UNCLEAR, "error: "))
            return "" if is_quiet else f"interrupt says {self.errors[-300:]!r}"
        return "" if self.code in (0, DIED) else f"exit code {self.code}: {self.errors[-300:]!r}"


DIED = 9
UNCLEAR = ("Traceback", "fault in gpt-edge")


def run(
    world: Path, arguments: list[str], fault: Fault = no_fault, is_recorded: bool = False
) -> Outcome:
    """A command in a fork, with faults of the disk."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        child = os.fork()
        if child == 0:
            _run_in_child(world, arguments, fault, place, is_recorded)
        status = os.waitpid(child, 0)[1]
        code = os.waitstatus_to_exitcode(status)
        errors = (place / "err").read_text() if (place / "err").exists() else ""
        recorded = pickle.loads((place / "recorded").read_bytes()) if is_recorded else []
    return Outcome(code if code >= 0 else None, errors, *recorded)


def _run_in_child(
    world: Path, arguments: list[str], fault: Fault, place: Path, is_recorded: bool
) -> None:
    code = 99
    try:
        limit_time(FORKING if isinstance(fault, Rungs) else 1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(place / name, os.O_WRONLY | os.O_CREAT), number)
        sys.stdin = open(os.devnull)  # noqa: SIM115
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        _settle(world)
        disk = Disk(world / "out", fault, is_recorded=is_recorded)
        with disk.installed():
            code = main(arguments)
        if is_recorded:
            recorded = [disk.tried, disk.done, list(sys.modules)]
            (place / "recorded").write_bytes(pickle.dumps(recorded))
        sys.stderr.flush()
    finally:
        os._exit(code)


class Rungs:
    """A fault that forks: at the operations of `points` the process forks for each kind of fault
    there; the fork meets it, in a copy of `out`, and goes on to its end, and the process goes on as
    if nothing had been. Needs `can_isolate`, and a command without threads.

    place: gets a folder for each fork, with what `out` came to and what the fork wrote.
    """

    def __init__(self, points: Iterable[tuple[int, str]], out: Path, place: Path) -> None:
        self.kinds: dict[int, list[str]] = {}
        for index, kind in points:
            self.kinds.setdefault(index, []).append(kind)
        self.out = out
        self.place = place
        self._fault: Fault | None = None  # of a fork

    def __call__(self, count: int, name: str) -> str | None:
        if self._fault is not None:
            return self._fault(count, name)
        for kind in self.kinds.get(count, ()):
            own = self._folder(count, kind)
            own.mkdir()
            child = os.fork()
            if child == 0:
                limit_time()
                move_to_copy(self.out, own / "out")
                os.dup2(os.open(own / "err", os.O_WRONLY | os.O_CREAT), 2)
                self._fault = fault_at(count, kind)
                return self._fault(count, name)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            (own / "code").write_text(str(code))
        return None

    def end(self, index: int, kind: str) -> tuple[Outcome, Path]:
        """How a fork ended, and its `out`."""
        own = self._folder(index, kind)
        code = int((own / "code").read_text())
        errors = (own / "err").read_text()
        return Outcome(code if code >= 0 else None, errors), own / "out"

    def _folder(self, index: int, kind: str) -> Path:
        return self.place / f"{index}-{kind}"


def limit_time(times: int = 1) -> None:
    """End this process when it hangs."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS * times)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS * times)


def _settle(world: Path) -> None:
    """What commands find around them."""
    os.chdir(world)
    os.environ["XDG_CACHE_HOME"] = str(world / "out" / "cache")
    os.environ["MPLCONFIGDIR"] = str(world / "in")
    os.environ["GPT_EDGE_NATIVE"] = "0"
    os.environ["CC"] = str(world / "in" / "cc")
    state.SAVE_SECONDS = 0.0
    native_operators.check_in_child = lambda library: {}  # a process of its own, which writes not


def warm_up() -> None:
    """Import what commands import, share traces; call it once before `run`."""
    import tests.support.warm_imports  # noqa: F401

    os.environ.setdefault(FOLDER, tempfile.mkdtemp())
    torch.set_num_threads(1)
    share_traces()


def import_here(modules: list[str]) -> None:
    """What a command imported in its fork: the next fork need not."""
    for name in modules:
        if name.partition(".")[0] in ("gpt_edge", "onnxruntime", "tiktoken", "onnx"):
            with suppress(ImportError):
                importlib.import_module(name)
