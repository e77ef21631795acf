"""Small rules at their edges: windows, prompts, speeds, seeds, healing, and rows under a mask."""

from __future__ import annotations

import itertools
import math
import os
from typing import Any

import numpy as np
import pytest

from gpt_edge.errors import NumericError
from gpt_edge.generate.completion import Completion
from gpt_edge.generate.constraints.processor import _Row
from gpt_edge.generate.context import check_context, newest_of_window, window_of
from gpt_edge.generate.conversation import Conversation
from gpt_edge.generate.generator import Generator
from gpt_edge.generate.logits import check_sound, cut_to_top_k
from gpt_edge.generate.params import SamplingParams, _as_float
from gpt_edge.generate.prompt import Prompt, fit_prompt
from gpt_edge.generate.sampler import Sampler
from gpt_edge.generate.stop_strings import StopMatcher
from gpt_edge.generate.stream import TokenStream
from gpt_edge.generate.token_healing import HealingProcessor, heal
from gpt_edge.tokenizer import build_tokenizer
from gpt_edge.tokenizer.formats.character_file import source_of_characters
from tests.support.tiny_model import END_TOKEN, open_generator


@pytest.mark.parametrize(
    ("context", "keep_first", "is_right"),
    [
        ("window", 0, True),
        ("window", 8, True),
        ("window", 9, False),
        ("error", 0, True),
        ("error", 1, False),
        ("truncate-left", 0, True),
    ],
)
def test_a_window_keeps_room_for_two(context: Any, keep_first: int, is_right: bool) -> None:
    if is_right:
        check_context(context, keep_first, 10)
        check_context("error", 0, 1)
        return
    with pytest.raises(ValueError, match="keep_first"):
        check_context(context, keep_first, 10)


@pytest.mark.parametrize(
    ("n", "keep_first", "newest"),
    [(10, 0, 10), (10, 4, 6), (3, 4, 0), (11, 0, 5), (11, 4, 3), (30, 8, 1)],
)
def test_all_stays_while_it_fits_and_then_half_of_the_room(
    n: int, keep_first: int, newest: int
) -> None:
    assert newest_of_window(n, keep_first, 10) == newest
    ids = list(range(n))
    assert window_of(ids, keep_first, 10) == ids[:keep_first] + ids[n - newest :]


@pytest.mark.parametrize(
    ("n_ctx", "n_new", "kept"),
    [(10, 4, 6), (10, 8, 5), (10, 5, 5), (1, 9, 1), (2, 9, 1), (3, 1, 2)],
)
def test_a_cut_prompt_leaves_room_but_keeps_half(n_ctx: int, n_new: int, kept: int) -> None:
    ids = list(range(30))
    prompt = fit_prompt(ids, n_ctx, n_new, "truncate-left")
    assert (prompt.ids, prompt.dropped_tokens) == (ids[30 - kept :], 30 - kept)


def test_a_speed_needs_two_tokens() -> None:
    speeds = [
        Completion("", "length", (7,) * n, 3, 0, None, 9.0, 2.0, None).tokens_per_second
        for n in (0, 1, 2, 5)
    ]
    assert speeds == [0.0, 0.0, 0.5, 2.0]


def test_whole_numbers_that_no_float_reaches_are_infinite() -> None:
    assert _as_float(10**400) == math.inf
    assert _as_float(-(10**400)) == -math.inf
    for value in (0, 1, -1, 2.5):
        assert _as_float(value) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_largest_logit_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(NumericError):
        check_sound(np.array([value], np.float32), value)
    check_sound(np.zeros(1, np.float32), 0.0)


def test_cutting_keeps_ties_of_lower_ids() -> None:
    ids, values = np.array([2, 5, 7, 9]), np.array([1.0, 3.0, 1.0, 1.0])
    found = [cut_to_top_k(ids, values, k).tolist() for k in (1, 2, 3, 4, 5)]
    assert found == [[5], [2, 5], [2, 5, 7], [2, 5, 7, 9], [2, 5, 7, 9]]


def test_a_temperature_counts_with_truncations_and_without() -> None:
    """At a low temperature the likeliest is drawn always, at a high one hardly more than others."""
    logits = np.array([0.0, 1.0, 2.0, 0.5], np.float32)
    for settings in ({}, {"top_k": 4}, {"top_k": 3}, {"top_p": 0.99}, {"min_p": 0.001}):
        cold, hot = (
            Sampler(SamplingParams(temperature=t, seed=1, **settings))  # type: ignore[arg-type]
            for t in (0.05, 100.0)
        )
        assert {cold.sample(logits) for _ in range(50)} == {2}
        assert len({hot.sample(logits) for _ in range(50)}) >= 3
        plain = Sampler(SamplingParams(**(settings or {"temperature": 1.0}), seed=1))  # type: ignore[arg-type]
        share = sum(plain.sample(logits) == 2 for _ in range(400)) / 400
        assert 0.4 < share < 0.75


def test_seeds_of_samples_follow_each_other_and_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_generator()
    monkeypatch.setattr(os, "urandom", lambda n: b"\xff" * n)
    done = model.samples("the", n=2, temperature=1.0, max_new_tokens=3)
    assert [one.seed for one in done] == [2**64 - 1, 0]
    assert [one.logprobs for one in done] == [None, None]
    best = model.samples("the", n=1, best_of=3, temperature=1.0, max_new_tokens=3)
    assert best[0].logprobs is not None
    assert [len(entry.alternatives) for entry in best[0].logprobs] == [0, 0, 0]
    more = model.samples("the", n=1, best_of=2, temperature=1.0, max_new_tokens=2, logprobs=2)
    assert more[0].logprobs is not None
    assert [len(entry.alternatives) for entry in more[0].logprobs] == [2, 2]


LETTERS = build_tokenizer(source_of_characters([*"abc"], "here"))


def test_a_vocabulary_of_letters_has_nothing_to_heal() -> None:
    """No letter begins a longer token; what lies behind the last one begins none either."""
    for text in ("ab", "bc", "cc"):
        prompt = Prompt(LETTERS.encode(text))
        assert heal(prompt, SamplingParams(token_healing=True), LETTERS) == prompt
    logits = np.zeros(3, np.float32)
    for healed, allowed in (("ca", [2]), ("zz", []), ("ab", [0])):
        row = HealingProcessor(healed, LETTERS, 0)([], logits)
        assert np.flatnonzero(row > -math.inf).tolist() == allowed


def test_every_short_stop_string_is_found_in_every_short_text() -> None:
    for n in range(1, 6):
        for stop in map("".join, itertools.product("ab", repeat=n)):
            for text in map("".join, itertools.product("ab", repeat=8)):
                matcher = StopMatcher([stop])
                found = "".join(map(matcher.push, text)) + matcher.flush()
                place = text.find(stop)
                assert (found, matcher.is_found) == (
                    (text, False) if place < 0 else (text[:place], True)
                )


@pytest.mark.parametrize("size", [8, 45])
def test_a_row_under_a_mask_is_the_logits_of_its_tokens(size: int) -> None:
    """Whatever the rows before it were, of few tokens or of many."""
    random = np.random.default_rng(size)
    row = _Row()
    for step in range(60):
        logits = random.standard_normal(size).astype(np.float64 if step % 20 > 15 else np.float32)
        mask = random.integers(0, 256, 8 * -(-size // 64)).astype(np.uint8)
        if step % 3 == 0:
            mask &= random.integers(0, 256, mask.size).astype(np.uint8) & 17
        is_set = np.unpackbits(mask, bitorder="little")[:size].astype(bool)
        made = row.masked if random.random() < 0.4 else row.picked
        np.testing.assert_array_equal(made(logits, mask), np.where(is_set, logits, -np.inf))


def test_a_stream_that_is_over_gives_nothing_and_is_not_stepping() -> None:
    model = open_generator()
    stream = TokenStream(
        model.session, Prompt([1, 2]), SamplingParams(max_new_tokens=2), model.tokenizer
    )
    assert not stream._is_stepping
    steps = []
    step = stream._advance

    def noted() -> int | None:
        steps.append(stream._is_stepping)
        return step()

    stream._advance = noted  # type: ignore[method-assign]
    assert len(list(stream)) == 2
    assert steps == [True, True]
    assert not stream._is_stepping
    assert list(stream) == []


def test_an_empty_first_turn_begins_behind_an_end_token() -> None:
    chat = Conversation(open_generator())
    assert chat._ids_with("") == ([END_TOKEN], 0)
    text = chat.model.tokenizer.encode("the")
    assert chat._ids_with("the") == (text, 0)


@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_a_limit_of_memory_is_one_byte_at_least(value: Any) -> None:
    import gpt_edge

    with pytest.raises(ValueError, match="max_memory must be"):
        gpt_edge.load(max_memory=value)


def test_help_shows_every_argument_before_the_settings() -> None:
    import inspect

    names = list(inspect.signature(Generator.samples).parameters)
    assert names[:8] == [
        "self",
        "prompt",
        "params",
        "n",
        "best_of",
        "truncate",
        "special",
        "cancel",
    ]
    assert "temperature" in names
    assert "settings" not in names


def test_a_beam_search_counts_what_it_did_not_read_again() -> None:
    done = open_generator().beam_search("the end", max_new_tokens=3)
    assert {one.cached_tokens for one in (done if isinstance(done, list) else [done])} == {0}
