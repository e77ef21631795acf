"""The process that tries mutants: it imports the tests once, and forks for each mutant.

A pytest plugin. Every file of tests first runs in a child of its own that records which test runs
which line, how long it takes, and what fails without any mutant, which is left out. The child of a
mutant exchanges the code of the functions that it changes, and runs the tests of its statement
until one fails: file by file, the quickest first. Children do not see each other's folders, and
have limits of processor time and memory. Tests that start other processes start them without the
mutant.
"""

from __future__ import annotations

import ast
import gc
import importlib
import json
import sys
import threading
import time
import types
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from scripts.mutant_children import Work, run_jobs
from scripts.mutant_making import ROOT, Mutant, digest_of, source_of
from tests.hostile import attempt_server
from tests.hostile.attempts import Attempts, Outcome

ALIVE = "alive"
GRACE = 10.0  # seconds of processor time, besides three times what the tests take
CALLS = 100  # of a function in one test whose lines are recorded


@dataclass
class Covering:
    """Which tests run which lines, by the test's number among the collected ones."""

    seconds: dict[int, float] = field(default_factory=dict)
    tests: dict[tuple[str, int], list[int]] = field(default_factory=lambda: defaultdict(list))
    at_import: set[tuple[str, int]] = field(default_factory=set)

    def of(
        self, mutant: Mutant, items: list[pytest.Item], folders: tuple[str, ...], limit: float
    ) -> list[int]:
        """The tests in these folders of a mutant's statement, in the order in which they are tried,
        for so many seconds.
        """
        lines = range(mutant.first, mutant.last + 1)
        numbers = {n for line in lines for n in self.tests.get((mutant.path, line), ())}
        files: dict[Path, list[int]] = defaultdict(list)
        for number in sorted(numbers):
            if str(items[number].path).startswith(folders):
                files[items[number].path].append(number)
        chosen: list[int] = []
        total = 0.0
        for group in sorted(files.values(), key=lambda group: sum(map(self.seconds.get, group))):  # type: ignore[arg-type]
            for number in sorted(group, key=self.seconds.__getitem__):
                if total < limit:
                    total += self.seconds[number]
                    chosen.append(number)
        return chosen


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
    ) -> None:
        """files: of the package, each with the folders and files of its tests. kept: a folder for
        the lines that tests run, a file for each file of tests.
        """
        self.queue = queue
        self.files = {str(ROOT / path): path for path in files}
        self.tests_of = {path: tuple(str(ROOT / test) for test in files[path]) for path in files}
        self.n_children = n_children
        self.kept = kept
        self.report = report
        self.seconds_of_tests = seconds_of_tests
        self.covering = Covering()
        self.sound: dict[int, bool] = {}  # whether a test that killed passes without a mutant
        self.lines: set[tuple[str, int]] = set()
        self.calls: Counter[types.CodeType] = Counter()
        self.fixture_lines: dict[int, set[tuple[str, int]]] = {}
        self.failed = ""
        self.is_tracing = False
        self._trace()

    # hooks of pytest

    def pytest_configure(self) -> None:
        """No time for making a failing example small, and the same examples for every mutant."""
        phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
        hypothesis.settings.register_profile(
            "mutants", deadline=None, phases=phases, derandomize=True, database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )  # fmt: skip
        hypothesis.settings.load_profile("mutants")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the first failure."""
        if report.failed and not self.failed:
            self.failed = report.nodeid

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        """What a fixture runs is run for each test that uses it, not for the first alone."""
        if not self.is_tracing or fixturedef.scope == "function":
            return (yield)  # type: ignore[misc]
        outer, self.lines = self.lines, set()
        try:
            return (yield)  # type: ignore[misc]
        finally:
            self.fixture_lines[id(fixturedef)] = self.lines
            self.lines = outer | self.lines

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Everything happens here."""
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
        self.covering.at_import = self.lines
        for path in self.files.values():  # what tests import only when they run
            importlib.import_module(
                path.removesuffix("/__init__.py").removesuffix(".py").replace("/", ".")
            )
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
        attempt_server.ADDRESS_SPACE = 1 << 40  # the children's own limit holds

        def attempt(attempts: Attempts, path: Path, what: str = "run") -> Outcome:
            def work() -> None:
                attempt_server.TASKS[what](path)

            if not self.is_tracing:
                return Outcome(**attempt_server.in_child(work))  # type: ignore[arg-type]
            return Outcome(**attempt_server.outcome_of(work), seconds=0.0)  # type: ignore[arg-type]

        for name, own in (("__init__", _nothing), ("run", attempt), ("close", _nothing)):
            setattr(Attempts, name, own)

    # lines

    def _trace(self) -> None:
        sys.settrace(self._call)
        threading.settrace(self._call)

    def _call(self, frame: types.FrameType, event: str, argument: object) -> Any:
        path = self.files.get(frame.f_code.co_filename)
        if path is None:
            return None
        self.calls[frame.f_code] += 1
        if self.calls[frame.f_code] > CALLS:
            return None

        def line(frame: types.FrameType, event: str, argument: object) -> Any:
            self.lines.add((path, frame.f_lineno))
            return line

        return line(frame, event, argument)

    def _record(self, session: pytest.Session) -> None:
        """A child for every file of tests that changed, or whose lines changed, since the last
        run; `hypothesis` and others may clear a trace, so it is set for every test.
        """
        by_file: dict[Path, list[int]] = defaultdict(list)
        for number, item in enumerate(session.items):
            by_file[item.path].append(number)
        self.kept.mkdir(exist_ok=True)
        kept = {path: self._read_lines(path) for path in by_file}
        missing = [path for path, found in kept.items() if found is None]
        jobs = ((path, self._recording(session, by_file[path]), 3600.0) for path in missing)
        for path, answer in run_jobs(jobs, self.n_children, self._prepare):
            if "found" not in answer:
                print("left out, since it did not come to its end:", path.name, flush=True)
                continue
            kept[path] = answer["found"]
            print(f"{path.name}: {len(answer['found'])} tests", flush=True)
            self._write_lines(path, answer["found"])
        numbers = {item.nodeid: number for number, item in enumerate(session.items)}
        for found in kept.values():
            for name, seconds, failed, lines in found or ():
                if failed or name not in numbers:
                    print("left out:", name, flush=True)
                    continue
                self.covering.seconds[numbers[name]] = seconds
                for path, of_path in lines.items():
                    for line in of_path:
                        self.covering.tests[path, line].append(numbers[name])

    def _lines_file(self, path: Path) -> Path:
        return self.kept / f"{path.relative_to(ROOT).as_posix().replace('/', '-')}.json"

    def _read_lines(self, path: Path) -> list[Any] | None:
        """What a file of tests runs; None where that is not known of its present state."""
        file = self._lines_file(path)
        if not file.exists():
            return None
        row = json.loads(file.read_text())
        known = all((ROOT / name).exists() for name in row["digests"])
        if not known or any(digest_of(name) != digest for name, digest in row["digests"].items()):
            return None
        found: list[Any] = row["found"]
        return found

    def _write_lines(self, path: Path, found: list[Any]) -> None:
        names = {name for *_, lines in found for name in lines}
        names.add(path.relative_to(ROOT).as_posix())
        digests = {name: digest_of(name) for name in sorted(names)}
        self._lines_file(path).write_text(json.dumps({"digests": digests, "found": found}))

    def _recording(self, session: pytest.Session, numbers: list[int]) -> Work:
        """Run a file's tests, and return of each its time, its failure and its lines."""

        def work() -> dict[str, Any]:
            self.is_tracing = True
            found = []
            chosen = [session.items[number] for number in numbers]
            for item, following in zip(chosen, [*chosen[1:], None], strict=True):
                self.lines, self.failed = set(), ""
                self.calls.clear()
                self._trace()
                began = time.process_time()
                run_test(item, following)
                seconds = time.process_time() - began
                sys.settrace(None)
                definitions: Any = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
                for definition in definitions.values():
                    self.lines |= self.fixture_lines.get(id(definition[-1]), set())
                lines: dict[str, list[int]] = defaultdict(list)
                for path, line in sorted(self.lines):
                    lines[path].append(line)
                found.append([item.nodeid, seconds, self.failed, lines])
            return {"found": found}

        return work

    # mutants

    def _functions(self) -> dict[tuple[str, str, int], list[types.FunctionType]]:
        """Every live function of the files, by the place of its code."""
        found = defaultdict(list)
        for thing in gc.get_objects():
            if type(thing) is types.FunctionType and thing.__code__.co_filename in self.files:
                found[_place(thing.__code__)].append(thing)
        return found

    def _try(self, session: pytest.Session) -> None:
        def jobs() -> Iterator[tuple[Mutant, Work, float]]:
            for mutant in self.queue:
                folders = self.tests_of[mutant.path]
                numbers = self.covering.of(mutant, session.items, folders, self.seconds_of_tests)
                seconds = sum(map(self.covering.seconds.__getitem__, numbers))
                yield mutant, self._work(mutant, session, numbers), 3 * seconds + GRACE

        for mutant, answer in run_jobs(jobs(), self.n_children, self._prepare):
            answer["at_import"] = any(
                (mutant.path, line) in self.covering.at_import
                for line in range(mutant.first, mutant.last + 1)
            )
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
                run_test(item, chosen[number + 1] if number + 1 < len(chosen) else None)
                if self.failed:
                    return {
                        "outcome": "killed",
                        "killer": numbers[number],
                        "test": item.nodeid,
                        "tests": number + 1,
                    }
            return {"outcome": ALIVE if chosen else "not run", "tests": len(chosen)}

        return work

    def _exchange(self, mutant: Mutant) -> bool:
        """Put a mutant's code into the live functions; false where none has it."""
        name = str(ROOT / mutant.path)
        before = codes(compile(ast.parse(source_of(mutant.path)), name, "exec", dont_inherit=True))
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
        self.failed = ""


def _nothing(*arguments: object) -> None:
    pass


def run_test(item: pytest.Item, following: pytest.Item | None) -> None:
    """Run one test as pytest does."""
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)


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
