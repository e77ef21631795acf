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
    # Tokens below this have together too little to matter, and most tokens of a real row are: the
    # rest is quick to sort. Half of it, so that no rounding decides.
    floor = (1 - top_p) / 2 * total / values.size
    likely = np.sort(probabilities[probabilities > floor])[::-1]
    before = np.concatenate(([0.0], likely.cumsum()[:-1]))
    return _largest_mask(probabilities, likely, int((before < top_p * total).sum()))


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
    order = distance.argsort()
    n_below = int((probabilities[order].cumsum() < mass).sum())
    limit = distance[order[min(n_below, values.size - 1)]]
    kept: Mask = (distance <= limit) & (probabilities > 0)
    return kept


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
