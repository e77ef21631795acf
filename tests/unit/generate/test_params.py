"""SamplingParams: defaults and refusals."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from gpt_edge.generate.params import SamplingParams, params_with


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("max_new_tokens", [0, -1, 1.5, True, "3", None]),
        ("temperature", [-0.1, math.nan, math.inf, "1", True]),
        ("top_k", [0, -1, 2.0, True]),
        ("seed", [-1, 2**64, 1.0, True]),
        ("top_p", [0, 1.1, -0.1, math.nan, "1", True]),
        ("min_p", [-0.1, 1.1, math.nan, True]),
        ("typical_p", [0, 2, math.nan]),
        ("repetition_penalty", [0, -1, math.inf, math.nan, None, "1"]),
        ("presence_penalty", [math.inf, math.nan, None, "1", 10**400]),
        ("frequency_penalty", [math.inf, None]),
        ("no_repeat_ngram_size", [-1, 1.0, None, True]),
        ("min_new_tokens", [-1, 1.0, None]),
        ("logprobs", [-1, 101, 1.0, True]),
        ("prompt_logprobs", [-1, 101]),
        ("logit_bias", [3, "ab", {-1: 1.0}, {1: math.inf}, {1: math.nan}, {"1": 1.0}, {1: "2"}]),
        ("bad", ["word", ("",), ((),), ((-1,),), ((1.0,),), (3,), None]),
        ("stop_token_ids", [3, (-1,), (1.0,), ("a",), None]),
        ("stop", ["END", ("",), ("a" * 65,), ("a",) * 5, (3,), None]),
    ],
)
def test_a_value_that_means_nothing_is_refused_by_name(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=name):
            SamplingParams(**{"bad_words" if name == "bad" else name: value})


def test_extreme_values_that_mean_something_are_accepted() -> None:
    params = SamplingParams(1, 1e-300, 10**9, 2**64 - 1, ["a" * 64, "b", "c", "d"])  # type: ignore[arg-type]
    assert params.stop == ("a" * 64, "b", "c", "d")


def test_greedy_unless_a_field_asks_for_sampling() -> None:
    assert SamplingParams().is_greedy
    assert SamplingParams(seed=3).is_greedy
    assert SamplingParams(temperature=0, top_k=40).is_greedy
    assert not SamplingParams(top_k=40).is_greedy
    assert not SamplingParams(temperature=0.5).is_greedy
    for name in ("top_p", "min_p", "typical_p"):
        assert not SamplingParams(**{name: 0.5}).is_greedy  # type: ignore[arg-type]
        assert SamplingParams(temperature=0, **{name: 0.5}).is_greedy  # type: ignore[arg-type]


def test_top_k_is_forty_only_where_nothing_else_truncates() -> None:
    assert SamplingParams(temperature=0.8).effective_top_k == 40
    assert SamplingParams(temperature=0.8, top_p=0.9).effective_top_k is None
    assert SamplingParams(top_k=7, top_p=0.9).effective_top_k == 7
    assert SamplingParams(top_k=7, temperature=0).effective_top_k is None


def test_equal_settings_are_equal_however_they_were_written() -> None:
    one = SamplingParams(logit_bias={3: 1, 1: -2.0}, bad_words=["a", [1, 2]], stop_token_ids=[4])  # type: ignore[arg-type]
    other = SamplingParams(
        logit_bias=((1, -2.0), (3, 1.0)), bad_words=("a", (1, 2)), stop_token_ids=(4,)
    )
    assert one == other
    assert hash(one) == hash(other)
    assert dataclasses.replace(one, seed=1) == dataclasses.replace(other, seed=1)


def test_the_smallest_numbers_of_tokens_are_allowed() -> None:
    params = SamplingParams(max_new_tokens=1, top_k=1)
    assert (params.max_new_tokens, params.top_k) == (1, 1)


def test_a_bound_that_belongs_to_a_range_is_allowed() -> None:
    for name, values in {
        "top_p": (1, 1e-9),
        "min_p": (0, 1),
        "typical_p": (1,),
        "seed": (0, 2**64 - 1),
        "logprobs": (0, 100),
        "prompt_logprobs": (0, 100),
        "no_repeat_ngram_size": (0,),
        "min_new_tokens": (0,),
    }.items():
        for value in values:
            assert getattr(SamplingParams(**{name: value}), name) == value  # type: ignore[arg-type]
    assert SamplingParams(stop=("a", "a" * 64, "b", "c")).stop == ("a", "a" * 64, "b", "c")
    assert SamplingParams(logit_bias=((0, -math.inf),)).logit_bias == ((0, -math.inf),)
    assert SamplingParams(bad_words=("a", (0,))).bad_words == ("a", (0,))
    assert SamplingParams(stop_token_ids=(0,)).stop_token_ids == (0,)


def test_single_settings_replace_those_of_params() -> None:
    params = SamplingParams(top_k=3, seed=5)
    assert params_with(params, {}) is params
    assert params_with(None, {}) == SamplingParams()
    assert params_with(params, {"seed": 6}) == SamplingParams(top_k=3, seed=6)
    assert params_with(None, {"seed": 6}) == SamplingParams(seed=6)
    with pytest.raises(TypeError, match="params must be SamplingParams, got dict"):
        params_with({"top_k": 3}, {})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'topk' is no setting of SamplingParams; did you mean top"):
        params_with(params, {"topk": 3})  # type: ignore[typeddict-unknown-key]
    with pytest.raises(TypeError, match=r"'zzz' is no setting of SamplingParams$"):
        params_with(params, {"zzz": 3})  # type: ignore[typeddict-unknown-key]
