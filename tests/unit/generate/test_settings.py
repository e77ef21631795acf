"""Settings by keyword, samples, and processors at the level of a Generator."""

from __future__ import annotations

import dataclasses
import inspect
from collections import Counter

import numpy as np
import pytest

from gpt_edge.errors import NumericError
from gpt_edge.generate.conversation import Conversation
from gpt_edge.generate.generator import Generator
from gpt_edge.generate.params import SamplingParams, SamplingSettings
from gpt_edge.generate.settings import CallOptions, GenerationSettings, TextSettings
from tests.support.scripted import scripted
from tests.support.tiny_model import END_TOKEN, GRAPHS, VOCAB_SIZE, open_generator

PROMPT = "the end of"


@pytest.fixture(params=GRAPHS)
def generator(request: pytest.FixtureRequest) -> Generator:
    return open_generator(request.param)


def test_settings_by_name_are_those_of_params(generator: Generator) -> None:
    params = SamplingParams(max_new_tokens=9, top_p=0.9, seed=4)
    expected = generator.complete(PROMPT, params)
    assert generator.complete(PROMPT, max_new_tokens=9, top_p=0.9, seed=4).ids == expected.ids
    assert generator.complete(PROMPT, params, max_new_tokens=3).ids == expected.ids[:3]
    assert "".join(generator.stream(PROMPT, params, seed=4)) == expected.text
    assert generator.generate_batch([PROMPT], params, seed=4)[0].ids == expected.ids


def test_what_is_no_setting_is_refused_by_name(generator: Generator) -> None:
    with pytest.raises(TypeError, match="did you mean temperature"):
        generator.complete(PROMPT, temprature=0.5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"'speclate' is no setting .* did you mean speculate"):
        generator.complete(PROMPT, speclate="lookup")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'truncate' is no setting"):
        generator.generate_ids([1], truncate="left")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="params must be SamplingParams, got dict"):
        generator.complete(PROMPT, {"top_k": 4})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="top_p must be a number above 0"):
        generator.complete(PROMPT, top_p=2)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (Generator.generate_ids, GenerationSettings),
        (Generator.stream, TextSettings),
        (Generator.complete, TextSettings),
        (Generator.astream, TextSettings),
        (Generator.samples, SamplingSettings),
        (Conversation.send, SamplingSettings),
    ],
)
def test_help_shows_every_setting_with_its_default(method: object, settings: type) -> None:
    shown = inspect.signature(method).parameters  # type: ignore[arg-type]
    assert not any(one.kind is one.VAR_KEYWORD for one in shown.values())
    assert settings.__annotations__.keys() <= shown.keys()
    for field in (*dataclasses.fields(SamplingParams), *dataclasses.fields(CallOptions)):
        if field.name in settings.__annotations__:
            assert shown[field.name].default == field.default
    names = {field.name for field in dataclasses.fields(CallOptions)}
    assert names == TextSettings.__annotations__.keys() - SamplingSettings.__annotations__.keys()


def test_token_ids_beyond_the_vocabulary_are_refused_by_name(generator: Generator) -> None:
    for settings in (
        {"logit_bias": {VOCAB_SIZE: 1.0}},
        {"bad_words": [[3, VOCAB_SIZE]]},
        {"stop_token_ids": [VOCAB_SIZE]},
    ):
        name = next(iter(settings))
        with pytest.raises(ValueError, match=f"{name} names token {VOCAB_SIZE}, but"):
            generator.complete(PROMPT, **settings)  # type: ignore[arg-type]


def test_each_sample_is_what_its_seed_alone_gives(generator: Generator) -> None:
    params = SamplingParams(max_new_tokens=12, temperature=1.5, seed=2**64 - 2)
    many = generator.samples(PROMPT, params, n=4)
    assert [one.seed for one in many] == [2**64 - 2, 2**64 - 1, 0, 1]
    for one in many:
        assert one.seed is not None
        assert one.ids == generator.complete(PROMPT, params, seed=one.seed).ids
    assert len({one.ids for one in many}) > 1
    drawn = generator.samples(PROMPT, n=2, temperature=1.5, max_new_tokens=5)
    assert drawn[0].seed != drawn[1].seed


def test_the_best_of_many_have_the_highest_mean(generator: Generator) -> None:
    params = SamplingParams(max_new_tokens=10, temperature=1.5, seed=3, logprobs=0)
    everyone = generator.samples(PROMPT, params, n=6)
    best = generator.samples(PROMPT, params, n=2, best_of=6)
    means = sorted((one.mean_logprob for one in everyone), reverse=True)
    assert [one.mean_logprob for one in best] == means[:2]
    for wrong in ({"n": 0}, {"n": 3, "best_of": 2}):
        with pytest.raises(ValueError, match="n must be from 1 to best_of"):
            generator.samples(PROMPT, params, **wrong)
    with pytest.raises(ValueError, match="need sampling"):
        generator.samples(PROMPT, n=2)


def test_bad_words_never_come_and_biased_ones_do(generator: Generator) -> None:
    free = generator.complete(PROMPT, max_new_tokens=30, ignore_end_token=True)
    common = Counter(free.ids).most_common(1)[0][0]
    banned = generator.complete(
        PROMPT, max_new_tokens=30, ignore_end_token=True, bad_words=[(common,)]
    )
    assert common not in banned.ids
    biased = generator.complete(PROMPT, max_new_tokens=5, logit_bias={common: 1000.0})
    assert biased.ids == (common,) * 5
    word = generator.tokenizer.decode([common])
    if generator.tokenizer.encode(word) == [common]:
        by_text = generator.complete(
            PROMPT, max_new_tokens=30, ignore_end_token=True, bad_words=[word]
        )
        assert common not in by_text.ids


def test_penalties_of_a_text_count_its_own_tokens_alone() -> None:
    seen: list[list[int]] = []

    def spy(history: list[int], logits: np.ndarray) -> np.ndarray:
        seen.append([float(logits[65]), float(logits[66]), len(history)])
        return logits

    generator = scripted(b"ABBA")
    done = generator.complete(
        "AB",
        max_new_tokens=4,
        presence_penalty=0.5,
        frequency_penalty=0.25,
        processors=[spy],  # type: ignore[list-item]
    )
    assert done.text == "ABBA"
    assert seen == [[9, 0, 2], [-0.75, 9, 3], [-0.75, 9 - 0.75, 4], [9 - 0.75, -1, 5]]


def test_no_end_token_comes_before_min_new_tokens() -> None:
    early = scripted(b"ab", END_TOKEN, *b"cd", END_TOKEN)
    assert early.complete("x", max_new_tokens=9).text == "ab"
    later = scripted(b"ab", END_TOKEN, *b"cd", END_TOKEN)
    done = later.complete("x", max_new_tokens=9, min_new_tokens=3)
    assert (done.ids, done.finish_reason) == ((97, 98, 0, 99, 100), "stop")


def test_stop_tokens_end_a_text_whatever_else_is_ignored() -> None:
    done = scripted(b"ab", END_TOKEN, *b"cd").complete(
        "x", max_new_tokens=9, ignore_end_token=True, stop_token_ids=[99]
    )
    assert (done.ids, done.finish_reason) == ((97, 98, END_TOKEN), "stop")


def test_settings_that_leave_no_token_are_one_clear_error(generator: Generator) -> None:
    with pytest.raises(NumericError, match="-inf for every token is what the logits processors"):
        generator.complete(PROMPT, logit_bias=dict.fromkeys(range(VOCAB_SIZE), float("-inf")))


def test_logprobs_come_with_each_id_and_only_when_asked_for(generator: Generator) -> None:
    done = generator.complete(PROMPT, max_new_tokens=6, ignore_end_token=True, logprobs=2)
    assert done.logprobs is not None
    assert [entry.id for entry in done.logprobs] == list(done.ids)
    for entry in done.logprobs:
        assert entry.alternatives[0] == (entry.id, entry.logprob)  # greedy takes the likeliest
        assert entry.logprob > entry.alternatives[1][1]
    plain = generator.complete(PROMPT, max_new_tokens=6, ignore_end_token=True)
    assert (plain.ids, plain.logprobs, plain.cumulative_logprob) == (done.ids, None, None)
    batch = generator.generate_batch([PROMPT] * 2, max_new_tokens=6, logprobs=2, top_k=3, seed=1)
    alone = generator.complete(PROMPT, max_new_tokens=6, logprobs=2, top_k=3, seed=1)
    assert batch[1].logprobs is not None
    assert alone.logprobs is not None
    assert [entry.logprob for entry in batch[1].logprobs] == pytest.approx(
        [entry.logprob for entry in alone.logprobs], abs=1e-5
    )


def test_an_empty_continuation_has_no_score(generator: Generator) -> None:
    with pytest.raises(ValueError, match="the continuation is empty"):
        generator.score(PROMPT, "")
    with pytest.raises(ValueError, match="at least one string"):
        generator.choose(PROMPT, [])
    with pytest.raises(ValueError, match="at least one string"):
        generator.choose(PROMPT, "abc")
