"""PrefixCache: what was read is not read again, within a number of bytes."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_edge.generate.batch_engine import BatchEngine
from gpt_edge.generate.generator import Generator
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.prefix_cache import PrefixCache
from tests.support.native_model import open_native
from tests.support.tiny_model import GRAPHS, open_generator

LARGE = 1 << 24
SHORT = SamplingParams(max_new_tokens=8, ignore_end_token=True)


@pytest.fixture(params=GRAPHS)
def generator(request: pytest.FixtureRequest) -> Generator:
    real = open_generator(request.param)
    return Generator(real.session, real.tokenizer, prefix_cache=PrefixCache(LARGE))


@pytest.fixture
def read(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each call of the model reads."""
    sizes: list[int] = []
    forward = generator.session.forward

    def spy(ids: Any, *rest: Any, **more: Any) -> Any:
        sizes.append(np.asarray(ids).size)
        return forward(ids, *rest, **more)

    monkeypatch.setattr(generator.session, "forward", spy)
    return sizes


def test_only_what_follows_a_shared_start_is_read(generator: Generator, read: list[int]) -> None:
    plain = open_generator(generator.session.graph)
    expected = {text: plain.complete(text, SHORT).ids for text in ("abcdef", "abcxyz", "abc")}
    read.clear()
    for text, n_read in (("abcdef", 6), ("abcxyz", 3), ("abc", 1), ("abcxyz", 1)):
        done = generator.complete(text, SHORT)
        assert done.ids == expected[text]
        assert read == [n_read]
        assert (done.prompt_tokens, done.cached_tokens) == (len(text), len(text) - n_read)
        read.clear()


def test_a_continued_text_reads_its_last_token_and_what_is_new(
    generator: Generator, read: list[int]
) -> None:
    ids = [*b"the end"]
    first = list(generator.generate_ids(ids, SHORT))
    read.clear()
    stream = generator.generate_ids([*ids, *first, 5, 6], SHORT)
    list(stream)
    assert (read, stream.cached_tokens) == ([3], len(ids) + len(first) - 1)


def test_a_batch_uses_and_fills_the_same_cache(generator: Generator, read: list[int]) -> None:
    engine = BatchEngine(generator)
    first = engine.add("abcdef", SHORT).result()
    assert engine.add("abcdxy", SHORT).result().cached_tokens == 4
    assert read == [6, 2]
    done = generator.complete("abcdef" + first.text + "q", SHORT)
    expected = open_generator(generator.session.graph).complete("abcdef" + first.text + "q", SHORT)
    assert done.ids == expected.ids
    assert done.cached_tokens >= 6


def test_prompt_logprobs_and_false_read_everything(generator: Generator, read: list[int]) -> None:
    generator.complete("abcdef", SHORT)
    for more in ({"prompt_logprobs": 1}, {"prefix_cache": False}, {"prefix_cache": PrefixCache(9)}):
        read.clear()
        done = generator.complete("abcdef", SHORT, **more)  # type: ignore[arg-type]
        assert (read, done.cached_tokens) == ([6], 0)
    read.clear()
    with_logprobs = BatchEngine(generator).add("abcdef", SHORT, prompt_logprobs=1).result()
    assert (read, with_logprobs.cached_tokens) == ([6], 0)
    own = PrefixCache(LARGE)
    generator.complete("xyz", SHORT, prefix_cache=own)
    assert len(own) == 1
    assert generator.complete("xyz", SHORT).cached_tokens == 0


def test_the_text_that_was_not_used_for_longest_goes_first(generator: Generator) -> None:
    texts = ("aaaaaa", "bbbbbb", "cccccc")
    one = PrefixCache(LARGE)
    generator.complete("aaaaaa", SHORT, prefix_cache=one)
    two = PrefixCache(2 * one.n_bytes)
    for text in (texts[0], texts[1], texts[0], texts[2]):  # the second was used before the first
        generator.complete(text, SHORT, prefix_cache=two)
        assert two.n_bytes <= two.max_bytes
    assert len(two) == 2
    for text, n_cached in ((texts[0], 5), (texts[2], 5), (texts[1], 0)):
        assert generator.complete(text, SHORT, prefix_cache=two).cached_tokens == n_cached
    two.clear()
    assert (len(two), two.n_bytes) == (0, 0)


def test_a_text_too_large_for_the_cache_leaves_its_start(generator: Generator) -> None:
    whole = PrefixCache(LARGE)
    generator.complete("abcdef", SHORT, prefix_cache=whole)
    per_token = whole.n_bytes // 13  # six of the prompt, seven of the eight that were generated
    small = PrefixCache(4 * per_token + 1)
    generator.complete("abcdef", SHORT, prefix_cache=small)
    assert small.n_bytes == 4 * per_token
    assert generator.complete("abcdef", SHORT, prefix_cache=small).cached_tokens == 4


def test_a_text_that_continues_another_replaces_it(generator: Generator) -> None:
    cache = generator.prefix_cache
    assert cache is not None
    generator.complete("abc", SamplingParams(max_new_tokens=1))
    generator.complete("abcdef", SamplingParams(max_new_tokens=1))
    generator.complete("abcd", SamplingParams(max_new_tokens=1))
    assert len(cache) == 1


def test_two_models_share_a_cache_without_mixing_their_texts() -> None:
    cache = PrefixCache(LARGE)
    for graph in GRAPHS:
        real = open_generator(graph)
        model = Generator(real.session, real.tokenizer, prefix_cache=cache)
        done = model.complete("the end", SHORT)
        assert (done.cached_tokens, done.ids) == (0, real.complete("the end", SHORT).ids)
    assert len(cache) == 2


@given(st.lists(st.text("ab", min_size=1, max_size=12), min_size=2, max_size=6))
@settings(max_examples=25, deadline=None)
def test_any_prompts_in_any_order_read_the_rest_alone(texts: list[str]) -> None:
    real = open_generator()
    cache = PrefixCache(LARGE)
    seen: list[tuple[int, ...]] = []
    for text in texts:
        done = real.complete(text, SHORT, prefix_cache=cache)
        ids = tuple(real.tokenizer.encode(text))
        expected = max((shared(ids[:-1], other) for other in seen), default=0)
        assert done.cached_tokens == expected
        assert done.ids == real.complete(text, SHORT).ids
        seen.append((*ids, *done.ids[:-1]))


def shared(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    n = 0
    while n < min(len(one), len(other)) and one[n] == other[n]:
        n += 1
    return n


def test_with_custom_operators_reuse_changes_no_bit() -> None:
    model = open_native()
    params = SamplingParams(max_new_tokens=10, logprobs=2, top_k=9, seed=1)
    cache = PrefixCache(LARGE)
    start = "Once upon a time there was a little dog who liked to run. "
    for text in (start + "He ran", start + "One day", start):
        done = model.complete(text, params, prefix_cache=cache)
        alone = model.complete(text, params)
        assert (done.ids, done.logprobs) == (alone.ids, alone.logprobs)
        assert (done.cached_tokens > 0) == (text != start + "He ran")


def test_threads_share_a_cache(generator: Generator) -> None:
    texts = [prefix + rest for prefix in ("aaaa", "bbbb") for rest in ("x", "y", "zz")]
    plain = open_generator(generator.session.graph)
    expected = {text: plain.complete(text, SHORT).ids for text in texts}
    small = PrefixCache(20_000)
    wrong: list[str] = []

    def work() -> None:
        for text in texts * 4:
            if generator.complete(text, SHORT, prefix_cache=small).ids != expected[text]:
                wrong.append(text)
            if small.n_bytes > small.max_bytes:
                wrong.append("too large")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("max_bytes", [0, -1, 1.5, "1 GB", True])
def test_a_wrong_size_is_refused(max_bytes: Any) -> None:
    with pytest.raises(ValueError, match="max_bytes must be"):
        PrefixCache(max_bytes)


def test_a_sequence_serves_one_generation_at_a_time_and_one_model(generator: Generator) -> None:
    sequence = generator.new_sequence()
    stream = generator.stream("the end", SHORT, sequence=sequence)
    next(stream)
    with pytest.raises(RuntimeError, match="another generation that has not ended"):
        generator.stream("the", sequence=sequence)
    stream.close()
    done = generator.complete("the end", SHORT, sequence=sequence)
    assert done.cached_tokens == 5
    assert sequence.ids == [*generator.tokenizer.encode("the end"), *done.ids[:-1]]
    other = open_generator("edge" if generator.session.graph == "portable" else "portable")
    with pytest.raises(ValueError, match="the sequence was read by another model"):
        other.stream("the", sequence=sequence)


def test_guesses_that_were_read_ahead_are_not_part_of_the_text(generator: Generator) -> None:
    sequence = generator.new_sequence()
    params = SamplingParams(max_new_tokens=20, ignore_end_token=True)
    done = generator.complete("ababababab", params, sequence=sequence, speculate="lookup")
    assert done.ids == open_generator(generator.session.graph).complete("ababababab", params).ids
    text = [*generator.tokenizer.encode("ababababab"), *done.ids]
    assert len(text) - 1 <= len(sequence.ids) == sequence.cache.length <= len(text)
    assert sequence.ids == text[: len(sequence.ids)]


def test_beams_read_a_prompt_from_where_it_differs(generator: Generator) -> None:
    plain = Generator(generator.session, generator.tokenizer)
    generator.complete("abcxyz", SHORT)
    (found,) = generator.beam_search("abcxyzx", SHORT)
    (alone,) = plain.beam_search("abcxyzx", SHORT)
    assert (found.ids, found.cached_tokens, alone.cached_tokens) == (alone.ids, 6, 0)
    (again,) = generator.beam_search("abcxyzx", SHORT)
    assert (again.ids, again.cached_tokens) == (alone.ids, 6)
