"""Fixtures every test may use. The shared data lies beside the checkout and is never committed."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest

if sys.platform != "win32":
    import fcntl

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# whatever is built on this machine, onnxruntime's operators are tested
os.environ["GPT_EDGE_NATIVE"] = "0"
# workers and the processes that they start read what one of them has compiled
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# a shell has what it starts in the background ignore Ctrl-C, and so would every process of a test
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def no_flush(file: object) -> None:
    """In place of os.fsync: no test can see what a power cut would leave on this disk, and the
    thousands of files of a run would wait for it. Tests of the order of operations record the call.
    """


os.fsync = no_flush

REPO = Path(__file__).resolve().parents[1]
EVERY_CORE = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else frozenset()
MANY_OBJECTS = 50_000  # a collection of so many takes 10 ms
TESTS_A_LOOK = 20  # counting objects takes milliseconds
n_started = itertools.count(1)


def own_cores() -> Iterable[int]:
    """One core where every worker of the run can have its own, else all of them.

    A worker with a second thread for each product of tiny matrices has the workers wait for each
    other's threads.
    """
    name = os.environ.get("PYTEST_XDIST_WORKER", "")
    n_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0"))
    if len(EVERY_CORE) != n_workers:
        return EVERY_CORE
    return {sorted(EVERY_CORE)[int(name.removeprefix("gw"))]}


def run_on(cores: Iterable[int]) -> None:
    """Keep this process, and those that it starts from now on, on these cores."""
    if EVERY_CORE:
        os.sched_setaffinity(0, cores)


run_on(own_cores())  # before numpy and torch are imported, which count the cores

# no fifth of a second for each example, by the clock: a busy machine takes longer
hypothesis.settings.register_profile(
    "any load", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any load")


@contextmanager
def turn(alone: bool) -> Iterator[None]:
    """Among the processes of one run, hold a test's turn: with others, or alone, when what it times
    must not be disturbed.

    Who waits holds the gate, so that the others cannot go on passing it by.
    """
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run is None or sys.platform == "win32":
        yield
        return
    place = Path(tempfile.gettempdir()) / f"gpt-edge-tests-{run}"
    with open(f"{place}.gate", "w") as gate, open(f"{place}.lock", "w") as lock:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Tests marked `alone` run while nothing else does; they, long ones and those marked
    `every_core` are not kept on one core.
    """
    marks = {mark.name for mark in item.iter_markers()}
    with turn("alone" in marks):
        if not marks & {"alone", "every_core", "slow"}:
            return (yield)
        run_on(EVERY_CORE)
        try:
            return (yield)
        finally:
            run_on(own_cores())


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Torch and transformers are imported: objects by the million, next to none of them garbage."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        freeze_old_objects()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests may take an hour; the others' limit is in pyproject.toml."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(3600))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """One thread for torch: on tiny models a second one waits more than it works, and commands ask
    for every CPU.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if next(n_started) % TESTS_A_LOOK == 0:
        freeze_old_objects()


def freeze_old_objects() -> None:
    """Let the garbage collector pass over what imports, collected tests and traces have left.

    A collection takes half a second where a worker has loaded torch and traced a few models, and
    almost nothing after this.
    """
    if len(gc.get_objects()) > MANY_OBJECTS:
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that all processes of this run share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def shared_traces(run_folder: Path) -> None:
    """Let every export of this run, in whichever process, reuse the traces of the others."""
    from tests.support.traces import FOLDER, share_traces

    os.environ[FOLDER] = str(run_folder / "traces")
    (run_folder / "traces").mkdir(exist_ok=True)
    share_traces()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; a test that needs it is skipped, saying so, where it is missing."""
    path = REPO.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the shared data folder is not beside this checkout")
    return path
