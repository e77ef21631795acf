"""Penalties where there is nothing to penalize, and words in both of their spellings."""

from __future__ import annotations

import numpy as np
import pytest

from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.penalties import BadWords, NoRepeatNgram, RepetitionPenalty
from gpt_edge.generate.processors import build_processors
from tests.support.tiny_model import open_generator

ROW = np.arange(6, dtype=np.float32)


@pytest.mark.parametrize("processor", [RepetitionPenalty(1.5), NoRepeatNgram(2)], ids=str)
def test_a_text_that_has_not_begun_is_not_penalized(
    processor: RepetitionPenalty | NoRepeatNgram,
) -> None:
    assert processor([], ROW) is ROW


def test_a_bad_word_is_removed_where_its_beginning_stands() -> None:
    words = BadWords(((3,), (1, 2), (4, 5)))
    assert np.flatnonzero(np.isinf(words([4], ROW))).tolist() == [3, 5]
    assert np.flatnonzero(np.isinf(words([], ROW))).tolist() == [3]


def test_a_bad_word_is_a_text_as_it_is_and_after_a_space_or_ids() -> None:
    tokenizer = open_generator().tokenizer
    params = SamplingParams(bad_words=("the", (1, 2)))
    (words,) = build_processors(params, 0, tokenizer, ())
    assert isinstance(words, BadWords)
    spelled = {tuple(tokenizer.encode(text)) for text in ("the", " the")}
    assert {*words.sequences} == {(1, 2), *spelled}
