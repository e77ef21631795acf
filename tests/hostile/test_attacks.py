"""Every crafted attack on a bundle is refused in one clear line, within two seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.attacks import ATTACKS, Attack, spoiled
from tests.hostile.attempts import Attempts
from tests.hostile.signing import copy_of, sign

GOOD = (
    "tiny-edge",
    "tiny-portable",
    "native-int8",
    "native-int4",
    "native-int8-block",
    "native-gelu-int8",
    "native-relu-int8",
)


@pytest.fixture(scope="module")
def attempts() -> Iterator[Attempts]:
    server = Attempts()
    yield server
    server.close()


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_a_crafted_attack_is_refused(attack: Attack, attempts: Attempts, tmp_path: Path) -> None:
    found = attempts.run(spoiled(attack, tmp_path / "bundle"))
    assert found.outcome == "refused", found
    assert found.seconds < 2, found


@pytest.mark.parametrize("name", GOOD)
def test_a_good_bundle_signed_anew_is_opened(name: str, attempts: Attempts, tmp_path: Path) -> None:
    """What the tools of the attacks do to a bundle is none."""
    folder = copy_of(name, tmp_path / "bundle")
    sign(folder)
    found = attempts.run(folder)
    assert found.outcome == "loaded", found


def test_there_are_enough_attacks_and_each_has_its_own_name() -> None:
    names = [str(attack) for attack in ATTACKS]
    assert len(set(names)) == len(names) >= 100
