"""Truncations: which tokens may be drawn, by their probabilities: top-p, min-p and typical.

Each takes values float64 [n], logits divided by the temperature whose largest is 0, by ascending
token id, and returns a mask of those that stay; at least the likeliest does. Sums are added from
the first entry to the last, in float64, so that another language gives the same tokens.
transformers adds in float32: a token at the very limit may stay with one and not with the other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gpt_edge.generate.params import SamplingParams

Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Truncation = Callable[[Values], Mask]
_FEW = 512  # tokens that are sorted first, and how many times as many next
_MORE = 16


def build_truncations(params: SamplingParams) -> list[Truncation]:
    """Those that `params` ask for, in transformers' order; a limit of 1, or of 0 for min_p, is
    none.
    """
    truncations: list[Truncation] = []
    if params.top_p is not None and params.top_p < 1:
        truncations.append(partial(top_p_mask, top_p=params.top_p))
    if params.min_p:
        truncations.append(partial(min_p_mask, min_p=params.min_p))
    if params.typical_p is not None and params.typical_p < 1:
        truncations.append(partial(typical_mask, mass=params.typical_p))
    return truncations


def top_p_mask(values: Values, top_p: float) -> Mask:
    """Keep a token if those more likely than it have together less than `top_p`: the smallest set
    that reaches it. Of equally likely ones the lower ids count as more likely.

    Source: Holtzman et al. 2020 (nucleus sampling), section 3.1.
    """
    probabilities = _exp(values)
    total = float(probabilities.cumsum()[-1])
    # few tokens reach it in most rows, so a few are sorted first, and all only if they must be
    n_sorted = _FEW
    while True:
        likely = _largest(probabilities, n_sorted)
        before = np.concatenate(([0.0], likely.cumsum()[:-1]))
        n_kept = int(((before < top_p * total) & (likely > 0)).sum())
        if n_kept < n_sorted:
            return _largest_mask(probabilities, likely, n_kept)
        n_sorted *= _MORE


def min_p_mask(values: Values, min_p: float) -> Mask:
    """Keep the tokens that are at least `min_p` times as likely as the likeliest.

    Source: Nguyen et al. 2024 (min-p sampling), section 3.
    """
    kept: Mask = _exp(values) >= min_p
    return kept


def typical_mask(values: Values, mass: float) -> Mask:
    """Keep the tokens whose surprise is nearest to the expected one, until they have together at
    least `mass`, and those that are as near as the last of them.

    Source: Meister et al. 2023 (locally typical sampling), section 4.
    """
    probabilities = _exp(values)
    log_total = float(np.log(probabilities.cumsum()[-1]))
    probabilities /= np.exp(log_total)
    surprise = log_total - values  # inf for what cannot be drawn
    expected = float((probabilities * np.where(probabilities > 0, surprise, 0)).cumsum()[-1])
    distance = np.abs(surprise - expected)
    kept: Mask = (distance <= _reach(distance, probabilities, mass)) & (probabilities > 0)
    return kept


def _reach(distance: Values, probabilities: Values, mass: float) -> float:
    """The distance at which the nearest tokens have together at least `mass`."""
    n_sorted = _FEW
    while n_sorted < distance.size:
        near = distance <= np.partition(distance, n_sorted - 1)[n_sorted - 1]
        limit = _reach_of_all(distance[near], probabilities[near], mass)
        if limit is not None:
            return limit
        n_sorted *= _MORE
    limit = _reach_of_all(distance, probabilities, mass)
    return float(distance.max()) if limit is None else limit


def _reach_of_all(distance: Values, probabilities: Values, mass: float) -> float | None:
    """None if all of them together have less."""
    order = distance.argsort(kind="stable")
    n_below = int((probabilities[order].cumsum() < mass).sum())
    return None if n_below == distance.size else float(distance[order[n_below]])


def _largest(values: Values, n: int) -> Values:
    """The `n` largest, or all, the largest first."""
    if n < values.size:
        values = np.partition(values, values.size - n)[values.size - n :]
    return np.sort(values)[::-1]


def _largest_mask(probabilities: Values, descending: Values, n: int) -> Mask:
    """Mask of the `n` largest, ties to the lower id. descending: they, and perhaps more."""
    limit = descending[n - 1]
    kept: Mask = probabilities > limit
    ties = (probabilities == limit).nonzero()[0]
    kept[ties[: n - np.count_nonzero(kept)]] = True
    return kept


def _exp(values: Values) -> Any:
    with np.errstate(under="ignore"):
        return np.exp(values)
