"""Which tests run which lines of the package, how long each takes, and what it imports.

Needs coverage.py (`pip install coverage`): its tracer is in C, so a test is recorded in little more
than the time that it takes. What a fixture of a module or session runs is run for each test that
uses it, not for the first alone.
"""

from __future__ import annotations

import functools
import itertools
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import coverage
import pytest

from scripts.mutant_making import ROOT, Mutant, digest_of

FAVOURITES = 4  # tests that are tried before the others, whatever file they are in
HEAVY = ("torch", "transformers", "optimum", "tests", "conftest")  # not imported before the forks
Answer = dict[str, Any]


def run_test(item: pytest.Item, following: pytest.Item | None) -> None:
    """Run one test as pytest does."""
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)


@dataclass
class Covering:
    """Which tests run which lines, by the test's number among the collected ones, and how many
    mutants each met and killed so far.
    """

    seconds: dict[int, float] = field(default_factory=dict)
    tests: dict[tuple[str, int], list[int]] = field(default_factory=lambda: defaultdict(list))
    tried: Counter[tuple[str, int]] = field(default_factory=Counter)  # by a mutant's file and test
    killed: Counter[tuple[str, int]] = field(default_factory=Counter)

    def know(self, items: Sequence[pytest.Item], answers: list[Answer]) -> None:
        """Take in what was recorded."""
        numbers = {item.nodeid: number for number, item in enumerate(items)}
        for answer in answers:
            for name, seconds, failed, lines in answer["found"]:
                if failed or name not in numbers:
                    print("left out:", name, flush=True)
                    continue
                self.seconds[numbers[name]] = seconds
                for path, of_path in lines.items():
                    for line in of_path:
                        self.tests[path, line].append(numbers[name])

    def learn(self, path: str, numbers: list[int], killer: int | None) -> None:
        """Remember which tests a mutant of a file met, and which killed it."""
        for number in numbers:
            self.tried[path, number] += 1
            if number == killer:
                self.killed[path, number] += 1
                return

    def _price(self, path: str, number: int) -> float:
        """Seconds of a test for each mutant of a file that it can be expected to kill."""
        share = (self.killed[path, number] + 0.1) / (self.tried[path, number] + 1)
        return (self.seconds[number] + 0.005) / share

    def of(
        self, mutant: Mutant, items: list[pytest.Item], folders: tuple[str, ...], limit: float
    ) -> list[int]:
        """The tests in these folders of a mutant's statement, in the order in which they are tried,
        for so many seconds: favourites, those of the module's own file, then file by file.
        """
        lines = range(mutant.first, mutant.last + 1)
        numbers = {n for line in lines for n in self.tests.get((mutant.path, line), ())}
        files: dict[Path, list[int]] = defaultdict(list)
        for number in sorted(numbers):
            if str(items[number].path).startswith(folders):
                files[items[number].path].append(number)
        price = functools.partial(self._price, mutant.path)
        order = sorted(itertools.chain(*files.values()), key=price)[:FAVOURITES]
        first = set(order)
        own = f"test_{Path(mutant.path).stem}"

        def place(file: Path) -> tuple[bool, float]:
            return file.stem != own, sum(self.seconds[number] for number in files[file])

        for file in sorted(files, key=place):
            order += sorted(set(files[file]) - first, key=price)
        chosen: list[int] = []
        total = 0.0
        for number in order:
            if total < limit:
                total += self.seconds[number]
                chosen.append(number)
        return chosen


class Recorder:
    """A pytest plugin that runs the tests of a file, in a process of its own, and watches."""

    def __init__(self, files: list[str], kept: Path) -> None:
        """files: of the package. kept: a folder for what is found, one file for each of tests."""
        self.files = files
        self.kept = kept
        self.failed = ""
        self.is_on = False
        self.context = ""

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the first failure."""
        if report.failed and not self.failed:
            self.failed = report.nodeid

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        """What a fixture of more than one test runs is kept under its own name."""
        if not self.is_on or fixturedef.scope == "function":
            return (yield)  # type: ignore[misc]
        outer = self.context
        self._switch(_name_of(fixturedef))
        try:
            return (yield)  # type: ignore[misc]
        finally:
            self._switch(outer)

    def _switch(self, context: str) -> None:
        self.context = context
        self.measured.switch_context(context)

    def record(self, items: Sequence[pytest.Item]) -> Answer:
        """Run these tests; of each its time, its failure and its lines, and what they import."""
        self.is_on = True
        before = set(sys.modules)
        self.measured = coverage.Coverage(
            data_file=None, config_file=False, include=[str(ROOT / path) for path in self.files]
        )
        self.measured.start()
        outcomes = []
        for number, (item, following) in enumerate(zip(items, [*items[1:], None], strict=True)):
            self.failed = ""
            self._switch(str(number))
            began = time.process_time()
            run_test(item, following)
            outcomes.append((time.process_time() - began, self.failed))
        self.measured.stop()
        lines = self._lines_by_context()
        found = []
        for number, (item, outcome) in enumerate(zip(items, outcomes, strict=True)):
            definitions: Any = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
            names = [str(number), *(_name_of(several[-1]) for several in definitions.values())]
            of_test: dict[str, set[int]] = defaultdict(set)
            for name in names:
                for path, numbers in lines.get(name, {}).items():
                    of_test[path] |= numbers
            found.append([item.nodeid, *outcome, {path: sorted(of_test[path]) for path in of_test}])
        imported = set(sys.modules) - before
        light = [name for name in imported if name.partition(".")[0] not in HEAVY]
        return {"found": found, "modules": sorted(light)}

    def _lines_by_context(self) -> dict[str, dict[str, set[int]]]:
        data = self.measured.get_data()
        lines: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
        for file in data.measured_files():
            path = Path(file).relative_to(ROOT).as_posix()
            for line, contexts in data.contexts_by_lineno(file).items():
                for context in contexts:
                    lines[context][path].add(line)
        return lines

    def _file(self, path: Path) -> Path:
        return self.kept / f"{path.relative_to(ROOT).as_posix().replace('/', '-')}.json"

    def read(self, path: Path) -> Answer | None:
        """What was recorded of a file of tests; None where that is not known of its present state
        and of the state of the files that it runs.
        """
        file = self._file(path)
        if not file.exists():
            return None
        answer: Answer = json.loads(file.read_text())
        known = all((ROOT / name).exists() for name in answer["digests"])
        if not known or any(digest_of(name) != was for name, was in answer["digests"].items()):
            return None
        return answer

    def write(self, path: Path, answer: Answer) -> None:
        """Keep it for the next run."""
        names = {name for *_, lines in answer["found"] for name in lines}
        names.add(path.relative_to(ROOT).as_posix())
        digests = {name: digest_of(name) for name in sorted(names)}
        self.kept.mkdir(exist_ok=True)
        self._file(path).write_text(json.dumps({"digests": digests, **answer}))


def _name_of(definition: Any) -> str:
    return f"fixture {id(definition)}"
