"""What files.py promises when something fails: every operation in turn, SIGKILL, real limits, many
writers at once.

The rule after each fault: the target is the old bundle or the new one, whole; the error is one line
that names it; and after the next export nothing else lies beside it. Method: SQLite's tests, which
fail the first, second, … operation.
"""

from __future__ import annotations

import errno
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gpt_edge.bundle import bundle
from gpt_edge.errors import OutputError
from gpt_edge.system import atomic_files as files
from gpt_edge.system import disk, lock
from tests.conftest import REPO
from tests.support.bundle_factory import label_of, write_tiny_bundle
from tests.support.warm_process import PATIENCE

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="fork, SIGKILL and rlimits are POSIX"
)

MADE_BY_US = {"open", "write", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "exchange"}
# removal works on a full disk
NEEDS_ROOM = {"open", "write", "fsync", "rename", "replace", "mkdir", "exchange"}


class Failing:
    """Stands for `os` in the modules that write: counts their operations and lets some of them
    fail.

    fails(index, name): called before each; it may raise, or return "short" for a write that stops
    half-way, or "after" for an interrupt that comes when the operation has been done.
    """

    def __init__(self, fails: Callable[[int, str], str | None]) -> None:
        self.fails = fails
        self.count = 0

    def run(self, name: str, operation: Callable[..., Any], *args: Any, **options: Any) -> Any:
        self.count += 1
        how = self.fails(self.count - 1, name)
        if name == "fsync":
            return None  # counted; slow, and unseen without a power cut
        if how == "short" and name == "write":
            return operation(args[0], bytes(args[1])[: max(1, len(args[1]) // 2)])
        result = operation(*args, **options)
        if how == "after":
            raise KeyboardInterrupt
        return result

    def __getattr__(self, name: str) -> Any:
        operation = getattr(os, name)
        if name not in MADE_BY_US:
            return operation
        return lambda *args, **options: self.run(name, operation, *args, **options)


@pytest.fixture
def install(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[Callable[[int, str], str | None]], Failing]]:
    """Return what puts a Failing in the place of `os`, until `monkeypatch.undo`."""
    exchange = files._exchange

    def put(fails: Callable[[int, str], str | None]) -> Failing:
        failing = Failing(fails)
        for module in (bundle, disk, files, lock, shutil):
            monkeypatch.setattr(module, "os", failing)
        monkeypatch.setattr(
            files, "_exchange", lambda *pair: failing.run("exchange", exchange, *pair)
        )
        return failing

    return put


def fail_at(index: int, kind: str) -> Callable[[int, str], str | None]:
    """A `fails` for Failing that strikes at the operation `index`, or from there on."""

    def fails(count: int, name: str) -> str | None:
        if kind == "full from here on" and count >= index and name in NEEDS_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if count != index:
            return None
        if kind == "full once" and name in NEEDS_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if kind == "broken disk":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if kind == "read-only":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        if kind == "interrupt before":
            raise KeyboardInterrupt
        if kind == "death":
            os._exit(9)
        return {"short write": "short", "interrupt after": "after"}.get(kind)

    return fails


def export(out: Path, label: str) -> str:
    """Export and return what happened: "done", or the kind of the error. Any error but the two
    expected ones escapes.
    """
    try:
        write_tiny_bundle(out, label, force=True)
    except OutputError as error:
        names_it = error.message.startswith(f"cannot write {out}: ") and "\n" not in error.message
        return "OutputError" if names_it else f"unclear: {error.message}"
    except KeyboardInterrupt:
        return "KeyboardInterrupt"
    return "done"


KINDS = [
    "full once",
    "full from here on",
    "broken disk",
    "read-only",
    "short write",
    "interrupt before",
    "interrupt after",
    "death",
]


WAYS = ["new", "exchange", "aside"]
Install = Callable[[Callable[[int, str], str | None]], Failing]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_a_fault_at_every_third_operation_leaves_the_old_bundle_or_the_new_one(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch, kind: str, way: str
) -> None:
    """The kinds of faults take turns, so that each operation fails in some way."""
    check_faults(tmp_path, install, monkeypatch, kind, way, first=KINDS.index(kind) % 3, step=3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_a_fault_at_any_operation_leaves_the_old_bundle_or_the_new_one(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch, kind: str, way: str
) -> None:
    check_faults(tmp_path, install, monkeypatch, kind, way)


def check_faults(
    tmp_path: Path,
    install: Install,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    way: str,
    first: int = 0,
    step: int = 1,
) -> None:
    """Let one operation after the other fail, from `first` on, until none is left."""
    had_old = way != "new"
    out = tmp_path / "out"
    outcomes = set()
    for index in range(first, 200, step):
        shutil.rmtree(out, ignore_errors=True)
        monkeypatch.undo()
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)
        if had_old:
            write_tiny_bundle(out, "old")
        failing = install(fail_at(index, kind))
        if way == "aside":
            monkeypatch.setattr(files, "_exchange", lambda one, other: False)
        outcome = in_child(lambda: export(out, "new")) if kind == "death" else export(out, "new")
        monkeypatch.undo()
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)
        outcomes.add(outcome)
        # between the two renames
        if way == "aside" and kind in ("death", "full from here on") and not out.exists():
            with pytest.raises(bundle.BundleError, match="a replacement was cut short"):
                label_of(out)
            assert label_of(files.find_set_aside(out) or out) == "old"
        else:
            assert not had_old or out.exists()
            assert not out.exists() or label_of(out) in (("old", "new") if had_old else ("new",))
        if outcome == "KeyboardInterrupt":
            assert not [name for name in os.listdir(tmp_path) if name != "out"]
        write_tiny_bundle(out, "next", force=True)
        assert label_of(out) == "next"
        assert os.listdir(tmp_path) == ["out"]
        if outcome == "done" and (kind == "death" or failing.count <= index):
            break
    else:
        pytest.fail("the export never came to its end")
    assert index >= 20  # as many operations were made to fail
    expected = {"death": "died", "short write": "done"}.get(kind)
    expected = expected or ("KeyboardInterrupt" if kind.startswith("interrupt") else "OutputError")
    assert outcomes == {"done", expected}


def in_child(work: Callable[[], object]) -> str:
    """Run `work` in a forked child: "done", or "died"."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return "done" if os.waitpid(child, 0)[1] == 0 else "died"


def kill_while_publishing(
    out: Path, n_kills: int, monkeypatch: pytest.MonkeyPatch
) -> dict[str, int]:
    """Replace `out` in a child and kill it at a random moment, `n_kills` times; count what was
    found.
    """
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    write_tiny_bundle(out, "old", size=200_000)
    seconds = math.inf
    for _ in range(5):  # the quickest: a busy machine may pause one
        begin = time.perf_counter()
        write_tiny_bundle(out, "old", force=True, size=200_000)
        seconds = min(seconds, time.perf_counter() - begin)
    draw = random.Random(0)
    found = {"old": 0, "new": 0}
    strays = 0
    for _ in range(n_kills):
        ready, tell = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(tell, b"!")
                write_tiny_bundle(out, "new", force=True, size=200_000)
                signal.pause()
            finally:
                os._exit(0)
        os.read(ready, 1)
        time.sleep(draw.uniform(0, 3 * seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(tell)
        strays += len(os.listdir(out.parent)) > 1
        found[label_of(out)] += 1
        write_tiny_bundle(out, "old", force=True, size=200_000)
        assert os.listdir(out.parent) == [out.name]
    return {**found, "strays": strays}


def test_killed_at_50_random_moments_the_target_is_the_old_bundle_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = kill_while_publishing(tmp_path / "out", 50, monkeypatch)
    assert found["old"] + found["new"] == 50
    assert found["strays"] > 0  # some kills did come in the middle of the work


@pytest.mark.slow
def test_killed_at_500_random_moments_the_target_is_the_old_bundle_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = kill_while_publishing(tmp_path / "out", 500, monkeypatch)
    assert min(found.values()) > 10


@pytest.mark.parametrize("limit", [0, 1, 700, 1096, 2999, 3000, 100_000])
def test_a_file_size_limit_is_an_output_error_with_the_numbers(tmp_path: Path, limit: int) -> None:
    out = tmp_path / "out"
    write_tiny_bundle(out, "old")
    reader, writer = os.pipe()

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            write_tiny_bundle(out, "new", force=True)
            message = "done"
        except OutputError as error:
            message = error.message
        os.write(writer, message.encode())

    assert in_child(limited) == "done"
    os.close(writer)
    with os.fdopen(reader) as stream:
        message = stream.read()
    if limit < 3000:  # model.onnx is the largest file
        assert message.startswith(f"cannot write {out}: File too large; at least ")
        assert f"bytes free, files limited to {limit} bytes each (ulimit -f)" in message
        assert label_of(out) == "old"
    else:
        assert message == "done"
        assert label_of(out) == "new"
    assert os.listdir(tmp_path) == ["out"]


def on_a_tmpfs(tmp_path: Path, options: str, command: str) -> subprocess.CompletedProcess[str]:
    """Run `command`, a shell line, with a small disk mounted at $DISK, seen by that process only;
    or skip.
    """
    mount = f"mount -t tmpfs -o {options} none {tmp_path} && cd {tmp_path}"
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode
    ):
        pytest.skip("mounting a small disk needs root")
    environment = {**os.environ, "PYTHONPATH": str(REPO), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{mount} && {command}"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=PATIENCE,
    )


EXPORT = """
from pathlib import Path
from tests.support.bundle_factory import write_tiny_bundle
try:
    write_tiny_bundle(Path("out"), "new", size={size})
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_full_disk_is_an_output_error_and_leaves_nothing(tmp_path: Path) -> None:
    script = EXPORT.format(size=2_000_000)
    done = on_a_tmpfs(tmp_path, "size=1m", f"{sys.executable} -c '{script}'; ls -A")
    assert done.stdout.startswith("OutputError cannot write"), done
    assert "No space left on device; at least" in done.stdout
    assert len(done.stdout.splitlines()) == 1  # ls -A found nothing


def test_a_read_only_disk_is_an_output_error(tmp_path: Path) -> None:
    script = EXPORT.format(size=1000)
    done = on_a_tmpfs(tmp_path, "ro", f"{sys.executable} -c '{script}'")
    assert done.stdout.startswith("OutputError cannot write"), done
    assert "Read-only file system" in done.stdout


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_folder_that_may_not_be_written_is_an_output_error(
    tmp_path: Path, install: Callable[[Callable[[int, str], str | None]], Failing], code: int
) -> None:
    def fails(count: int, name: str) -> None:
        raise (
            PermissionError(code, os.strerror(code))
            if code != errno.EROFS
            else OSError(code, os.strerror(code))
        )

    install(fails)
    with pytest.raises(OutputError, match=os.strerror(code)):
        write_tiny_bundle(tmp_path / "out")
    assert os.listdir(tmp_path) == []


def race(out: Path, n_writers: int, n_rounds: int, n_readers: int) -> dict[str, int]:
    """Let processes replace one target while others open it; return how often each thing
    happened.
    """
    write_tiny_bundle(out, "0")
    reader, writer = os.pipe()

    def note(what: str) -> None:
        os.write(writer, (what + "\n").encode())  # short enough to be whole

    def write(label: str) -> None:
        for _ in range(n_rounds):
            try:
                write_tiny_bundle(out, label, force=True, size=20_000)
                note("written")
            except OutputError as error:
                note("busy" if "busy" in error.message else error.message)

    def read() -> None:
        parent = os.getppid()
        while os.getppid() == parent and not (out.parent / "stop").exists():
            try:
                bundle.Bundle.open(out)
                note("read")
            except bundle.BundleError as error:
                note("changing" if "replaced each time" in error.message else error.message)

    readers = [start(read, reader, note) for _ in range(n_readers)]
    writers = [start(partial(write, str(number)), reader, note) for number in range(n_writers)]
    os.close(writer)
    counts = count_notes(reader, n_writers, out.parent / "stop")
    for child in (*writers, *readers):
        os.waitpid(child, 0)
    (out.parent / "stop").unlink()
    return counts


def start(work: Callable[[], None], reader: int, note: Callable[[str], None]) -> int:
    """Fork a process that does the work and notes its end; return its id."""
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            work()
        except BaseException as error:
            note(repr(error))
        finally:
            note("ended")
            os._exit(0)
    return child


def count_notes(reader: int, n_writers: int, stop: Path) -> dict[str, int]:
    """Count the lines that the processes write; once every writer has ended, tell the readers."""
    counts: dict[str, int] = {}
    with os.fdopen(reader) as stream:
        for line in stream:
            counts[line.strip()] = counts.get(line.strip(), 0) + 1
            if counts.get("ended", 0) == n_writers:
                stop.touch()
    return counts


def check_race(tmp_path: Path, n_writers: int, n_rounds: int, n_readers: int) -> None:
    counts = race(tmp_path / "out", n_writers, n_rounds, n_readers)
    assert set(counts) <= {"written", "busy", "read", "changing", "ended"}
    assert counts["written"] + counts.get("busy", 0) == n_writers * n_rounds
    assert counts["read"] > 0
    assert label_of(tmp_path / "out") in [str(number) for number in range(n_writers)]
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.every_core
def test_writers_and_readers_at_once_never_see_a_mixture(tmp_path: Path) -> None:
    check_race(tmp_path, n_writers=3, n_rounds=15, n_readers=2)


@pytest.mark.every_core
@pytest.mark.slow
def test_eight_writers_and_two_readers_at_once_never_see_a_mixture(tmp_path: Path) -> None:
    check_race(tmp_path, n_writers=8, n_rounds=50, n_readers=2)
