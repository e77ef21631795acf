"""The gate alone, in this process and without onnxruntime: attacks and mutants end in a BundleError
or in bytes to run. `python scripts/branches.py gate` measures what of it they reach.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from gpt_edge.bundle.bundle import Bundle, builtin_bundles
from gpt_edge.bundle.gate.check import checked_model
from gpt_edge.errors import BundleError
from tests.hostile.attacks import ATTACKS, Attack, spoiled
from tests.hostile.mutants import BUNDLES, resigned, sweep
from tests.hostile.signing import GOLDEN

pytestmark = pytest.mark.filterwarnings("ignore:.*does not list")


def gate(folder: Path) -> str:
    """What becomes of a bundle before onnxruntime."""
    try:
        checked_model(Bundle.open(folder))
    except BundleError:
        return "refused"
    return "passed"


@pytest.mark.parametrize("name", [*BUNDLES, *builtin_bundles()])
def test_a_good_bundle_passes(name: str) -> None:
    assert gate(GOLDEN / name if name in BUNDLES else Bundle.open(name).path) == "passed"


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_an_attack_is_refused(attack: Attack, tmp_path: Path) -> None:
    assert gate(spoiled(attack, tmp_path / "bundle")) == "refused"


@pytest.mark.slow
def test_mutants_are_refused_or_pass(tmp_path: Path) -> None:
    some = itertools.islice(sweep(), 0, None, 7)
    outcomes = []
    for mutant in itertools.chain(some, map(resigned, range(5000, 5400))):
        mutant.write(tmp_path / "bundle")
        outcomes.append(gate(tmp_path / "bundle"))
    assert outcomes.count("refused") > 500
    assert outcomes.count("passed") > 20
