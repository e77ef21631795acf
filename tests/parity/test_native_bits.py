"""The custom operators give the same bits on every CPU: hashes of logits, committed, so that two
machines that never meet agree.

`python -m tests.parity.test_native_bits` prints the hashes of this machine, with GPT_EDGE_ISA those
of one body.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from gpt_edge.bundle.bundle import Bundle, builtin_bundles
from gpt_edge.generate.load import load
from gpt_edge.generate.params import SamplingParams
from gpt_edge.native.library import BODY_SETTING, PLAIN, bodies, installed_library
from gpt_edge.verify.native_bits import BITS, bits_of
from gpt_edge.verify.native_operators import check_bits
from gpt_edge.verify.report import Verification

GOLDEN = Path(__file__).parents[1] / "golden"
HASHES = GOLDEN / "native_bits.json"
SEEDS = (7, 8, 9)


def story(library: Path, seed: int | None) -> str:
    """What the embedded model writes for a seed, or greedily, as a hash."""
    params = (
        SamplingParams(max_new_tokens=60)
        if seed is None
        else SamplingParams(max_new_tokens=60, top_k=40, temperature=0.8, seed=seed)
    )
    text = load(native=library).complete("Once upon a time", params).text
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def golden_bits(library: Path) -> dict[str, str]:
    """Of the bundles in tests/golden, by name."""
    paths = sorted(GOLDEN.glob("native-*"))
    return {path.name: bits_of(Bundle.open(path), library) for path in paths}


def all_bits(library: Path) -> dict[str, str]:
    """By name: of the built-in bundles, the golden ones, and stories."""
    found = {name: bits_of(Bundle.open(name), library) for name in builtin_bundles()}
    found |= golden_bits(library)
    found["a greedy story"] = story(library, None)
    return found | {f"the story of seed {seed}": story(library, seed) for seed in SEEDS}


@pytest.fixture(scope="module")
def library() -> Path:
    path = installed_library()
    if path is None or not bodies(path):
        pytest.skip("no operators are installed, or none for this CPU")
    return path


def test_every_body_gives_the_committed_bits(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = json.loads(HASHES.read_text()) | BITS
    for body in bodies(library):
        monkeypatch.setenv(BODY_SETTING, body)
        assert all_bits(library) == expected, body


def test_plain_c_gives_the_committed_bits(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BODY_SETTING, PLAIN)
    found = golden_bits(library)
    assert len(found) == 6
    assert found.items() <= json.loads(HASHES.read_text()).items()


def test_other_bits_fail_the_check(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "sentiment-6m-int8"
    report = Verification()
    check_bits(report, Bundle.open(name), library)
    assert report.faults == []
    right = BITS[name]
    monkeypatch.setitem(BITS, name, "0" * 32)
    check_bits(report, Bundle.open(name), library)
    assert report.faults == [f"{name} has the bits {right}, on every CPU they are {'0' * 32}"]


if __name__ == "__main__":
    named = os.environ.get("GPT_EDGE_NATIVE")
    found = Path(named) if named else installed_library()
    assert found is not None
    print(json.dumps(all_bits(found), indent=2))
