"""Bundles that were written once and stay as they are: one of each version of the format opens for
ever, and says what it said.
"""

from __future__ import annotations

import pytest

from gpt_edge.bundle.bundle import FORMAT_VERSION, Bundle
from gpt_edge.runtime.session import Session
from tests.conftest import REPO

GOLDEN = REPO / "tests" / "golden"
PROMPT = [1, 2, 3, 4, 5]
# The likeliest 24 ids after PROMPT. The second likeliest lies at least 0.02 behind each of them,
# where CPUs differ by 1e-4.
IDS = {
    "tiny-edge": "85 52 52 85 85 85 85 52 85 85 52 85 85 12 12 236 151 151 52 166 166 85 52 52",
    "tiny-portable": "85 52 52 85 85 85 85 52 85 85 52 85 85 12 12 236 151 151 52 166 166 85 52 52",
    "native-int8": "48 93 7 6 48 66 88 6 7 7 74 74 74 6 7 36 13 75 21 17 6 90 36 87",
    "native-int8-block": "48 6 7 72 93 88 88 6 6 6 7 48 48 6 48 36 74 48 48 48 16 16 16 16",
    "native-int4": "48 48 7 6 48 7 72 93 7 7 74 6 85 6 87 13 87 48 7 87 6 6 85 13",
}
OF_VERSION = {1: ("tiny-edge", "tiny-portable", "native-int8", "native-int8-block", "native-int4")}


def test_each_version_of_the_format_has_frozen_bundles() -> None:
    assert sorted(OF_VERSION) == list(range(1, FORMAT_VERSION + 1))
    for version, names in OF_VERSION.items():
        opened = {Bundle.open(GOLDEN / name).manifest.format_version for name in names}
        assert opened == {version}


@pytest.mark.parametrize("name", sorted({name for names in OF_VERSION.values() for name in names}))
def test_a_frozen_bundle_gives_the_same_ids(name: str) -> None:
    session = Session(Bundle.open(GOLDEN / name), threads=1)
    cache = session.new_cache()
    found = [int(session.forward([PROMPT], cache)[0, -1].argmax())]
    while len(found) < 24:
        found.append(int(session.decode(found[-1:], cache)[0].argmax()))
    assert " ".join(map(str, found)) == IDS[name]
