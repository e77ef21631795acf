"""Context policies: an error, a cut, or a window that goes on for ever in flat memory."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from gpt_edge.errors import ContextLengthError
from gpt_edge.generate.batch_engine import BatchEngine
from gpt_edge.generate.generator import Generator
from gpt_edge.generate.params import SamplingParams
from tests.support.tiny_model import GRAPHS, N_CTX, open_generator

ENDLESS = SamplingParams(max_new_tokens=200, ignore_end_token=True)


@pytest.fixture(params=GRAPHS)
def generator(request: pytest.FixtureRequest) -> Generator:
    return open_generator(request.param)


def slow_window(model: Generator, ids: list[int], n: int, keep_first: int) -> list[int]:
    """The same text, with every token computed from the whole window in one forward."""
    window, made = list(ids), []
    for _ in range(n):
        if len(window) > N_CTX:
            newest = (N_CTX - keep_first) // 2
            window = window[:keep_first] + window[-newest:]
        logits = model.session.forward([window], model.session.new_cache())[0, 0]
        made.append(int(logits.argmax()))
        window.append(made[-1])
    return made


@pytest.mark.parametrize("keep_first", [0, 5, N_CTX - 3, N_CTX - 2])
def test_a_window_goes_on_as_its_ids_alone_would(generator: Generator, keep_first: int) -> None:
    ids = generator.tokenizer.encode("the end of it")
    stream = generator.generate_ids(ids, ENDLESS, context="window", keep_first=keep_first)
    assert list(stream) == slow_window(generator, ids, 200, keep_first)
    assert stream.finish_reason == "length"
    assert len(stream.sequence.ids) <= N_CTX
    assert stream.sequence.ids[:keep_first] == [*ids, *stream.ids][:keep_first]


def test_a_long_prompt_is_cut_to_its_window(generator: Generator) -> None:
    prompt = "".join(chr(97 + place % 26) for place in range(150))
    ids = generator.tokenizer.encode(prompt)
    kept = ids[:10] + ids[-27:]
    done = generator.complete(prompt, max_new_tokens=5, context="window", keep_first=10)
    assert (done.prompt_tokens, done.dropped_tokens) == (37, len(ids) - 37)
    assert done.ids == tuple(generator.generate_ids(kept, max_new_tokens=5))
    stream = generator.generate_ids(ids, max_new_tokens=5, context="window", keep_first=10)
    assert (stream.prompt, tuple(stream)) == (tuple(kept), done.ids)


@pytest.mark.parametrize("prefill_chunk", [None, 7])
def test_windows_of_a_batch_are_those_of_each_alone(
    generator: Generator, prefill_chunk: int | None
) -> None:
    asked = [
        ("the end of it", 150, {"context": "window", "keep_first": 5}),
        ("q", 40, {}),
        ("a", 130, {"context": "window"}),
        ("z" * 80, 90, {"context": "window", "keep_first": 11, "top_k": 5, "seed": 3}),
        ("and the rest", 200, {}),
    ]
    with BatchEngine(generator, max_batch=3, prefill_chunk=prefill_chunk) as engine:
        handles = [
            engine.add(prompt, max_new_tokens=n, ignore_end_token=True, **settings)
            for prompt, n, settings in asked
        ]
        done = [handle.result() for handle in handles]
    for found, (prompt, n, settings) in zip(done, asked, strict=True):
        alone = generator.complete(prompt, max_new_tokens=n, ignore_end_token=True, **settings)
        assert (found.ids, found.finish_reason) == (alone.ids, alone.finish_reason)
        assert found.dropped_tokens == alone.dropped_tokens
    assert [len(one.ids) for one in done[:4]] == [150, 40, 130, 90]
    assert done[4].finish_reason == "context_full"


def test_a_batch_of_windows_in_one_call(generator: Generator) -> None:
    settings: dict[str, Any] = {"context": "window", "keep_first": 2, "max_new_tokens": 120}
    prompts = ["the end", "x", "the end", "words " * 30]
    done = generator.generate_batch(prompts, ENDLESS, batch_size=2, **settings)
    assert [one.ids for one in done] == [
        generator.complete(prompt, ENDLESS, **settings).ids for prompt in prompts
    ]


def test_a_row_can_be_cancelled_while_its_window_is_read() -> None:
    with BatchEngine(open_generator("edge"), max_batch=1, prefill_chunk=4) as engine:
        handle = engine.add("q", ENDLESS, context="window")
        last = engine.add("q", max_new_tokens=3)
        while len(handle.ids) < N_CTX:
            engine.step()
        assert (engine.n_running, handle.is_done) == (1, False)
        engine.step()
        assert (engine.n_running, handle.is_done) == (0, False)
        handle.cancel()
        assert handle.result().finish_reason == "cancelled"
        assert last.result().finish_reason == "length"


def test_truncate_left_is_the_same_by_both_names(generator: Generator) -> None:
    prompt = "q" * 100
    params = SamplingParams(max_new_tokens=9)
    by_context = generator.complete(prompt, params, context="truncate-left")
    by_truncate = generator.complete(prompt, params, truncate="left")
    assert (by_context.ids, by_context.dropped_tokens) == (by_truncate.ids, 45)
    assert by_truncate.dropped_tokens == 45
    ids = generator.tokenizer.encode(prompt)
    stream = generator.generate_ids(ids, params, context="truncate-left")
    assert tuple(stream) == by_context.ids


def test_an_error_is_the_default(generator: Generator) -> None:
    with pytest.raises(ContextLengthError):
        generator.complete("q" * 65)
    assert generator.complete("q" * 60, ENDLESS).finish_reason == "context_full"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"context": "left"}, "context must be one of error, truncate-left, window, got 'left'"),
        ({"context": "window", "keep_first": N_CTX - 1}, "must leave room for two tokens"),
        ({"context": "window", "keep_first": -1}, "keep_first must be a whole number"),
        ({"context": "window", "keep_first": 1.5}, "keep_first must be a whole number"),
        ({"keep_first": 3}, "keep_first needs the context 'window', got 'error'"),
    ],
)
def test_wrong_policies_are_refused(wrong: dict[str, Any], message: str) -> None:
    model = open_generator()
    for call in (
        model.complete,
        model.stream,
        lambda text, **more: model.generate_ids([1], **more),
    ):
        with pytest.raises(ValueError, match=message):
            call("a", **wrong)


def test_a_window_goes_with_sampling_stop_strings_guesses_and_a_sequence(
    generator: Generator,
) -> None:
    params = SamplingParams(max_new_tokens=150, top_k=20, seed=4, ignore_end_token=True)
    plain = generator.complete("ababab", params, context="window")
    sequence = generator.new_sequence()
    guessed = generator.complete(
        "ababab", params, context="window", speculate="lookup", sequence=sequence
    )
    assert guessed.ids == plain.ids
    again = generator.complete("ababab", params, context="window", sequence=sequence)
    assert again.ids == plain.ids
    stop = plain.text[120:124]
    cut = generator.complete("ababab", params, context="window", stop=(stop,))
    assert cut.text == plain.text[: plain.text.index(stop)]


def endless(model: Generator, n: int) -> int:
    """Bytes that Python's own memory grows by, between two halves of a long generation."""
    params = SamplingParams(max_new_tokens=n, top_k=5, seed=1, ignore_end_token=True)
    stream = model.generate_ids([1, 2, 3], params, context="window", keep_first=2)
    for _ in range(n // 2):
        next(stream)
    tracemalloc.start()
    for _ in range(n // 2):
        next(stream)
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert stream.finish_reason == "length"
    assert stream.sequence.cache.n_bytes == model.session.new_cache(capacity=N_CTX).n_bytes
    return grown


def test_a_long_generation_takes_no_more_memory_than_its_ids() -> None:
    assert endless(open_generator(), 3000) < 1500 * 100 + 100_000


@pytest.mark.slow
def test_a_hundred_thousand_tokens_take_no_more_memory_than_their_ids() -> None:
    assert endless(open_generator(), 100_000) < 50_000 * 100 + 100_000


def test_logits_of_a_window_are_those_of_its_tokens(generator: Generator) -> None:
    sequence = generator.new_sequence()
    sequence.keep_first = 4
    ids = np.random.default_rng(0).integers(0, 277, N_CTX + 1).tolist()
    sequence.read(ids[:-1])
    logits = sequence.step(ids[-1]).copy()
    expected = ids[:4] + ids[-30:]
    assert sequence.ids == expected
    alone = generator.session.forward([expected], generator.session.new_cache())[0, 0]
    np.testing.assert_allclose(logits, alone, atol=1e-4)  # another split adds in another order
