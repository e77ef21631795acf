"""Processors and truncations against transformers' own, on random rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from transformers.generation import logits_process as theirs

from gpt_edge.generate.logits import divide_by_temperature
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.penalties import (
    BadWords,
    LogitBias,
    MinNewTokens,
    NoRepeatNgram,
    RepetitionPenalty,
)
from gpt_edge.generate.philox import Philox
from gpt_edge.generate.processors import build_processors
from gpt_edge.generate.sampler import Sampler
from gpt_edge.generate.truncation import build_truncations

V = 503
TRUNCATIONS = ["top_p", "min_p", "typical_p"]


def a_row(random: np.random.Generator) -> np.ndarray:
    """Rows as flat as noise and as sharp as a trained model's, with ties and with impossible
    tokens.
    """
    row = random.standard_normal(V) * random.choice([0.1, 1, 3, 10])
    if random.random() < 0.3:
        row = row.round()
    if random.random() < 0.3:
        row[random.choice(V, V // 3, replace=False)] = -math.inf
    return row.astype(np.float32)


def a_history(random: np.random.Generator) -> list[int]:
    return random.integers(0, 40, random.integers(3, 60)).tolist()


def by_transformers(processor: Any, history: list[int], row: np.ndarray) -> np.ndarray:
    scores = processor(torch.tensor([history]), torch.from_numpy(row.copy())[None])
    return scores[0].numpy()


def pairs(random: np.random.Generator) -> list[tuple[Any, Any]]:
    """Our processor and transformers', with random settings."""
    penalty = float(random.uniform(0.5, 2))
    n = int(random.integers(1, 4))
    bias = {int(id): float(random.normal()) for id in random.integers(0, V, 5)}
    words = [random.integers(0, 40, random.integers(1, 4)).tolist() for _ in range(8)]
    ends = [3, 7]
    n_new = int(random.integers(1, 50))
    n_prompt = int(random.integers(1, 4))
    return [
        (RepetitionPenalty(penalty), theirs.RepetitionPenaltyLogitsProcessor(penalty)),
        (NoRepeatNgram(n), theirs.NoRepeatNGramLogitsProcessor(n)),
        (
            LogitBias(tuple(bias.items())),
            theirs.SequenceBiasLogitsProcessor([[[id], value] for id, value in bias.items()]),
        ),
        (BadWords(tuple(map(tuple, words))), theirs.NoBadWordsLogitsProcessor(words)),
        (
            MinNewTokens(n_new, n_prompt, tuple(ends)),
            theirs.MinNewTokensLengthLogitsProcessor(n_prompt, n_new, ends),
        ),
    ]


@pytest.mark.parametrize("seed", range(40))
def test_processors_give_the_floats_of_transformers(seed: int) -> None:
    random = np.random.default_rng(seed)
    row = a_row(random)
    history = a_history(random)
    for own, other in pairs(random):
        before = row.copy()
        found = own(history, row)
        assert found.dtype == np.float32
        assert np.array_equal(found, by_transformers(other, history, row)), own
        assert row.tobytes() == before.tobytes()


def kept_by_us(row: np.ndarray, **settings: Any) -> set[int]:
    params = SamplingParams(top_k=10**6, **settings)
    ids = np.arange(row.size)
    values = divide_by_temperature(row, params.effective_temperature or 1.0)
    for truncation in build_truncations(params):
        kept = truncation(values)
        ids = ids[kept]
        values = values[kept]
    return set(ids[values > -math.inf].tolist())


THEIRS = {
    "top_p": theirs.TopPLogitsWarper,
    "min_p": theirs.MinPLogitsWarper,
    "typical_p": theirs.TypicalLogitsWarper,
}


@pytest.mark.parametrize("name", TRUNCATIONS)
@pytest.mark.parametrize("seed", range(30))
def test_truncations_keep_the_tokens_of_transformers(seed: int, name: str) -> None:
    """Their sums are of float32: a limit moved by what they lose holds theirs from both sides.
    Among equally likely tokens at the limit they keep any, so rows with ties are left out.
    """
    random = np.random.default_rng(seed)
    row = a_row(random)
    while np.unique(row[row > -math.inf]).size < np.count_nonzero(row > -math.inf):
        row = a_row(random)
    limit = float(random.uniform(0.02, 0.98))
    filtered = by_transformers(THEIRS[name](limit), [1], row)
    found = set(np.flatnonzero(filtered > -math.inf).tolist())
    looser, tighter = (limit + 1e-5, limit - 1e-5)
    if name == "min_p":
        looser, tighter = tighter, looser
    assert kept_by_us(row, **{name: tighter}) <= found <= kept_by_us(row, **{name: looser})
    assert (filtered[list(found)] == row[list(found)]).all()


def test_equally_likely_tokens_at_the_limit_of_top_p_go_by_their_ids() -> None:
    row = np.zeros(10, np.float32)
    row[4] = 1.0  # 0.23; the others have 0.085 each
    assert kept_by_us(row, top_p=0.5) == {0, 1, 2, 3, 4}
    assert kept_by_us(row, top_p=0.2) == {4}


@pytest.mark.parametrize("seed", range(20))
def test_what_top_p_keeps_is_what_sorting_keeps(seed: int) -> None:
    random = np.random.default_rng(seed)
    row = a_row(random)
    top_p = float(random.uniform(0.01, 0.99))
    probabilities = np.exp(divide_by_temperature(row, 1.0))
    total = float(sum(probabilities.tolist()))
    kept = set()
    before = 0.0
    for id in sorted(range(V), key=lambda id: (-probabilities[id], id)):
        if before < top_p * total:
            kept.add(id)
        before += float(probabilities[id])
    assert kept_by_us(row, top_p=top_p) == {id for id in kept if row[id] > -math.inf}


def test_a_chain_of_all_settings_draws_what_transformers_chain_draws() -> None:
    """The whole order at once: the same number draws the same token from both, but where a limit
    falls within float32's rounding.
    """
    n_same = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        row = (random.standard_normal(V) * 3).astype(np.float32)
        history = a_history(random)
        params = SamplingParams(
            temperature=0.9,
            top_k=50,
            top_p=0.93,
            min_p=0.01,
            typical_p=0.95,
            repetition_penalty=1.2,
            no_repeat_ngram_size=2,
            logit_bias={5: 2.0},  # type: ignore[arg-type]
            bad_words=((9,), (4, 6)),
            min_new_tokens=100,
            seed=seed,
        )
        chain = [
            theirs.SequenceBiasLogitsProcessor([[[5], 2.0]]),
            theirs.RepetitionPenaltyLogitsProcessor(1.2),
            theirs.NoRepeatNGramLogitsProcessor(2),
            theirs.NoBadWordsLogitsProcessor([[9], [4, 6]]),
            theirs.MinNewTokensLengthLogitsProcessor(2, 100, [3, 7]),
            theirs.TemperatureLogitsWarper(0.9),
            theirs.TopKLogitsWarper(50),
            theirs.TopPLogitsWarper(0.93),
            theirs.MinPLogitsWarper(0.01),
            theirs.TypicalLogitsWarper(0.95),
        ]
        scores = row
        for processor in chain:
            scores = by_transformers(processor, history, scores)
        sampler = Sampler(params, build_processors(params, 2, NoText(), (3, 7)))
        n_same += sampler.sample(row, history) == draw(scores, seed)
    assert n_same >= 199


class NoText:
    """A tokenizer that is only asked for its size."""

    vocab_size = V


def draw(scores: np.ndarray, seed: int) -> int:
    """By inverting the cumulative sum, in torch's softmax."""
    uniform = (next(Philox(seed)) >> 11) * 2.0**-53
    cumulative = torch.softmax(torch.from_numpy(scores), 0).double().cumsum(0)
    return int(torch.searchsorted(cumulative, uniform * cumulative[-1], right=True))
