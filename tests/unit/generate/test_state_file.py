"""States on disk: they resume with the same bits, and everything else is refused by name."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt_edge.errors import OutputError, StateError
from gpt_edge.generate.generator import Generator
from gpt_edge.generate.load import load
from gpt_edge.generate.params import SamplingParams
from tests.support.native_model import open_native
from tests.support.tiny_model import GRAPHS, N_CTX, bundle_path, open_generator

PARAMS = SamplingParams(max_new_tokens=12, ignore_end_token=True, logprobs=3)
PROMPT = "the end of it"


@pytest.fixture(params=GRAPHS)
def generator(request: pytest.FixtureRequest) -> Generator:
    return open_generator(request.param)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """What the tiny edge model has read of PROMPT and of twelve tokens."""
    path = tmp_path / "story.state"
    model = open_generator()
    stream = model.stream(PROMPT, PARAMS)
    list(stream)
    model.save_state(path, stream)
    return path


def parts(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write(path: Path, header: object, data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_a_resumed_text_continues_with_the_same_bits(generator: Generator, tmp_path: Path) -> None:
    path = tmp_path / "a.state"
    whole = generator.generate_ids(generator.tokenizer.encode(PROMPT), PARAMS)
    ids = [next(whole) for _ in range(5)]
    generator.save_state(path, whole)
    rest = list(whole)
    sequence = generator.load_state(path)
    assert sequence.ids == [*whole.prompt, *ids[:-1]]
    resumed = generator.generate_ids(
        [*whole.prompt, *ids], PARAMS, sequence=sequence, max_new_tokens=7
    )
    assert list(resumed) == rest
    assert resumed.logprobs == whole.logprobs[5:]
    assert resumed.cached_tokens == len(whole.prompt) + 4


def test_a_state_is_of_the_used_length_and_readable_as_safetensors(state: Path) -> None:
    header, data = parts(state)
    ids = header.pop("ids")
    n_read = ids["shape"][0]
    assert header["past_key_values.0.key"] == {
        "dtype": "F32",
        "shape": [1, 2, n_read, 8],
        "data_offsets": [8 * n_read, 8 * n_read + 4 * 2 * n_read * 8],
    }
    assert len(data) == 8 * n_read + 4 * 4 * 2 * n_read * 8
    assert (len(state.read_bytes()) - len(data)) % 8 == 0
    assert set(header.pop("__metadata__")) == {
        "format",
        "version",
        "model",
        "tokens",
        "data",
        "keys",
    }
    assert sorted(header) == sorted(
        f"past_key_values.{layer}.{side}" for layer in range(2) for side in ("key", "value")
    )


def test_another_process_resumes_with_the_same_bits(state: Path) -> None:
    code = (
        "import sys, gpt_edge\n"
        "model = gpt_edge.load(sys.argv[1], threads=1)\n"
        "sequence = model.load_state(sys.argv[2])\n"
        "stream = model.generate_ids(sequence.ids, max_new_tokens=9, sequence=sequence,"
        " logprobs=2, ignore_end_token=True)\n"
        "print(list(stream), stream.logprobs, stream.cached_tokens)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle_path()), str(state)],
        capture_output=True,
        text=True,
        check=True,
    )
    model = open_generator()
    sequence = model.load_state(state)
    stream = model.generate_ids(
        sequence.ids, max_new_tokens=9, sequence=sequence, logprobs=2, ignore_end_token=True
    )
    assert done.stdout == f"{list(stream)} {stream.logprobs} {stream.cached_tokens}\n"


def test_keys_of_another_type_are_converted(tmp_path: Path) -> None:
    half = open_native()  # float16
    single = load(native=False, threads=1)  # float32
    prompt = "Once upon a time there was a"
    for source, target in ((half, single), (single, half)):
        path = tmp_path / "a.state"
        stream = source.stream(prompt, max_new_tokens=2)
        list(stream)
        source.save_state(path, stream)
        sequence = target.load_state(path)
        n_held = len(sequence.ids)
        assert sequence.cache.dtype == target.session.new_cache().dtype
        params = SamplingParams(max_new_tokens=1, logprobs=0)
        done = target.complete(prompt, params, sequence=sequence)
        assert done.cached_tokens == n_held - 2
        expected = target.complete(prompt, params)
        assert done.logprobs is not None
        assert expected.logprobs is not None
        assert done.ids == expected.ids
        assert done.logprobs[0].logprob == pytest.approx(expected.logprobs[0].logprob, abs=0.05)


def test_with_custom_operators_a_state_resumes_bit_for_bit(tmp_path: Path) -> None:
    model = open_native()
    stream = model.stream("Once upon a time there was", PARAMS)
    list(stream)
    model.save_state(tmp_path / "a.state", stream)
    prompt = "Once upon a time there was a dog"
    done = model.complete(prompt, PARAMS, sequence=model.load_state(tmp_path / "a.state"))
    alone = model.complete(prompt, PARAMS)
    assert done.cached_tokens > 0
    assert (done.ids, done.logprobs) == (alone.ids, alone.logprobs)


def changed(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        header["__metadata__"][name] = value

    return change


def entry(name: str, field: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        header[name][field] = value

    return change


KEY = "past_key_values.0.key"
HUGE = 1 << 62
FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another model": (
        changed("model", "0" * 64),
        "was saved by a model with weights '0000",
    ),
    "a newer format": (changed("version", "2"), "has version '2' of the format"),
    "another format": (changed("format", "pt"), "its header names another format"),
    "no metadata": (lambda header: header.pop("__metadata__"), "its header names another format"),
    "a number in it": (changed("tokens", 3), "must have the metadata"),
    "unknown keys": (changed("keys", "float64"), "has keys of type 'float64'"),
    "other tokens": (changed("tokens", "0" * 64), "is corrupt"),
    "other data": (changed("data", "0" * 64), "is corrupt"),
    "too long": (entry("ids", "shape", [N_CTX + 1]), "must have 1 to 64 ids"),
    "huge": (entry("ids", "shape", [HUGE]), "must have 1 to 64 ids"),
    "negative": (entry("ids", "shape", [-1]), "must have 1 to 64 ids"),
    "not whole": (entry("ids", "shape", [1.5]), "must have 1 to 64 ids"),
    "no ids": (lambda header: header.pop("ids"), "must have 1 to 64 ids"),
    "another shape": (entry(KEY, "shape", [1, 2, HUGE, 8]), f"has {KEY} as"),
    "another type": (entry(KEY, "dtype", "F64"), f"has {KEY} as"),
    "out of range": (entry(KEY, "data_offsets", [0, HUGE]), f"has {KEY} as"),
    "overlapping": (entry(KEY, "data_offsets", [0, 512]), f"has {KEY} as"),
    "one too many": (lambda header: header.update(more=header["ids"]), "has other tensors"),
    "one too few": (lambda header: header.pop(KEY), "has other tensors"),
    "a list": (lambda header: header.update({KEY: []}), f"has {KEY} as"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_header_that_does_not_fit_is_refused_by_name(state: Path, fault: str) -> None:
    header, data = parts(state)
    change, message = FAULTS[fault]
    change(header)
    write(state, header, data)
    tracemalloc.start()
    with pytest.raises(StateError, match=message) as caught:
        open_generator().load_state(state)
    assert tracemalloc.get_traced_memory()[1] < 4e6
    tracemalloc.stop()
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 400 + len(str(state))
    assert "remove the file" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it has no header"),
        (b"\0" * 7, "it has no header"),
        (struct.pack("<Q", HUGE) + b"{}", "it has no header"),
        (struct.pack("<Q", 1 << 30) + b"{}", "it has no header"),
        (struct.pack("<Q", 2) + b"{", "it has no header"),
        (struct.pack("<Q", 2) + b"[]", "its header names another format"),
        (struct.pack("<Q", 3) + b"\xff{}", "its header is no JSON"),
        (struct.pack("<Q", 100_000) + b"[" * 100_000, "its header is no JSON"),
        (b"Once upon a time, there was a text.", "it has no header"),
    ],
)
def test_what_is_no_state_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.state"
    path.write_bytes(content)
    with pytest.raises(StateError, match=message):
        open_generator().load_state(path)


def test_a_cut_or_longer_or_changed_file_is_refused(state: Path) -> None:
    whole = state.read_bytes()
    for content, message in (
        (whole[:-1], "bytes of data, its header tells of"),
        (whole + b"\0", "bytes of data, its header tells of"),
        (whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:], "is corrupt"),
    ):
        state.write_bytes(content)
        with pytest.raises(StateError, match=message):
            open_generator().load_state(state)


def test_every_single_changed_byte_is_refused_or_changes_nothing(state: Path) -> None:
    whole = state.read_bytes()
    model = open_generator()
    expected = model.load_state(state)
    random = np.random.default_rng(0)
    for place in random.integers(0, len(whole), 300).tolist():
        content = bytearray(whole)
        content[place] ^= 1 << int(random.integers(8))
        state.write_bytes(content)
        try:
            found = model.load_state(state)
        except StateError:
            continue
        assert found.ids == expected.ids
        for name, array in found.cache.save().items():
            assert (array == expected.cache.save()[name]).all()


def test_the_other_graph_of_the_same_weights_is_another_model(state: Path) -> None:
    with pytest.raises(StateError, match="was saved by a model with weights"):
        open_generator("portable").load_state(state)


def test_pipes_and_missing_files_are_refused_without_waiting(tmp_path: Path) -> None:
    model = open_generator()
    with pytest.raises(StateError, match="cannot be read: No such file"):
        model.load_state(tmp_path / "none")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(StateError, match="is not a regular file"):
            model.load_state(tmp_path / "pipe")


def test_only_a_state_is_replaced_and_nothing_is_left_behind(state: Path) -> None:
    model = open_generator()
    stream = model.stream("another", PARAMS)
    with pytest.raises(ValueError, match="nothing was read yet"):
        model.save_state(state, stream)
    next(stream)
    model.save_state(state, stream)
    assert model.load_state(state).ids == stream.sequence.ids
    letter = state.parent / "letter.txt"
    letter.write_text("Dear Anna, this is a letter and no state.")
    with pytest.raises(OutputError, match=r"letter.txt exists and is not a file"):
        model.save_state(letter, stream)
    assert sorted(path.name for path in state.parent.iterdir()) == ["letter.txt", "story.state"]
    with pytest.raises(ValueError, match="read by another model"):
        open_generator("portable").save_state(state, stream)
