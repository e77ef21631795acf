"""Draws side by side are those one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpt_edge.errors import NumericError
from gpt_edge.generate.completion import TokenChoice
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.row_draws import MIN_TOKENS, RowDraws
from gpt_edge.tokenizer.formats.character_file import source_of_characters
from gpt_edge.tokenizer.load import build_tokenizer
from gpt_edge.tokenizer.spec import Tokenizer

N_TOKENS = MIN_TOKENS + 100
WIDE = {"temperature": 0.9, "top_k": N_TOKENS}
ROWS: tuple[dict[str, Any], ...] = (
    WIDE,
    {"temperature": 0.9, "top_k": 40},
    {**WIDE, "top_p": 0.9},
    {},
    {**WIDE, "repetition_penalty": 1.2},
    WIDE,
    {**WIDE, "min_p": 0.01, "logprobs": 2},
    WIDE,
)
SLOW = [0, 2, 5, 6, 7]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    characters = [chr(0x4E00 + number) for number in range(N_TOKENS)]
    return build_tokenizer(source_of_characters(characters, "characters"))


def choices(tokenizer: Tokenizer) -> list[TokenChoice]:
    return [
        TokenChoice(SamplingParams(seed=seed, **settings), [1, 2], 99, tokenizer)
        for seed, settings in enumerate(ROWS)
    ]


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_every_row_draws_what_it_draws_alone(threads: int, tokenizer: Tokenizer) -> None:
    rng = np.random.default_rng(7)
    draws = RowDraws(threads)
    together, alone = choices(tokenizer), choices(tokenizer)
    for _ in range(5):
        logits = list((rng.standard_normal((len(ROWS), N_TOKENS)) * 3).astype(np.float32))
        drawn = draws.draw(together, logits)
        assert [row for row, id in enumerate(drawn) if id is not None] == SLOW * (threads > 1)
        for choice, other, row, id in zip(together, alone, logits, drawn, strict=True):
            assert id is None or isinstance(id, int)
            found = choice.draw(row) if id is None else id
            assert choice.take(found, row) == other.choose(row)
    draws.close()
    if threads > 1:
        assert draws.draw(together[5:], logits[5:])[0] is not None  # its threads start again


def test_an_error_is_of_its_row_alone(tokenizer: Tokenizer) -> None:
    logits = [np.zeros(N_TOKENS, np.float32) for _ in ROWS]
    logits[5][77] = np.nan
    drawn = RowDraws(2).draw(choices(tokenizer), logits)
    assert isinstance(drawn[5], NumericError)
    assert all(isinstance(drawn[row], int) for row in SLOW if row != 5)


def test_a_small_vocabulary_wakes_no_thread() -> None:
    small = build_tokenizer(source_of_characters(list("abc"), "characters"))
    logits = [np.zeros(3, np.float32) for _ in ROWS]
    assert RowDraws(2).draw(choices(small), logits) == [None] * len(ROWS)
