"""The process that tries mutants: it imports the tests once, and forks for each mutant.

A pytest plugin. Every file of tests first runs in a child of its own that records which test runs
which line, how long it takes, and what fails without any mutant, which is left out. The child of a
mutant exchanges the code of the functions that it changes, and runs the tests of its statement
until one fails: first those that killed most mutants of the file in least time, then the module's
own file of tests, then file by file, the quickest first. Children do not see each other's folders,
and have limits of processor time, for each test, and of memory. What tests import when they run is
imported before the forks. Tests that start other processes start them without the mutant.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import gc
import importlib
import math
import resource
import time
import types
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from scripts.mutant_children import Work, run_jobs
from scripts.mutant_lines import Covering, Recorder, run_test
from scripts.mutant_making import ROOT, Mutant, source_of
from tests.hostile import attempt_server
from tests.hostile.attempts import Attempts, Outcome

ALIVE = "alive"
GRACE = 10.0  # seconds of processor time, besides three times what the tests take
GRACE_OF_TEST = 2.0  # the same for one test, besides twice what it takes


class Server:
    """Collects once, then runs jobs in forked children, some at once."""

    def __init__(
        self,
        queue: Iterator[Mutant],
        files: dict[str, tuple[str, ...]],
        n_children: int,
        kept: Path,
        report: Callable[[Mutant, dict[str, Any]], None],
        seconds_of_tests: float,
        n_examples: int,
    ) -> None:
        """files: of the package, each with the folders and files of its tests. kept: a folder for
        the lines that tests run, a file for each file of tests. n_examples: that hypothesis draws
        for a test that does not say how many.
        """
        self.queue = queue
        self.files = {str(ROOT / path): path for path in files}
        self.recorder = Recorder(list(files), kept)
        self.tests_of = {path: tuple(str(ROOT / test) for test in files[path]) for path in files}
        self.n_children = n_children
        self.report = report
        self.seconds_of_tests = seconds_of_tests
        self.n_examples = n_examples
        self.covering = Covering()
        self.sound: dict[int, bool] = {}  # whether a test that killed passes without a mutant

    # hooks of pytest

    def pytest_configure(self) -> None:
        """No time for making a failing example small, and the same examples for every mutant."""
        phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
        hypothesis.settings.register_profile(
            "mutants", deadline=None, phases=phases, derandomize=True, database=None,
            max_examples=self.n_examples, suppress_health_check=list(hypothesis.HealthCheck),
        )  # fmt: skip
        hypothesis.settings.load_profile("mutants")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Everything happens here."""
        for path in self.files.values():  # what tests import only when they run
            importlib.import_module(
                path.removesuffix("/__init__.py").removesuffix(".py").replace("/", ".")
            )
        _draw()
        gc.collect()
        gc.unfreeze()
        self.functions = self._functions()
        gc.freeze()
        self.folders: Any = session.config._tmp_path_factory  # type: ignore[attr-defined]
        self._open_here()
        self._record(session)
        self._try(session)
        return True

    def _open_here(self) -> None:
        """Hostile bundles are opened in a child of the mutant's, which has the mutant too; while
        lines are recorded, in the process itself.
        """

        def attempt(attempts: Attempts, path: Path, what: str = "run") -> Outcome:
            def work() -> None:
                attempt_server.TASKS[what](path)

            if not self.recorder.is_on:
                # that of the mutant's child, which nobody may raise
                attempt_server.ADDRESS_SPACE = resource.getrlimit(resource.RLIMIT_AS)[1]
                return Outcome(**attempt_server.in_child(work))  # type: ignore[arg-type]
            return Outcome(**attempt_server.outcome_of(work), seconds=0.0)  # type: ignore[arg-type]

        for name, own in (("__init__", _nothing), ("run", attempt), ("close", _nothing)):
            setattr(Attempts, name, own)

    def _record(self, session: pytest.Session) -> None:
        """A child for every file of tests that changed, or whose lines changed, since the last run;
        what they import is imported here too.
        """
        by_file: dict[Path, list[pytest.Item]] = defaultdict(list)
        for item in session.items:
            by_file[item.path].append(item)
        kept = {path: self.recorder.read(path) for path in by_file}
        missing = [path for path, answer in kept.items() if answer is None]
        record = self.recorder.record
        jobs = ((path, functools.partial(record, by_file[path]), 3600.0) for path in missing)
        for path, answer in run_jobs(jobs, self.n_children, self._prepare):
            if "found" not in answer:
                print("left out, since it did not come to its end:", path.name, flush=True)
                continue
            kept[path] = answer
            print(f"{path.name}: {len(answer['found'])} tests", flush=True)
            self.recorder.write(path, answer)
        answers = [answer for answer in kept.values() if answer]
        self.covering.know(session.items, answers)
        for name in sorted({name for answer in answers for name in answer["modules"]}):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        gc.collect()
        gc.freeze()

    # mutants

    def _functions(self) -> dict[tuple[str, str, int], list[types.FunctionType]]:
        """Every live function of the files, by the place of its code."""
        found = defaultdict(list)
        for thing in gc.get_objects():
            if type(thing) is types.FunctionType and thing.__code__.co_filename in self.files:
                found[_place(thing.__code__)].append(thing)
        return found

    def _try(self, session: pytest.Session) -> None:
        for path in self.tests_of:
            original_codes(path)

        def jobs() -> Iterator[tuple[Mutant, Work, float]]:
            for mutant in self.queue:
                folders = self.tests_of[mutant.path]
                numbers = self.covering.of(mutant, session.items, folders, self.seconds_of_tests)
                seconds = sum(map(self.covering.seconds.__getitem__, numbers))
                chosen[mutant] = numbers
                yield mutant, self._work(mutant, session, numbers), 3 * seconds + GRACE

        chosen: dict[Mutant, list[int]] = {}
        for mutant, answer in run_jobs(jobs(), self.n_children, self._prepare):
            self.covering.learn(mutant.path, chosen.pop(mutant), answer.get("killer"))
            killer = answer.get("killer")
            if killer is not None and killer not in self.sound:
                item = session.items[killer]
                alone = [("", self._work(None, session, [killer]), 600.0)]
                ((_, found),) = run_jobs(iter(alone), 1, self._prepare)
                self.sound[killer] = found["outcome"] == ALIVE
                if not self.sound[killer]:
                    print("fails by itself:", item.nodeid, flush=True)
            if killer is not None and not self.sound[killer]:
                answer["outcome"] = "unclear"
            self.report(mutant, answer)

    def _work(self, mutant: Mutant | None, session: pytest.Session, numbers: list[int]) -> Work:
        def work() -> dict[str, Any]:
            if mutant is not None and not self._exchange(mutant):
                return {"outcome": "not exchanged"}
            chosen = [session.items[n] for n in numbers]
            for number, item in enumerate(chosen):
                self._limit(numbers[number])
                run_test(item, chosen[number + 1] if number + 1 < len(chosen) else None)
                if self.recorder.failed:
                    return {
                        "outcome": "killed",
                        "killer": numbers[number],
                        "test": item.nodeid,
                        "tests": number + 1,
                    }
            return {"outcome": ALIVE if chosen else "not run", "tests": len(chosen)}

        return work

    def _limit(self, number: int) -> None:
        """In a child: the processor time that the next test may take."""
        seconds = time.process_time() + 2 * self.covering.seconds.get(number, GRACE) + GRACE_OF_TEST
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (min(math.ceil(seconds), hard), hard))

    def _exchange(self, mutant: Mutant) -> bool:
        """Put a mutant's code into the live functions; false where none has it."""
        name = str(ROOT / mutant.path)
        before = original_codes(mutant.path)
        after = codes(compile(mutant.tree(), name, "exec", dont_inherit=True))
        n_exchanged = 0
        for place, code in after.items():
            if len(code) != 1 or before.get(place) == code:
                continue
            for function in self.functions.get(place, ()):
                try:
                    function.__code__ = code[0]
                except ValueError:  # other variables of the function around it
                    return False
                n_exchanged += 1
        return n_exchanged > 0

    def _prepare(self, folder: Path) -> None:
        """In a child: pytest's folders are inside its own."""
        self.folders._given_basetemp = folder / "pytest"
        self.folders._basetemp = None
        self.recorder.failed = ""


@hypothesis.given(
    strategies.text(),
    strategies.binary(),
    strategies.lists(strategies.integers() | strategies.floats()),
)
def _draw(text: str, content: bytes, values: list[float]) -> None:
    """Load hypothesis's tables, which takes seconds, before the forks."""


def _nothing(*arguments: object) -> None:
    pass


@functools.cache
def original_codes(path: str) -> dict[tuple[str, str, int], list[types.CodeType]]:
    """All functions' codes of a file of the package."""
    tree = ast.parse(source_of(path))
    return codes(compile(tree, str(ROOT / path), "exec", dont_inherit=True))


def codes(code: types.CodeType) -> dict[tuple[str, str, int], list[types.CodeType]]:
    """All functions' codes of a module, by place; lambdas of one line share theirs."""
    found: dict[tuple[str, str, int], list[types.CodeType]] = defaultdict(list)
    pending = [code]
    while pending:
        for constant in pending.pop().co_consts:
            if isinstance(constant, types.CodeType):
                found[_place(constant)].append(constant)
                pending.append(constant)
    return found


def _place(code: types.CodeType) -> tuple[str, str, int]:
    return code.co_filename, code.co_qualname, code.co_firstlineno
