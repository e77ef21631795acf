"""`choose` and `score`: what is the same text is scored as the same tokens, at every border."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gpt_edge
from gpt_edge.errors import ContextLengthError, GPTEdgeError
from gpt_edge.generate.generator import Generator
from gpt_edge.generate.read_sequence import ReadSequence
from gpt_edge.generate.score import choose_ids, fit_options, split_ids, split_options
from tests.support.tiny_model import END_TOKEN, N_CTX, VOCAB_SIZE, open_generator

PROMPT = "he and the"


@pytest.fixture
def generator() -> Generator:
    return open_generator()


def slow_logprob(generator: Generator, before: list[int], after: list[int]) -> float:
    """One forward pass of everything."""
    session = generator.session
    ids = np.array([[*before, *after[:-1]]])
    rows = session.forward(ids, session.new_cache(), "all")[0][:, :VOCAB_SIZE].astype(np.float64)
    logprobs = rows - np.log(np.exp(rows - rows.max(1, keepdims=True)).sum(1, keepdims=True))
    logprobs -= rows.max(1, keepdims=True)
    start = len(before) - 1
    return sum(float(logprobs[start + place, id]) for place, id in enumerate(after))


@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        (PROMPT, [" an", " the", "x"]),
        (PROMPT + "  ", ["an", "the"]),
        (PROMPT, ["a", "ab", "abc"]),  # each begins with the one before
        ("a t", ["he", "in", "x"]),  # " the" is one token, " t" another
        ("t", ["he", "x"]),  # the prompt's one token changes
        ("", ["he", "an"]),
        (PROMPT, [" an", " an"]),
    ],
)
def test_options_are_scored_as_tokens_of_the_whole_text(
    generator: Generator, prompt: str, options: list[str]
) -> None:
    tokenizer = generator.tokenizer
    pairs = split_options(prompt, options, tokenizer)
    assert len({tuple(before) for before, _ in pairs}) == 1
    for (before, after), option in zip(pairs, options, strict=True):
        whole = tokenizer.encode(prompt + option)
        assert [*before, *after] in (whole, [END_TOKEN, *whole])
        assert after
    found = generator.choose(prompt, options)
    sums = [slow_logprob(generator, before, after) for before, after in pairs]
    # float32 logits, summed in another order
    assert [one.logprob for one in found] == pytest.approx(sums, abs=1e-4)
    total = sum(map(math.exp, sums))
    assert [one.probability for one in found] == pytest.approx(
        [math.exp(value) / total for value in sums], abs=1e-4
    )
    assert [one.text for one in found] == options


def test_a_prompt_whose_last_token_changes_loses_no_text(generator: Generator) -> None:
    tokenizer = generator.tokenizer
    prompt = "a t"
    before, after = split_ids(prompt, "he", tokenizer)
    assert tokenizer.decode([*before, *after]) == "a the"
    assert len(before) < len(tokenizer.encode(prompt))
    assert generator.score(prompt, "he").logprob == pytest.approx(
        slow_logprob(generator, before, after), abs=1e-4
    )


def test_what_every_option_has_after_a_neutral_prompt_is_divided_out(generator: Generator) -> None:
    options = [" an", " the", " end"]
    plain = generator.choose(PROMPT, options)
    neutral = generator.choose("N/A", options)
    found = generator.choose(PROMPT, options, neutral_prompt="N/A")
    ratios = [
        math.exp(one.logprob - base.logprob) for one, base in zip(plain, neutral, strict=True)
    ]
    assert [one.probability for one in found] == pytest.approx(
        [ratio / sum(ratios) for ratio in ratios], rel=1e-6
    )
    assert [one.logprob for one in found] == [one.logprob for one in plain]
    same = generator.choose(PROMPT, options, neutral_prompt=PROMPT)
    assert [one.probability for one in same] == pytest.approx([1 / 3] * 3)
    assert sum(one.probability for one in generator.choose(PROMPT, options, neutral_prompt="")) == (
        pytest.approx(1)
    )


def test_what_does_not_fit_is_refused_before_any_work_or_cut(generator: Generator) -> None:
    long = ("he " * N_CTX).rstrip()
    with pytest.raises(ContextLengthError, match=f"the context of this model holds {N_CTX}"):
        generator.choose(long, [" an", " the"])
    found = generator.choose(long, [" an", " the end"], truncate="left")
    n_longest = len(generator.tokenizer.encode(" the end"))
    kept = generator.tokenizer.encode(long)[-(N_CTX + 1 - n_longest) :]
    (pair,) = split_options("x", [" an"], generator.tokenizer)
    assert found[0].logprob == pytest.approx(slow_logprob(generator, kept, pair[1]), abs=1e-4)
    with pytest.raises(ContextLengthError, match="tokens, the context of this model holds"):
        generator.choose(PROMPT, ["x" * 2 * N_CTX], truncate="left")
    with pytest.raises(ValueError, match="truncate must be 'left' or None"):
        generator.choose(PROMPT, [" an"], truncate="right")  # type: ignore[arg-type]


def test_pairs_fill_the_context_and_lose_the_same_start() -> None:
    """The last id is never read, so a context of 3 holds 4."""
    pairs = [([1, 2, 3], [4]), ([1, 2], [5])]
    assert fit_options(pairs, 3, cut=False) == pairs
    with pytest.raises(ContextLengthError, match=r"have 4 tokens, .* holds 2$") as caught:
        fit_options(pairs, 2, cut=False)
    assert caught.value.hint == "shorten the prompt"
    assert fit_options(pairs, 2, cut=True) == [([2, 3], [4]), ([2], [5])]
    assert fit_options(pairs, 9, cut=True) == pairs
    with pytest.raises(ContextLengthError, match=r"have 4 tokens, .* holds 1$") as caught:
        fit_options(pairs, 1, cut=True)  # nothing would be left before 5
    assert caught.value.hint == "shorten the continuation"


def test_what_options_begin_with_is_read_once(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ids before that are alike up to the third, two are read once: the last one predicts."""
    n_read = []
    read = ReadSequence.read

    def counting(self: ReadSequence, ids: Any, **rest: Any) -> Any:
        n_read.append(len(ids))
        return read(self, ids, **rest)

    monkeypatch.setattr(ReadSequence, "read", counting)
    pairs = [([1, 2, 3], [4]), ([1, 2, 3], [5, 6]), ([1, 2, 9, 9], [4])]
    scores = choose_ids(generator.session, pairs, VOCAB_SIZE)
    assert n_read == [2, 1, 2, 1, 1]
    for (before, after), score in zip(pairs, scores, strict=True):
        wanted = slow_logprob(generator, before, after)
        assert score.logprob == pytest.approx(wanted, abs=1e-4)
    n_read.clear()
    choose_ids(generator.session, [([1], [4]), ([1], [5])], VOCAB_SIZE)
    assert n_read == [1, 1]


def test_a_classifier_has_no_choices() -> None:
    with pytest.raises(GPTEdgeError, match="classif"):
        gpt_edge.load("sentiment-6m-int8").choose("A film", [" good"])
