"""SamplingParams: defaults and refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gpt_edge.generate.params import SamplingParams


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("max_new_tokens", [0, -1, 1.5, True, "3", None]),
        ("temperature", [-0.1, math.nan, math.inf, "1", True]),
        ("top_k", [0, -1, 2.0, True]),
        ("seed", [-1, 2**64, 1.0, True]),
        ("stop", ["END", ("",), ("a" * 65,), ("a",) * 5, (3,), None]),
    ],
)
def test_a_value_that_means_nothing_is_refused_by_name(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError, match="stop" if name == "stop" else name):
            SamplingParams(**{name: value})


def test_extreme_values_that_mean_something_are_accepted() -> None:
    params = SamplingParams(1, 1e-300, 10**9, 2**64 - 1, ["a" * 64, "b", "c", "d"])  # type: ignore[arg-type]
    assert params.stop == ("a" * 64, "b", "c", "d")


def test_greedy_unless_a_temperature_or_top_k_is_given() -> None:
    assert SamplingParams().is_greedy
    assert SamplingParams(seed=3).is_greedy
    assert SamplingParams(temperature=0, top_k=40).is_greedy
    assert not SamplingParams(top_k=40).is_greedy
    assert not SamplingParams(temperature=0.5).is_greedy
