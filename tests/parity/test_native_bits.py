"""The custom operators give the same bits on every CPU: hashes of logits, committed, so that two
machines that never meet agree.

Bundles of blocks leave GELU to onnxruntime, which computes it otherwise on Arm: they have a hash
for x86-64 and one for Arm. The others, and the story's text, have one hash.

`python -m tests.parity.test_native_bits` prints the hashes of this machine, with GPT_EDGE_ISA those
of one body.
"""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path

import numpy as np
import pytest

from gpt_edge.bundle.bundle import Bundle, builtin_bundles
from gpt_edge.generate.load import load
from gpt_edge.generate.params import SamplingParams
from gpt_edge.native.library import BODY_SETTING, PLAIN, bodies, installed_library
from gpt_edge.runtime.session import Session

MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
GOLDEN = Path(__file__).parents[1] / "golden"
HASHES = GOLDEN / "native_bits.json"
BUNDLES = {
    **{name: name for name in builtin_bundles()},
    **{path.name: str(path) for path in sorted(GOLDEN.glob("native-*"))},
}


def bits(name: str, library: Path) -> str:
    """The hash of a language model's logits: a prompt, and single steps behind it."""
    bundle = Bundle.open(BUNDLES[name])
    rng = np.random.Generator(np.random.Philox(0))
    ids = rng.integers(0, bundle.config.vocab_size, 50)
    digest = hashlib.sha256()
    session = Session(bundle, threads=2, native=library)
    cache = session.new_cache()
    digest.update(session.forward(ids[None, :40], cache, "all").astype("<f4").tobytes())
    for token in ids[40:]:
        digest.update(session.decode([int(token)], cache).astype("<f4").tobytes())
    return digest.hexdigest()[:32]


def story(library: Path) -> str:
    """What the embedded model writes for a seed, as a hash."""
    params = SamplingParams(max_new_tokens=60, top_k=40, temperature=0.8, seed=7)
    text = load(native=library).complete("Once upon a time", params).text
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def all_bits(library: Path) -> dict[str, str]:
    models = [name for name in BUNDLES if Bundle.open(BUNDLES[name]).task is None]
    return {**{name: bits(name, library) for name in models}, "a story": story(library)}


@pytest.fixture(scope="module")
def library() -> Path:
    path = installed_library()
    if path is None or not bodies(path):
        pytest.skip("no operators are installed, or none for this CPU")
    return path


def test_every_body_gives_the_committed_bits(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = json.loads(HASHES.read_text())[MACHINES[platform.machine().lower()]]
    for body in [*bodies(library), PLAIN]:
        monkeypatch.setenv(BODY_SETTING, body)
        assert all_bits(library) == expected, body


def test_arm_has_the_same_bits_where_no_operator_is_onnxruntimes() -> None:
    hashes = json.loads(HASHES.read_text())
    for name in ("native-int8", "a story"):
        assert hashes["aarch64"][name] == hashes["x86_64"][name]


if __name__ == "__main__":
    found = installed_library()
    assert found is not None
    print(json.dumps(all_bits(found), indent=2))
