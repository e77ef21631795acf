"""Whole generations against transformers' `generate`: greedy with penalties, sampled with the same
random numbers, and beams; contrastive search against a loop over its hidden states.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import gpt_edge
from gpt_edge.arrays import IntArray
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.generate.beam_search import BeamParams
from gpt_edge.generate.contrastive import ContrastiveParams
from gpt_edge.generate.generator import Generator
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.philox import Philox
from tests.support.transformers_models import random_transformers, save_vocabulary

PROMPTS = ["hear me speak", "First Citizen: All", "famish? We proceed any further, resolved to die"]
# the vocabulary's own, and some that random weights reach within a few tokens
ENDS = [0, 17, 60, 113]
Models = tuple[Any, Generator]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """transformers' GPT-2 and our generator of the same weights."""
    folder = tmp_path_factory.mktemp("gpt2")
    model = random_transformers("GPT2", "LMHeadModel")
    model.save_pretrained(folder / "hf")
    save_vocabulary(folder / "hf", size=310)
    export_bundle(folder / "hf", folder / "bundle", scheme="fp32")
    return model, gpt_edge.load(folder / "bundle")


@pytest.fixture(scope="module")
def portable(models: Models) -> Generator:
    """Of the same checkpoint, with the portable graph."""
    folder = models[1].session.bundle.path.parent
    return gpt_edge.load(
        export_bundle(folder / "hf", folder / "portable", scheme="fp32", graph="portable")[0].path
    )


def by_transformers(model: Any, ids: list[int], **settings: Any) -> IntArray:
    ask = {"max_new_tokens": 24, "do_sample": False, "pad_token_id": 0, "top_k": 0, **settings}
    rows = model.generate(torch.tensor([ids]), **ask)
    return np.asarray(rows)[:, len(ids) :]


def without_end(ids: list[int], ends: list[int]) -> tuple[int, ...]:
    """The ids before the first end token."""
    places = [place for place, id in enumerate(ids) if id in ends]
    return tuple(ids[: places[0]] if places else ids)


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"repetition_penalty": 1.4},
        {"no_repeat_ngram_size": 2},
        {"repetition_penalty": 0.8, "no_repeat_ngram_size": 3, "min_new_tokens": 9},
    ],
    ids=str,
)
def test_greedy_is_that_of_transformers(
    models: Models, prompt: str, settings: dict[str, Any]
) -> None:
    model, generator = models
    ids = generator.tokenizer.encode(prompt)
    expected = by_transformers(model, ids, eos_token_id=ENDS, **settings)[0].tolist()
    done = generator.complete(prompt, max_new_tokens=24, stop_token_ids=ENDS, **settings)
    assert done.ids == without_end(expected, ENDS)
    assert (done.finish_reason == "stop") == (expected[-1] in ENDS)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.7, "top_k": 20},
        {"top_p": 0.8, "temperature": 1.3},
        {"min_p": 0.05, "repetition_penalty": 1.2},
        {"typical_p": 0.7, "top_k": 100},
        {"temperature": 1.5, "top_k": 60, "top_p": 0.9, "min_p": 0.02, "typical_p": 0.9},
    ],
    ids=str,
)
def test_the_same_random_numbers_sample_the_text_of_transformers(
    models: Models, settings: dict[str, Any], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, generator = models
    random = Philox(seed)

    def multinomial(probabilities: torch.Tensor, num_samples: int) -> torch.Tensor:
        assert num_samples == 1
        cumulative = probabilities[0].double().cumsum(0)
        uniform = (next(random) >> 11) * 2.0**-53
        return torch.searchsorted(cumulative, uniform * cumulative[-1], right=True).view(1, 1)

    monkeypatch.setattr(torch, "multinomial", multinomial)
    ids = generator.tokenizer.encode(PROMPTS[0])
    expected = by_transformers(model, ids, do_sample=True, eos_token_id=ENDS, **settings)[0]
    params = SamplingParams(seed=seed, max_new_tokens=24, stop_token_ids=tuple(ENDS), **settings)
    assert generator.complete(PROMPTS[0], params).ids == without_end(expected.tolist(), ENDS)


@pytest.mark.parametrize(
    ("prompt", "early_stopping"), zip(PROMPTS, [True, False, "never"], strict=True)
)
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, -1.5, 2.0])
def test_beams_are_those_of_transformers(
    models: Models, length_penalty: float, early_stopping: Any, prompt: str
) -> None:
    model, generator = models
    ids = generator.tokenizer.encode(prompt)
    for n_beams, n_ends in ((2, 1), (5, 4)):
        ends = ENDS[:n_ends]
        theirs = model.generate(
            torch.tensor([ids]),
            max_new_tokens=24,
            pad_token_id=0,
            do_sample=False,
            eos_token_id=ends,
            num_beams=n_beams,
            num_return_sequences=n_beams,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            repetition_penalty=1.1,
            output_scores=True,
            return_dict_in_generate=True,
        )
        rows = np.asarray(theirs.sequences)[:, len(ids) :].tolist()
        beams = BeamParams(n_beams, length_penalty, early_stopping, n_beams)
        done = generator.beam_search(
            prompt,
            beams=beams,
            max_new_tokens=24,
            stop_token_ids=ends,
            repetition_penalty=1.1,
        )
        expected = [without_end(row, ends) for row in rows]
        assert [one.ids for one in done] == expected
        scores = [one.score for one in done]
        assert np.allclose(scores, theirs.sequences_scores.numpy(), rtol=1e-4)


def test_log_probabilities_are_those_of_torch(models: Models) -> None:
    model, generator = models
    done = generator.complete(
        PROMPTS[1], max_new_tokens=12, logprobs=3, prompt_logprobs=2, ignore_end_token=True
    )
    before = generator.tokenizer.encode(PROMPTS[1])
    with torch.no_grad():
        logits = model(torch.tensor([[*before, *done.ids]])).logits[0]
    expected = torch.log_softmax(logits.double(), -1).numpy()
    assert done.logprobs is not None
    assert done.prompt_logprobs is not None
    entries = [*done.prompt_logprobs, *done.logprobs]
    ids = [*before[1:], *done.ids]
    assert [entry.id for entry in entries] == ids
    for row, entry in zip(expected, entries, strict=False):
        assert entry.logprob == pytest.approx(row[entry.id], abs=2e-5)
        likeliest = np.argsort(-row)[: len(entry.alternatives)]
        assert [id for id, _ in entry.alternatives] == likeliest.tolist()
        assert [value for _, value in entry.alternatives] == pytest.approx(row[likeliest], abs=2e-5)
    assert {len(entry.alternatives) for entry in done.prompt_logprobs} == {2}
    assert {len(entry.alternatives) for entry in done.logprobs} == {3}
    assert done.cumulative_logprob == pytest.approx(sum(one.logprob for one in done.logprobs))


def test_a_score_is_the_sum_that_torch_gives(models: Models) -> None:
    model, generator = models
    for prompt, continuation in (("hear me", " speak"), ("hear me ", "speak"), ("", "We die")):
        score = generator.score(prompt, continuation)
        whole = generator.tokenizer.encode(prompt + continuation)
        n_before = len(generator.tokenizer.encode(prompt.rstrip()))
        before = whole[:n_before] or [generator.tokenizer.end_token]
        after = whole[n_before:]
        with torch.no_grad():
            logits = model(torch.tensor([[*before, *after]])).logits[0]
        rows = torch.log_softmax(logits.double(), -1)[len(before) - 1 : -1]
        expected = rows[torch.arange(len(after)), torch.tensor(after)]
        logprobs = [token.logprob for token in score.tokens]
        assert logprobs == pytest.approx(expected.tolist(), abs=2e-5)
        assert score.logprob == pytest.approx(float(expected.sum()), abs=1e-4)
        assert score.is_greedy == bool((rows.argmax(-1) == torch.tensor(after)).all())


def test_a_choice_is_the_share_of_each_options_probability(models: Models) -> None:
    _, generator = models
    options = [" speak", " die", " famish, all", " di"]
    choices = generator.choose("We hear me", options)
    sums = [generator.score("We hear me", option).logprob for option in options]
    assert [choice.logprob for choice in choices] == pytest.approx(sums, abs=1e-5)
    shares = np.exp(sums) / np.exp(sums).sum()
    assert [choice.probability for choice in choices] == pytest.approx(shares, abs=1e-5)
    assert [choice.text for choice in choices] == options


@torch.no_grad()
def by_contrast(
    model: Any, ids: list[int], params: ContrastiveParams, n_new: int, bias: dict[int, float]
) -> list[int]:
    """The paper's rule, every text read from its start: section 4.2, equation 5."""
    text = list(ids)
    for _ in range(n_new):
        read = model(torch.tensor([text]), output_hidden_states=True)
        logits = read.logits[0, -1].clone()
        for id, value in bias.items():
            logits[id] += value
        likely = torch.softmax(logits.double(), 0).topk(params.top_k)
        candidates = torch.tensor([[*text, id] for id in likely.indices.tolist()])
        states = model(candidates, output_hidden_states=True).hidden_states[-1]
        before = read.hidden_states[-1][0]
        cosines = torch.nn.functional.cosine_similarity(states[:, -1:], before[None], dim=-1)
        alpha = params.penalty_alpha
        scores = (1 - alpha) * likely.values - alpha * cosines.max(dim=1).values
        text.append(int(likely.indices[scores.argmax()]))
    return text[len(ids) :]


@pytest.mark.parametrize("params", [(0.6, 4), (0.9, 7), (0.25, 2), (1.0, 3)], ids=str)
def test_contrastive_search_is_the_papers(
    models: Models, portable: Generator, params: tuple[float, int]
) -> None:
    model, edge = models
    contrastive = ContrastiveParams(*params)
    bias = {5: 1.5, 9: -2.0}
    for prompt in PROMPTS:
        expected = by_contrast(model, edge.tokenizer.encode(prompt), contrastive, 20, bias)
        for generator in (edge, portable):
            done = generator.contrastive_search(
                prompt,
                contrastive=contrastive,
                max_new_tokens=20,
                ignore_end_token=True,
                logit_bias=bias,
            )
            assert list(done.ids) == expected
