"""Arguments of a wrong type or value: one clear error of gpt-edge's own at every public method,
before any work; ids may be numpy's.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpt_edge
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.classify.classifier import Classifier
from gpt_edge.runtime.session import Session
from tests.conftest import REPO

GOLDEN = REPO / "tests" / "golden"
SENTIMENT = "sentiment-6m-int8"
Call = Callable[[Any], object]


@pytest.fixture(scope="module")
def model() -> Iterator[gpt_edge.Generator]:
    with gpt_edge.load(GOLDEN / "tiny-edge", threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def classifier() -> Iterator[Classifier]:
    with Classifier.load(SENTIMENT, threads=1) as classifier:
        yield classifier


def refused(call: Call, subject: Any, *words: str) -> None:
    """It raises a ValueError or TypeError from a `raise` of gpt-edge, with these words."""
    with pytest.raises((ValueError, TypeError)) as caught:
        call(subject)
    message = str(caught.value)
    place = Path(traceback.extract_tb(caught.value.__traceback__)[-1].filename)
    assert "gpt_edge" in place.parts, (place, message)
    assert "\n" not in message
    assert len(message) < 250
    for word in words:
        assert word in message, message


EVENT = "cancel must be a threading.Event"
IDS = "ids must be one or more token ids from 0 to 276"
GENERATOR: list[tuple[Call, str, str]] = [
    (lambda model: model.generate_ids([1.5]), IDS, "got 1.5 (float)"),
    (lambda model: model.generate_ids(["the"]), IDS, "got 'the' (str)"),
    (lambda model: model.generate_ids("the"), IDS, "got str"),
    (lambda model: model.generate_ids(None), IDS, "got NoneType"),
    (lambda model: model.generate_ids([]), IDS, "got none"),
    (lambda model: model.generate_ids([3, 277]), IDS, "got 277"),
    (lambda model: model.generate_ids(np.array([1.0])), IDS, "float64"),
    (lambda model: model.generate_ids(np.array([[1, 2]])), IDS, "ndarray"),
    (lambda model: model.generate_ids([3], {"top_k": 3}), "SamplingParams", "got dict"),
    (lambda model: model.complete(b"the"), "prompt must be a string", "got bytes"),
    (lambda model: model.complete(["the"]), "prompt must be a string", "got list"),
    (lambda model: model.complete(None), "prompt must be a string", "got NoneType"),
    (lambda model: model.complete("a", {"top_k": 3}), "params must be SamplingParams", "dict"),
    (lambda model: model.complete("a", temprature=1), "'temprature'", "temperature?"),
    (lambda model: model.complete("a", top_k="3"), "top_k must be a whole number", "'3'"),
    (lambda model: model.complete("a", truncate="right"), "truncate must be 'left'", "right"),
    (lambda model: model.complete("a", cancel=True), EVENT, "bool"),
    (lambda model: model.complete("a", on_text="x"), "on_text must be a function", "str"),
    (lambda model: model.complete("a", processors=abs), "processors must be a list", "builtin"),
    (lambda model: model.complete("a", processors=["x"]), "processor must be a function", "str"),
    (lambda model: model.complete("a", speculate="no"), "speculate must be 'lookup'", "'no'"),
    (lambda model: model.complete("a", prefix_cache=9), "prefix_cache must be a PrefixCache", "9"),
    (lambda model: model.complete("a", prefix_cache=True), "must be a PrefixCache", "True"),
    (lambda model: model.complete("a", sequence=[3]), "sequence must be a ReadSequence", "[3]"),
    (lambda model: model.complete("a", context="all"), "context must be one of", "'all'"),
    (lambda model: model.complete("a", keep_first="3"), "keep_first must be a whole", "'3'"),
    (lambda model: model.save_state("x", "y"), "sequence must be a ReadSequence", "'y'"),
    (lambda model: gpt_edge.Conversation(model, template="x"), "must be a ChatTemplate", "'x'"),
    (lambda model: gpt_edge.Conversation(model, system=3), "system must be a string", "int"),
    (lambda model: gpt_edge.Conversation(model).send(3), "text must be a string", "int"),
    (lambda model: model.stream(3), "prompt must be a string", "got int"),
    (lambda model: model.astream(3), "prompt must be a string", "got int"),
    (lambda model: model.generate_batch("a"), "prompts must be a sequence", "one string"),
    (lambda model: model.generate_batch(None), "prompts must be a sequence", "NoneType"),
    (lambda model: model.generate_batch(["a", 3]), "prompt must be a string", "int"),
    (lambda model: model.generate_batch(["a"], {"top_k": 1}), "must be SamplingParams", "dict"),
    (lambda model: model.generate_batch(["a"], batch_size="2"), "batch_size must be", "'2'"),
    (lambda model: model.generate_batch(["a"], cancel=3), EVENT, "int"),
    (lambda model: model.samples("a", n="2", top_k=3), "n must be from 1 to", "'2'"),
    (
        lambda model: model.samples("a", n=3, best_of=2, top_k=3),
        "n must be from 1 to best_of",
        "best_of=2",
    ),
    (lambda model: model.beam_search("a", beams=4), "beams must be BeamParams", "got int"),
    (lambda model: model.beam_search(b"a"), "prompt must be a string", "bytes"),
    (lambda model: model.score("a", b"b"), "continuation must be a string", "bytes"),
    (lambda model: model.score(1, "b"), "prompt must be a string", "int"),
    (lambda model: model.score("a", "b", logprobs="x"), "logprobs must be", "'x'"),
    (lambda model: model.choose("a", "bc"), "options must be a sequence", "one string"),
    (lambda model: model.choose("a", []), "options must be a sequence", "got none"),
    (lambda model: model.choose("a", [1]), "continuation must be a string", "int"),
    (lambda model: model.choose("a", 5), "options must be a sequence", "got int"),
    (lambda model: gpt_edge.BatchEngine(model, max_batch="3"), "max_batch must be", "'3'"),
    (lambda model: gpt_edge.BatchEngine(model).add(3), IDS, "got int"),
    (lambda model: gpt_edge.BatchEngine(model).add([1.5]), IDS, "got 1.5"),
    (lambda model: gpt_edge.BatchEngine(model).add("a", on_piece=3), "on_piece must", "int"),
    (lambda model: gpt_edge.load(5), "a bundle must be a path or a name", "int"),
    (lambda model: gpt_edge.load(threads="2"), "threads must be a whole number", "'2'"),
    (lambda model: gpt_edge.load(profile=["x"]), "profile must be one of", "x"),
    (lambda model: gpt_edge.load(max_memory="1GB"), "max_memory must be", "'1GB'"),
]


@pytest.mark.parametrize("number", range(len(GENERATOR)))
def test_a_generator_refuses_it_by_name(number: int, model: gpt_edge.Generator) -> None:
    call, *words = GENERATOR[number]
    refused(call, model, *words)


SESSION: list[tuple[Callable[[Session, Any], object], str]] = [
    (lambda session, cache: session.decode([1.5], cache), "got 1.5"),
    (lambda session, cache: session.decode(["a"], cache), "got a"),
    (lambda session, cache: session.decode([277], cache), "got 277"),
    (lambda session, cache: session.decode_several([1, 2.0], cache), "got 2.0"),
    (lambda session, cache: session.forward([1, 2], cache), "whole numbers [B, T], got int64 [2]"),
    (lambda session, cache: session.forward([[1.5]], cache), "got float64 [1, 1]"),
    (lambda session, cache: session.forward([[1], [2, 3]], cache), "rows that differ"),
    (lambda session, cache: session.forward([["a"]], cache), "got <U1 [1, 1]"),
    (lambda session, cache: session.forward([[1]], None), "cache must be one of new_cache"),  # type: ignore[arg-type]
    (lambda session, cache: session.forward([[1]], cache, "first"), "logit_rows must be"),  # type: ignore[arg-type]
    (lambda session, cache: session.new_cache("2"), "batch must be a whole number"),  # type: ignore[arg-type]
    (lambda session, cache: session.new_cache(1, 99), "capacity must be a whole number from 1 to"),
    (lambda session, cache: cache.crop(0.5), "cannot be cropped to 0.5"),
    (lambda session, cache: cache.keep_rows([0.5]), "rows must name some of 0 to 0"),
]


@pytest.mark.parametrize("number", range(len(SESSION)))
def test_a_session_refuses_it_by_name(number: int, model: gpt_edge.Generator) -> None:
    call, words = SESSION[number]
    cache = model.session.new_cache()
    refused(lambda session: call(session, cache), model.session, words)
    assert cache.length == 0


def test_a_cache_of_another_model_is_refused(model: gpt_edge.Generator) -> None:
    """Even of the same shape: its keys and values mean nothing here."""
    for other in (GOLDEN / "tiny-portable", GOLDEN / "native-int8"):
        with Session(Bundle.open(other), threads=1) as owner:
            cache = owner.new_cache()
        for call in (
            lambda session: session.decode([1], cache),  # noqa: B023
            lambda session: session.decode_several([1, 2], cache),  # noqa: B023
            lambda session: session.forward([[1]], cache),  # noqa: B023
        ):
            refused(call, model.session, "the cache belongs to another model than tiny-edge")
    with gpt_edge.load(GOLDEN / "tiny-edge", threads=1) as again:  # the same model
        assert again.session.forward([[1]], model.session.new_cache()).shape == (1, 1, 277)


def test_ids_of_numpy_are_ids(model: gpt_edge.Generator) -> None:
    expected = list(model.generate_ids([116, 257], max_new_tokens=5))
    for dtype in (np.int64, np.int32, np.uint16):
        ids = np.array([116, 257], dtype)
        assert list(model.generate_ids(ids, max_new_tokens=5)) == expected
        assert list(model.generate_ids(list(ids), max_new_tokens=5)) == expected
    cache = model.session.new_cache()
    model.session.decode(np.array([116]), cache)
    assert cache.length == 1


CLASSIFIER: list[tuple[Call, str]] = [
    (lambda model: model.predict("a"), "texts must be a sequence of examples, got one string"),
    (lambda model: model.predict(None), "texts must be a sequence of examples"),
    (lambda model: model.predict([3]), "example 0: an example must be a text"),
    (lambda model: model.predict([b"a"]), "example 0: "),
    (lambda model: model.predict(["a"], batch="x"), "batch must be a whole number"),
    (lambda model: model.predict(["a"], truncate="no"), "truncate must be"),
    (lambda model: Classifier.load(3), "a bundle must be a path or a name"),  # type: ignore[arg-type]
    (lambda model: Classifier.load(SENTIMENT, threads=0.5), "threads must be"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("number", range(len(CLASSIFIER)))
def test_a_classifier_refuses_it_by_name(number: int, classifier: Classifier) -> None:
    call, words = CLASSIFIER[number]
    refused(call, classifier, words)


def test_an_embedder_refuses_it_by_name() -> None:
    with gpt_edge.Embedder.load(threads=1) as embedder:
        refused(lambda model: model.embed("a"), embedder, "texts must be a sequence of strings")
        refused(lambda model: model.embed(None), embedder, "texts must be a sequence of strings")
        refused(lambda model: model.embed([1]), embedder, "text 0: a text must be a string")
        refused(lambda model: model.embed(["a"], pooling="max"), embedder, "pooling must be")
        refused(lambda model: model.embed(["a"], batch=0), embedder, "batch must be")


def test_a_closed_model_says_so() -> None:
    with gpt_edge.load(GOLDEN / "tiny-edge", threads=1) as model:
        stream = model.stream("a")
        next(stream)
        cache = model.session.new_cache()
    assert "closed" in repr(model)
    for call in (
        lambda model: model.complete("a"),
        lambda model: next(stream),
        lambda model: model.session.decode([1], cache),
        lambda model: model.generate_batch(["a"]),
    ):
        refused(call, model, "the model is closed: load it again")
    model.close()  # once more changes nothing
    classifier = Classifier.load(SENTIMENT, threads=1)
    classifier.close()
    refused(lambda model: model.predict(["a"]), classifier, "the model is closed")


def test_a_repr_says_what_it_is(model: gpt_edge.Generator, classifier: Classifier) -> None:
    shape = "tiny-edge: edge graph, 2 layers of width 16, context of 64, threads 1>"
    assert repr(model) == f"<Generator {shape}"
    assert repr(model.session) == f"<Session {shape}"
    assert "classification into 'negative', 'positive'; vectors of" in repr(classifier)
    assert repr(gpt_edge.SamplingParams()) == "SamplingParams()"
    params = gpt_edge.SamplingParams(temperature=0.8, stop=["\n"], seed=7)  # type: ignore[arg-type]
    assert repr(params) == "SamplingParams(temperature=0.8, seed=7, stop=('\\n',))"
    assert eval(repr(params), {"SamplingParams": gpt_edge.SamplingParams}) == params
