"""Truncations of vocabularies so large that a few tokens are sorted first, against sorting all."""

from __future__ import annotations

import numpy as np
import pytest

from gpt_edge.generate import truncation
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.truncation import Mask, Values, build_truncations

SIZE = 40 * truncation._FEW
SHARES = (0.05, 0.5, 0.9, 0.999)


def a_row(spread: float) -> Values:
    row = np.random.default_rng(3).standard_normal(SIZE) * spread
    row[::7] = -np.inf
    return row - row.max()


def sorted_top_p(values: Values, top_p: float) -> Mask:
    probabilities = np.exp(values)
    order = probabilities.argsort(kind="stable")[::-1]
    before = probabilities[order].cumsum() - probabilities[order]
    kept = np.zeros(values.size, bool)
    kept[order[before < top_p * probabilities.sum()]] = True
    return kept


def sorted_typical(values: Values, mass: float) -> Mask:
    probabilities = np.exp(values)
    probabilities /= probabilities.sum()
    surprise = np.full(values.size, np.inf)
    possible = probabilities > 0
    surprise[possible] = -np.log(probabilities[possible])
    distance = np.abs(surprise - (probabilities[possible] * surprise[possible]).sum())
    order = distance.argsort(kind="stable")
    last = min(int((probabilities[order].cumsum() < mass).sum()), values.size - 1)
    return possible & (distance <= distance[order[last]])


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("spread", [0.1, 1, 5])
@pytest.mark.parametrize("name", ["top_p", "typical_p"])
def test_a_large_vocabulary_is_cut_as_if_all_of_it_were_sorted(
    name: str, spread: float, share: float
) -> None:
    values = a_row(spread)
    (cut,) = build_truncations(SamplingParams(temperature=1, **{name: share}))  # type: ignore[arg-type]
    slow = {"top_p": sorted_top_p, "typical_p": sorted_typical}[name]
    # sums in another order may differ in the last bit: by one token at the very limit
    assert int((cut(values) != slow(values, share)).sum()) <= 1
    assert cut(values).any()


def test_a_limit_that_keeps_everything_is_none() -> None:
    params = SamplingParams(temperature=1, top_p=1.0, min_p=0.0, typical_p=1.0)
    assert build_truncations(params) == []
