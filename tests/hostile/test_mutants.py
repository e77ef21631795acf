"""A spread of the mutants that `python -m tests.hostile.run` tries by the thousand: none kills the
process, hangs, or ends in a traceback.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.hostile.attempts import Attempts
from tests.hostile.mutants import Mutant, flipped_bit, resigned, sweep


@pytest.fixture(scope="module")
def attempts() -> Iterator[Attempts]:
    server = Attempts()
    yield server
    server.close()


def check(mutants: Iterable[Mutant], attempts: Attempts, out: Path, *, refused: bool) -> None:
    for mutant in mutants:
        mutant.write(out)
        found = attempts.run(out)
        assert found.is_clean, (mutant.name, found)
        assert not refused or found.outcome == "refused", (mutant.name, found)


def test_a_flipped_bit_is_found(attempts: Attempts, tmp_path: Path) -> None:
    check(map(flipped_bit, range(10)), attempts, tmp_path / "bundle", refused=True)


def test_a_signed_mutant_is_opened_or_refused(attempts: Attempts, tmp_path: Path) -> None:
    check(map(resigned, range(30)), attempts, tmp_path / "bundle", refused=False)


def test_a_wrong_attribute_or_input_is_no_fault_of_the_process(
    attempts: Attempts, tmp_path: Path
) -> None:
    some = itertools.islice(sweep(), 0, None, 199)
    check(some, attempts, tmp_path / "bundle", refused=False)


@pytest.mark.slow
def test_1000_signed_mutants_are_opened_or_refused(attempts: Attempts, tmp_path: Path) -> None:
    check(map(resigned, range(30, 1030)), attempts, tmp_path / "bundle", refused=False)
