"""Penalties and bans against their definitions, logit by logit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_edge.generate.logits import LogitsProcessor
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.penalties import (
    BadWords,
    CountPenalties,
    LogitBias,
    MinNewTokens,
    NoRepeatNgram,
    RepetitionPenalty,
)
from gpt_edge.generate.processors import build_processors
from tests.support.tiny_model import open_generator

V = 8
ROW = np.array([1.0, -1.0, 0.0, 2.5, -3.0, 0.5, -math.inf, 4.0], np.float32)
HISTORIES = st.lists(st.integers(0, V - 1), max_size=12)


def checked(processor: LogitsProcessor, history: list[int]) -> list[float]:
    """What it makes of ROW, which it must leave as it is."""
    before = ROW.copy()
    found = processor(history, ROW)
    np.testing.assert_array_equal(ROW, before)
    assert found.dtype == np.float32
    return found.tolist()


def banned(found: list[float]) -> set[int]:
    return {id for id in range(V) if found[id] == -math.inf and ROW[id] > -math.inf}


def test_a_bias_is_added() -> None:
    found = checked(LogitBias(((0, 1.5), (3, -math.inf), (5, -2.0))), [])
    assert found == [2.5, -1.0, 0.0, -math.inf, -3.0, -1.5, -math.inf, 4.0]


@given(HISTORIES)
def test_a_repetition_makes_what_was_there_less_likely_once(history: list[int]) -> None:
    found = checked(RepetitionPenalty(2.0), history)
    for id, value in enumerate(ROW.tolist()):
        expected = value if id not in history else value * 2 if value < 0 else value / 2
        assert found[id] == expected


@given(HISTORIES, st.integers(0, 4))
def test_presence_counts_once_and_frequency_each_time(history: list[int], n_prompt: int) -> None:
    found = checked(CountPenalties(0.5, 0.25, n_prompt), history)
    for id, value in enumerate(ROW.tolist()):
        n = history[n_prompt:].count(id)
        assert found[id] == (value - 0.5 - 0.25 * n if n else value)


@given(st.lists(st.integers(0, 2), max_size=14), st.integers(1, 4))
def test_no_ngram_comes_twice(history: list[int], n: int) -> None:
    seen = {tuple(history[i : i + n]) for i in range(len(history) - n + 1)}
    start = tuple(history[len(history) - n + 1 :]) if n > 1 else ()
    expected = {id for id in range(V) if (*start, id) in seen} if len(history) >= n else set()
    assert banned(checked(NoRepeatNgram(n), history)) == expected - {6}


@pytest.mark.parametrize(
    ("history", "expected"),
    [([], {0}), ([1], {0, 3}), ([2, 1], {0, 3, 4}), ([1, 2], {0}), ([5, 2, 1], {0, 3, 4})],
)
def test_a_bad_word_is_not_completed(history: list[int], expected: set[int]) -> None:
    words = BadWords(((0,), (1, 3), (2, 1, 4)))
    assert banned(checked(words, history)) == expected


@pytest.mark.parametrize(("n_history", "is_banned"), [(2, True), (4, True), (5, False)])
def test_no_text_ends_before_its_least_length(n_history: int, is_banned: bool) -> None:
    found = banned(checked(MinNewTokens(3, 2, (0, 7)), [1] * n_history))
    assert found == ({0, 7} if is_banned else set())


class NoText:
    """A tokenizer whose words are their letters' places in the alphabet."""

    vocab_size = V

    def encode_part(self, text: str) -> list[int]:
        return ["abcdefg ".index(letter) for letter in text]


SETTINGS: list[tuple[dict[str, object], LogitsProcessor]] = [
    ({"logit_bias": {7: 1.0}}, LogitBias(((7, 1.0),))),
    ({"repetition_penalty": 0.5}, RepetitionPenalty(0.5)),
    ({"presence_penalty": 0.5}, CountPenalties(0.5, 0.0, 2)),
    ({"frequency_penalty": 0.5}, CountPenalties(0.0, 0.5, 2)),
    ({"no_repeat_ngram_size": 3}, NoRepeatNgram(3)),
    ({"bad_words": ((7, 1), "ab")}, BadWords(((7, 1), (7, 0, 1), (0, 1)))),
    ({"min_new_tokens": 4}, MinNewTokens(4, 2, (0, 3))),
]


def build(settings: dict[str, object]) -> list[LogitsProcessor]:
    params = SamplingParams(**settings)  # type: ignore[arg-type]
    return build_processors(params, 2, NoText(), {3, 0})  # type: ignore[arg-type]


@pytest.mark.parametrize(("settings", "expected"), SETTINGS)
def test_a_setting_makes_its_processor(
    settings: dict[str, object], expected: LogitsProcessor
) -> None:
    assert build(settings) == [expected]


def test_no_setting_makes_none_and_all_make_each_in_its_order() -> None:
    assert build({}) == []
    together: dict[str, object] = {}
    for settings, _ in SETTINGS:
        together |= settings
    kinds = [type(processor) for processor in build(together)]
    of_each = [type(expected) for _, expected in SETTINGS]
    assert kinds == list(dict.fromkeys(of_each))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"logit_bias": {V: 1.0}}, "logit_bias"),
        ({"stop_token_ids": (V,)}, "stop_token_ids"),
        ({"bad_words": ((1, V),)}, "bad_words"),
    ],
)
def test_an_id_that_the_vocabulary_does_not_have_is_refused(
    settings: dict[str, object], name: str
) -> None:
    with pytest.raises(ValueError, match=f"{name} names token 8, but .* are 0 to 7"):
        build(settings)


@pytest.mark.parametrize("processor", [RepetitionPenalty(1.5), NoRepeatNgram(2)], ids=str)
def test_a_text_that_has_not_begun_is_not_penalized(processor: LogitsProcessor) -> None:
    assert processor([], ROW) is ROW


def test_a_bad_word_is_a_text_as_it_is_and_after_a_space_or_ids() -> None:
    tokenizer = open_generator().tokenizer
    params = SamplingParams(bad_words=("the", (1, 2)))
    (words,) = build_processors(params, 0, tokenizer, ())
    assert isinstance(words, BadWords)
    spelled = {tuple(tokenizer.encode(text)) for text in ("the", " the")}
    assert {*words.sequences} == {(1, 2), *spelled}
