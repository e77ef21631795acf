"""Token healing: the text goes on from inside a word as it would from before it."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest

import gpt_edge
from gpt_edge.generate.beam_search import BeamParams
from gpt_edge.generate.generator import Generator
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.prompt import Prompt
from gpt_edge.generate.token_healing import HealingProcessor, heal
from tests.support.tiny_model import open_generator

HEALED = SamplingParams(token_healing=True, max_new_tokens=12)


@pytest.fixture(scope="module")
def stories() -> Generator:
    return gpt_edge.load(threads=1)


@pytest.mark.parametrize(
    ("text", "healed"),
    [
        ("a t", " t"),  # " the"
        ("a th", " th"),  # two tokens, which begin " the" together
        ("a zh", "h"),  # "he"
        ("x q", ""),  # no token goes on from "q", and none from " q"
        (" the", ""),  # the first token stays
        ("a é", ""),  # no token goes on from it
    ],
)
def test_the_last_tokens_that_begin_a_longer_one_are_taken_off(text: str, healed: str) -> None:
    tokenizer = open_generator().tokenizer
    ids = tokenizer.encode(text)
    prompt = heal(Prompt(ids, 3), HEALED, tokenizer)
    assert prompt.healed == healed
    assert tokenizer.decode(prompt.ids) + prompt.healed == text
    assert prompt.dropped_tokens == 3
    assert heal(prompt, HEALED, tokenizer) is prompt
    assert heal(Prompt(ids), SamplingParams(), tokenizer) == Prompt(ids)


def test_a_mask_allows_exactly_what_fits_to_the_healed_text(stories: Generator) -> None:
    """The slow rule, over the whole vocabulary."""
    tokenizer = stories.tokenizer
    logits = np.zeros(tokenizer.vocab_size, np.float32)
    rng = random.Random(0)
    pieces = [tokenizer.token_bytes(id) for id in range(tokenizer.vocab_size)]
    for healed in (" t", " wal", "x", " Lily w"):
        processor = HealingProcessor(healed, tokenizer, 1)
        ids: list[int] = []
        while True:
            rest = healed.encode()[len(tokenizer.decode(ids)) :]
            allowed = np.flatnonzero(processor([9, *ids], logits) > -np.inf).tolist()
            if not rest:
                assert len(allowed) == tokenizer.vocab_size
                break
            expected = [
                id
                for id, piece in enumerate(pieces)
                if id != tokenizer.end_token and (piece.startswith(rest) or rest.startswith(piece))
            ]
            assert allowed == expected
            ids.append(rng.choice([id for id in allowed if rest.startswith(pieces[id])]))


def test_a_prompt_inside_a_word_goes_on_as_before_the_word(stories: Generator) -> None:
    whole = "Once upon a time, there was a little girl named Lily. She loved to pl"
    plain = stories.complete(whole, max_new_tokens=8)
    healed = stories.complete(whole, max_new_tokens=8, token_healing=True)
    assert healed.text.startswith("ay ")
    assert not plain.text.startswith("ay ")
    assert healed.prompt_tokens < plain.prompt_tokens
    before = stories.complete(whole.removesuffix(" pl"), max_new_tokens=8)
    assert before.text.startswith(" play ")
    assert (" pl" + healed.text)[:24] == before.text[:24]
    pieces = list(stories.stream(whole, max_new_tokens=8, token_healing=True))
    assert "".join(pieces) == healed.text
    (row,) = stories.generate_batch([whole], max_new_tokens=8, token_healing=True)
    assert (row.text, row.ids) == (healed.text, healed.ids)
    guessed = stories.complete(whole, max_new_tokens=8, token_healing=True, speculate="lookup")
    assert guessed.text == healed.text


def test_stop_strings_and_constraints_begin_after_the_prompt(stories: Generator) -> None:
    whole = "Lily loved to pl"
    stopped = stories.complete(whole, token_healing=True, stop=("pl", " "), max_new_tokens=9)
    assert (stopped.text, stopped.finish_reason) == ("ay", "stop")
    pytest.importorskip("llguidance")
    for settings in ({}, {"temperature": 1.5, "seed": 2}):
        done = stories.complete(
            whole,
            token_healing=True,
            constraint={"regex": "[a-z]{1,4} [a-z]{3,5}"},
            max_new_tokens=20,
            **settings,  # type: ignore[arg-type]
        )
        assert re.fullmatch("[a-z]{1,4} [a-z]{3,5}", done.text)
        assert done.is_constraint_met


def test_what_has_no_text_has_no_healing(stories: Generator) -> None:
    with pytest.raises(ValueError, match="token_healing needs text"):
        stories.generate_ids([1, 2], token_healing=True)
    with pytest.raises(ValueError, match="beam search takes no token_healing"):
        stories.beam_search("a t", beams=BeamParams(), token_healing=True, max_new_tokens=2)
    with pytest.raises(ValueError, match="token_healing must be True or False, got 1"):
        SamplingParams(token_healing=1)  # type: ignore[arg-type]
