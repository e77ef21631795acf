"""Damage at random: flipped bits, cuts, insertions, and manifests that hypothesis makes. All of it
is found, by name.

A failure prints what hypothesis or the seed needs to repeat it.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.manifest import SELF_HASH, Manifest
from gpt_edge.errors import BundleError
from tests.support.bundle_factory import label_of, manifest, write_tiny_bundle


def manifest_bytes(tmp_path: Path) -> bytes:
    write_tiny_bundle(tmp_path / "out")
    return (tmp_path / "out" / "manifest.json").read_bytes()


def test_every_flipped_bit_of_the_manifest_is_found(tmp_path: Path) -> None:
    data = manifest_bytes(tmp_path)
    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            try:
                Manifest.from_json(bytes(flipped), "manifest.json")
            except BundleError as error:
                if error.message.startswith("manifest.json"):
                    continue
            pytest.fail(f"bit {bit} of byte {position} was flipped and not found")


def test_every_cut_of_the_manifest_is_found(tmp_path: Path) -> None:
    data = manifest_bytes(tmp_path)
    for length in range(len(data)):
        with pytest.raises(BundleError):
            Manifest.from_json(data[:length], "manifest.json")


def replace(path: Path, data: bytes) -> None:
    path.unlink()  # writing over a file makes some file systems wait for the disk
    path.write_bytes(data)


def damage_at_random(out: Path, n_times: int, seed: int) -> None:
    """Flip a bit, cut, or insert a byte in a file of `out`, `n_times`; each time opening must name
    that file.
    """
    draw = random.Random(seed)
    names = ["model.onnx", "tokenizer.tiktoken", "manifest.json"]
    whole = {name: (out / name).read_bytes() for name in names}
    for number in range(n_times):
        name = draw.choice(names)
        data = bytearray(whole[name])
        place = draw.randrange(len(data))
        kind = draw.choice(["flip", "flip", "flip", "cut", "insert", "zero"])
        if kind == "flip":
            data[place] ^= 1 << draw.randrange(8)
        elif kind == "cut":
            del data[place:]
        elif kind == "insert":
            data.insert(place, draw.randrange(256))
        else:
            data[place : place + 64] = bytes(len(data[place : place + 64]))
        replace(out / name, data)
        with pytest.raises(BundleError) as caught:
            Bundle.open(out)
        assert caught.value.message.startswith(str(out / name)), (seed, number, kind, place)
        replace(out / name, whole[name])
    assert label_of(out) == "one"


def test_1000_random_damages_are_found_and_named(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "out")
    damage_at_random(tmp_path / "out", 1000, seed=1)


@pytest.mark.slow
def test_10000_random_damages_are_found_and_named(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "out", size=100_000)
    damage_at_random(tmp_path / "out", 10_000, seed=random.SystemRandom().randrange(1 << 32))


GOOD: dict[str, Any] = {
    **manifest().to_dict(),
    "files": {"model.onnx": {"size": 1, "sha256": "a" * 64}},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from([*GOOD, SELF_HASH, "x-note"]) | st.text(max_size=8)


def check_typed(data: bytes) -> Manifest | None:
    """Read `data`: a Manifest, or a BundleError of one short line, and soon."""
    begin = time.process_time()
    found, message = None, ""
    try:
        found = Manifest.from_json(data, "here")
    except BundleError as error:
        message = error.message
    assert time.process_time() - begin < 1  # about 1 ms; a busy machine may pause it
    assert found is not None or message.startswith("here")
    assert message.isprintable()  # so it is one line, and no terminal obeys it
    assert len(message) < 2000
    return found


def sign(values: Any) -> bytes:
    blank = json.dumps({**values, SELF_HASH: "0" * 64}).encode()
    head, _, tail = blank.rpartition(b"0" * 64)
    return head + hashlib.sha256(blank).hexdigest().encode() + tail


@settings(max_examples=150, deadline=None)
@given(
    changes=st.dictionaries(NAMES, JSON, max_size=4),
    gone=st.sets(st.sampled_from(list(GOOD)), max_size=1),
)
def test_a_signed_manifest_with_any_fields_is_read_or_refused(
    changes: dict[str, Any], gone: set[str]
) -> None:
    values = {name: value for name, value in {**GOOD, **changes}.items() if name not in gone}
    found = check_typed(sign(values))
    if found is not None:
        assert check_typed(found.to_json()) == found
    elif not changes:
        assert gone


@settings(max_examples=150, deadline=None)
@given(
    part=st.sampled_from(["config", "files", "tokenizer"]),
    changes=st.dictionaries(st.text(max_size=12), JSON, max_size=3),
)
def test_a_signed_manifest_with_any_parts_is_read_or_refused(
    part: str, changes: dict[str, Any]
) -> None:
    check_typed(sign({**GOOD, part: {**(GOOD[part] or {}), **changes}}))


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(list(GOOD["config"])), value=JSON)
def test_a_signed_manifest_with_any_config_value_is_read_or_refused(
    name: str, value: object
) -> None:
    check_typed(sign({**GOOD, "config": {**GOOD["config"], name: value}}))


@settings(max_examples=150, deadline=None)
@given(
    data=st.binary(max_size=300)
    | st.text(alphabet='{}[]",:0123456789.eE+-ntfu\\ ', max_size=60).map(str.encode)
)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    assert check_typed(data) is None


def test_a_manifest_of_a_mebibyte_of_anything_is_refused_quickly() -> None:
    keys = ",".join(f'"{number}":0' for number in range(100_000))
    for data in (
        f'{{{keys},"99999":1}}',
        f"{{{keys}}}",
        "[" * (1 << 20),
        '{"a":' * 200_000,
        "9" * (1 << 20),
        '"' + "x" * (1 << 20),
    ):
        begin = time.process_time()
        with pytest.raises(BundleError):
            Manifest.from_json(data.encode(), "here")
        assert time.process_time() - begin < 2
