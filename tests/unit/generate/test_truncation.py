"""Truncations against slow, obvious versions, on rows longer than what is sorted first."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.truncation import (
    Values,
    build_truncations,
    min_p_mask,
    top_p_mask,
    typical_mask,
)

SIZES = (1, 2, 40, 511, 512, 513, 1500, 9000)
LIMITS = (0.01, 0.3, 0.7, 0.95, 0.9999)


def a_row(size: int, spread: float, *, ties: bool = False) -> Values:
    random = np.random.default_rng(size)
    row = random.standard_normal(size) * spread
    if ties:
        row = row.round()
    if size > 8:
        row[random.choice(size, size // 8, replace=False)] = -math.inf
    values: Values = row - row.max()
    return values


def slow_top_p(values: Values, top_p: float) -> list[int]:
    probabilities = np.exp(values).tolist()
    total = 0.0
    for probability in probabilities:
        total += probability
    kept = []
    before = 0.0
    for id in sorted(range(values.size), key=lambda id: (-probabilities[id], id)):
        if before < top_p * total and probabilities[id] > 0:
            kept.append(id)
        before += probabilities[id]
    return sorted(kept)


def slow_typical(values: Values, mass: float) -> list[int]:
    exact = np.exp(values).tolist()
    total = math.fsum(exact)
    possible = [id for id in range(values.size) if exact[id] > 0]
    surprise = {id: -math.log(exact[id] / total) for id in possible}
    expected = math.fsum(exact[id] / total * surprise[id] for id in possible)
    order = sorted(possible, key=lambda id: abs(surprise[id] - expected))
    n_kept = int((np.cumsum([exact[id] / total for id in order]) < mass).sum()) + 1
    reach = abs(surprise[order[min(n_kept, len(order)) - 1]] - expected)
    return [id for id in possible if abs(surprise[id] - expected) <= reach + 1e-12]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("spread", [0.1, 1.0, 6.0])
@pytest.mark.parametrize("size", SIZES)
def test_top_p_keeps_what_sorting_keeps(size: int, spread: float, ties: bool) -> None:
    values = a_row(size, spread, ties=ties)
    for top_p in LIMITS:
        kept = top_p_mask(values, top_p)
        assert kept.nonzero()[0].tolist() == slow_top_p(values, top_p), top_p


@pytest.mark.parametrize("spread", [0.1, 1.0, 6.0])
@pytest.mark.parametrize("size", SIZES)
def test_typical_keeps_what_is_nearest_to_the_expected_surprise(size: int, spread: float) -> None:
    values = a_row(size, spread)
    for mass in LIMITS:
        kept = typical_mask(values, mass)
        assert kept.nonzero()[0].tolist() == slow_typical(values, mass), mass


def test_typical_keeps_everything_possible_where_rounding_leaves_less_than_the_mass() -> None:
    values = a_row(600, 1.0)
    kept = typical_mask(values, math.nextafter(1, 0))
    assert kept.tolist() == (values > -math.inf).tolist()


def test_min_p_is_a_share_of_the_likeliest() -> None:
    values = np.log(np.array([0.5, 1.0, 0.25, 0.125]))
    assert min_p_mask(values, 0.24).tolist() == [True, True, True, False]
    assert min_p_mask(np.array([-1.0, 0.0]), 1.0).tolist() == [False, True]


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, []),
        ({"top_p": 1.0, "min_p": 0.0, "typical_p": 1.0}, []),
        ({"top_p": 0.9}, ["top_p_mask"]),
        ({"min_p": 0.1}, ["min_p_mask"]),
        ({"typical_p": 0.9}, ["typical_mask"]),
        (
            {"typical_p": 0.9, "min_p": 0.1, "top_p": 0.9},
            ["top_p_mask", "min_p_mask", "typical_mask"],
        ),
    ],
)
def test_a_limit_that_removes_nothing_is_none(settings: dict[str, float], names: list[str]) -> None:
    found = build_truncations(SamplingParams(temperature=1.0, **settings))  # type: ignore[arg-type]
    assert [truncation.func.__name__ for truncation in found] == names  # type: ignore[attr-defined]
    for truncation in found:
        (value,) = truncation.keywords.values()  # type: ignore[attr-defined]
        assert value in settings.values()


def test_a_limit_that_keeps_everything_is_none() -> None:
    params = SamplingParams(temperature=1, top_p=1.0, min_p=0.0, typical_p=1.0)
    assert build_truncations(params) == []
