"""Arguments of wrong types and absurd sizes, to every method that takes ids, texts, caches, files
or settings: one clear ValueError, TypeError or error of gpt-edge's, never one from inside.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpt_edge
from gpt_edge import (
    BatchEngine,
    Bundle,
    Embedder,
    Generator,
    GPTEdgeError,
    PrefixCache,
    Session,
    StateError,
)
from gpt_edge.runtime.kv_cache import KVCache
from tests.hostile.signing import copy_of, sign
from tests.support.tiny_model import bundle_path, open_generator, open_session


def one_and_two() -> Iterator[int]:
    yield 1
    yield 2


@dataclasses.dataclass
class Things:
    """What the calls need: a model, its session and cache, and a cache of another session."""

    model: Generator
    session: Session
    cache: KVCache
    other: KVCache
    folder: Path


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Things:
    model, session = open_generator(), open_session()
    other = Session(Bundle.open(bundle_path("portable")), threads=1)
    folder = tmp_path_factory.mktemp("files")
    return Things(model, session, session.new_cache(), other.new_cache(), folder)


CALLS: dict[str, Callable[[Any], object]] = {
    "ids that are floats": lambda t: t.model.generate_ids([1.5]),
    "ids that are an array of floats": lambda t: t.model.generate_ids(np.ones(2)),
    "ids that are a string": lambda t: t.model.generate_ids("abc"),
    "ids in a list in a list": lambda t: t.model.generate_ids([[1, 2]]),
    "no ids": lambda t: t.model.generate_ids(None),
    "params that are a mapping": lambda t: t.model.complete("a", {"top_k": 3}),
    "params that are a number": lambda t: t.model.complete("a", 3),
    "cancel that is a number": lambda t: t.model.complete("a", cancel=3),
    "a prompt of bytes": lambda t: t.model.complete(b"a"),
    "a prompt that is a list": lambda t: t.model.complete(["a"]),
    "prompts that are one string": lambda t: t.model.generate_batch("abc"),
    "batch_size=1.5": lambda t: t.model.generate_batch(["a"], batch_size=1.5),
    "a sequence that is a number": lambda t: t.model.complete("a", sequence=3),
    "a prefix cache that is a number": lambda t: t.model.complete("a", prefix_cache=3),
    "half a byte of prefixes": lambda t: PrefixCache(1.5),
    "half a row of an engine": lambda t: BatchEngine(t.model, max_batch=1.5),
    "half an id for an engine": lambda t: BatchEngine(t.model).add([1.5]),
    "beams that are a number": lambda t: t.model.beam_search("a", beams=3),
    "options that are one string": lambda t: t.model.choose("a", "bc"),
    "processors that are a number": lambda t: t.model.complete("a", processors=3),
    "a cache of 2 ** 40 rows": lambda t: t.session.new_cache(2**40),
    "a cache of 65,536 rows": lambda t: t.session.new_cache(1 << 16, 1 << 40),
    "a cache of half a row": lambda t: t.session.new_cache(1.5),
    "2 ** 40 slots": lambda t: t.session.new_slots(2**40),
    "half a slot": lambda t: t.session.new_slots(0.5),
    "room for a text": lambda t: t.session.reserve(t.cache, "x"),
    "forward: floats": lambda t: t.session.forward([[1.5]], t.cache),
    "forward: a string": lambda t: t.session.forward("abc", t.cache),
    "forward: one row": lambda t: t.session.forward([1, 2], t.cache),
    "forward: an iterator": lambda t: t.session.forward(one_and_two(), t.cache),
    "forward: rows that differ": lambda t: t.session.forward([[1], [1, 2]], t.cache),
    "forward: nothing": lambda t: t.session.forward([[None]], t.cache),
    "forward: no cache": lambda t: t.session.forward([[1]], None),
    "forward: a cache of another model": lambda t: t.session.forward([[1]], t.other),
    "forward: rows by another word": lambda t: t.session.forward([[1]], t.cache, "some"),
    "forward: half a row of logits": lambda t: t.session.forward([[1]], t.cache, [0.5]),
    "forward: a row that is a text": lambda t: t.session.forward([[1]], t.cache, row="x"),
    "decode: floats": lambda t: t.session.decode([1.0], t.cache),
    "decode: a string": lambda t: t.session.decode("a", t.cache),
    "decode: a list in a list": lambda t: t.session.decode([[1]], t.cache),
    "decode: nothing": lambda t: t.session.decode(None, t.cache),
    "decode: a number": lambda t: t.session.decode(5, t.cache),
    "decode: an iterator": lambda t: t.session.decode(one_and_two(), t.cache),
    "decode: a cache of another model": lambda t: t.session.decode([1], t.other),
    "decode several: floats": lambda t: t.session.decode_several([1.0, 2], t.cache),
    "decode several: nothing": lambda t: t.session.decode_several(None, t.cache),
    "a text of bytes to encode": lambda t: t.model.tokenizer.encode(b"a"),
    "no text to encode": lambda t: t.model.tokenizer.encode(None),
    "floats to decode": lambda t: t.model.tokenizer.decode([1.5]),
    "a string to decode": lambda t: t.model.tokenizer.decode("ab"),
    "a number to decode": lambda t: t.model.tokenizer.decode(3),
    "an id beyond all to decode": lambda t: t.model.tokenizer.decode([1 << 70]),
    "a state at a number": lambda t: t.model.save_state(3, t.model.new_sequence()),
    "a state from a number": lambda t: t.model.load_state(3),
    "a bundle that is a number": lambda t: Embedder.load(3),
    "half a thread": lambda t: Session(Bundle.open(bundle_path()), threads=1.5),
    "texts that are None": lambda t: Embedder.load(bundle_path()).embed(None),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_argument_is_one_clear_error(name: str, things: Things) -> None:
    with pytest.raises((ValueError, TypeError, GPTEdgeError)) as caught:
        CALLS[name](things)
    message = str(caught.value)
    assert message.isprintable()
    assert 10 < len(message) < 300
    # none of the interpreter's or a library's own
    for foreign in (
        "not supported between",
        "has no len",
        "indices must be",
        "expected str, bytes",
    ):
        assert foreign not in message


def test_an_iterator_of_ids_is_read_once(things: Things) -> None:
    stream = things.model.generate_ids(one_and_two(), max_new_tokens=2)
    assert len(list(stream)) <= 2


def test_a_saved_state_of_another_model_of_the_same_shape_is_refused(
    things: Things, tmp_path: Path
) -> None:
    """Its weights differ in one byte."""
    folder = copy_of("tiny-edge", tmp_path / "other", ("model.onnx.data", "manifest.json"))
    data = bytearray((folder / "model.onnx.data").read_bytes())
    data[2] ^= 1
    (folder / "model.onnx.data").write_bytes(data)
    sign(folder)
    stream = things.model.stream("ab", max_new_tokens=2)
    list(stream)
    things.model.save_state(tmp_path / "state", stream)
    with pytest.raises(StateError, match="was saved by a model with weights"):
        gpt_edge.load(folder).load_state(tmp_path / "state")
