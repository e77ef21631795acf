"""What scripts/mutants.py is made of: small changes of code, and jobs in children with limits."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts import mutant_children, mutant_making
from scripts.mutant_children import run_jobs
from scripts.mutant_making import mutants_of

CODE = '''
LIMIT = 3


class Counter:
    def add(self, values: list[int], n: int = 1) -> int:
        """Documented 7."""
        if n < LIMIT and values:
            self.total += n
        print(f"{n + 1}")
        if n == 9:
            raise ValueError(n + 2)
        return len(values) * 2

    def __repr__(self) -> str:
        return "a" * 3
'''


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "counter.py").write_text(CODE)
    monkeypatch.setattr(mutant_making, "ROOT", tmp_path)
    mutant_making.source_of.cache_clear()
    mutant_making.digest_of.cache_clear()
    return "counter.py"


def test_what_a_caller_sees_is_changed_once_in_each_place(path: str) -> None:
    found = {(mutant.code, mutant.change) for mutant in mutants_of(path)}
    condition = "if n < LIMIT and values:"
    assert found == {
        (condition, "a condition is negated"),
        (condition, "And becomes Or"),
        (condition, "Lt becomes LtE"),
        ("self.total += n", "an addition in place becomes an assignment"),
        ('print(f"{n + 1}")', "a call is dropped"),
        ("if n == 9:", "a condition is negated"),
        ("if n == 9:", "Eq becomes NotEq"),
        ("if n == 9:", "9 becomes 10"),
        ("if n == 9:", "9 becomes 8"),
        ("return len(values) * 2", "Mult becomes Add"),
        ("return len(values) * 2", "2 becomes 3"),
        ("return len(values) * 2", "2 becomes 1"),
    }


def test_a_mutant_is_another_program_with_the_same_lines(path: str) -> None:
    results = set()
    for mutant in mutants_of(path):
        space: dict[str, Any] = {}
        exec(compile(mutant.tree(), path, "exec"), space)
        counter = space["Counter"]()
        counter.total = 10
        n_printed: list[object] = []
        space["print"] = n_printed.append
        try:
            result: object = counter.add([0, 0], 2)
        except ValueError:
            result = "refused"
        results.add((result, counter.total, len(n_printed)))
        assert CODE.splitlines()[mutant.first - 1].strip() == mutant.code
    assert (4, 12, 1) in results  # of mutants that this call does not show
    assert {(4, 10, 1), (4, 2, 1), (4, 12, 0), (6, 12, 1), (2, 12, 1)} <= results
    assert ("refused", 12, 1) in results


def answers(*works: Callable[[], Any], limit: float = 60.0) -> list[dict[str, Any]]:
    jobs = ((number, work, limit) for number, work in enumerate(works))
    found = dict(run_jobs(jobs, 2, lambda folder: os.chdir(folder)))
    return [found[number] for number in range(len(works))]


def fail() -> dict[str, Any]:
    raise RuntimeError("a test that ends in no ordinary way")


@pytest.mark.skipif(sys.platform != "linux", reason="children are looked at in /proc")
def test_children_return_fail_and_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutant_children, "IDLE", 1.5)

    def sleep() -> dict[str, Any]:
        time.sleep(600)
        return {}

    where, failed, hung, died = answers(
        lambda: {"folder": os.getcwd()}, fail, sleep, lambda: os.kill(os.getpid(), 11)
    )
    assert where["folder"] != os.getcwd()
    assert not Path(where["folder"]).exists()
    assert (failed["outcome"], failed["test"]) == ("killed", "ended by RuntimeError")
    assert (hung["outcome"], hung["test"]) == ("killed", "ended by too slow")
    assert died["test"] == "ended by signal 11"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="children are looked at in /proc")
def test_a_child_has_so_many_seconds_of_the_processor() -> None:
    def spin() -> dict[str, Any]:
        while True:
            pass

    (found,) = answers(spin, limit=0.0)
    assert found["test"] == "ended by too slow"
