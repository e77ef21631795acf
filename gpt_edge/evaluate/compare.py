"""How far one model is from another, row by row of a text: the statistics of llama.cpp's perplexity
tool, by its definitions.

With p the base's probabilities and q the model's, over the vocabulary, and w the token that came:
- KL divergence = sum p (log p - log q) in nats (Kullback and Leibler 1951), at least 0, and 0 only
  where both are equal. llama.cpp leaves out tokens with log p < -16 and stores p in 16 bits; here
  every token counts and p is float64.
- Top-1 agreement: the fraction of rows with the same most likely token ("same top p").
- Δp = q(w) - p(w): above 0 where the model predicts better. Its root mean square is the noise on a
  token's probability.
- ln(PPL(model) / PPL(base)), from the rows' differences: rows that are hard for both models cancel
  in its standard error.
Standard errors: `measures.py`; the error of the RMS is half the error of the mean square, divided
by the RMS.
Source: ggml-org/llama.cpp, tools/perplexity.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpt_edge.arrays import DoubleArray, FloatArray, IntArray
from gpt_edge.evaluate.measures import (
    BLOCK_ROWS,
    Estimate,
    Sums,
    Tally,
    exp,
    kl_divergence,
    log_softmax,
    of_targets,
    share,
)
from gpt_edge.evaluate.quantiles import Quantiles

KL_SHARES = (0.5, 0.9, 0.95, 0.99, 0.999)
DELTA_P_SHARES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A model against its base. KL in nats, Δp from -1 to 1; quantiles by their share, exact to a
    relative 6e-5.
    """

    n_rows: int
    mean_kl: Estimate
    kl_quantiles: Mapping[float, float]
    max_kl: float
    top1: Estimate
    mean_delta_p: Estimate
    rms_delta_p: Estimate
    delta_p_quantiles: Mapping[float, float]
    min_delta_p: float
    max_delta_p: float
    log_perplexity_ratio: Estimate
    perplexity_ratio: Estimate | None  # None where it is too large for a float
    perplexity_difference: Estimate | None
    correlation: float | None  # of -log q(w) and -log p(w); None where one of them does not vary

    @property
    def median_kl(self) -> float:
        """Half of the rows have no larger divergence."""
        return self.kl_quantiles[0.5]


@dataclass(slots=True)
class Pair:
    """Sums over the rows that both models scored so far."""

    kl: Sums = field(default_factory=Sums)
    delta_p: Sums = field(default_factory=Sums)
    squared_delta_p: Sums = field(default_factory=Sums)
    log_ratio: Sums = field(default_factory=Sums)
    n_same_top: int = 0
    kl_values: Quantiles = field(default_factory=Quantiles)
    delta_p_values: Quantiles = field(default_factory=Quantiles)

    def add(self, base: DoubleArray, model: DoubleArray, targets: IntArray) -> None:
        """Count rows: log-probabilities [R, V] of both, and the ids [R] that came."""
        kl = kl_divergence(base, model)
        before, after = of_targets(base, targets), of_targets(model, targets)
        delta_p = np.exp(after) - np.exp(before)
        self.kl.add(kl)
        self.kl_values.add(kl)
        self.delta_p.add(delta_p)
        self.delta_p_values.add(delta_p)
        self.squared_delta_p.add(delta_p * delta_p)
        self.log_ratio.add(before - after)
        self.n_same_top += int((base.argmax(-1) == model.argmax(-1)).sum())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, from which `from_dict` restores the same bits."""
        values: dict[str, Any] = {name: dataclasses.asdict(getattr(self, name)) for name in SUMS}
        quantiles = {name: getattr(self, name).to_dict() for name in QUANTILES}
        return {**values, **quantiles, "n_same_top": self.n_same_top}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Pair:
        """The inverse of `to_dict`. Raises ValueError, KeyError, TypeError or IndexError for other
        values.
        """
        pair = cls(n_same_top=int(values["n_same_top"]))
        for name in SUMS:
            setattr(pair, name, Sums(**values[name]))
        for name in QUANTILES:
            setattr(pair, name, Quantiles.from_dict(values[name]))
        return pair


SUMS = ("kl", "delta_p", "squared_delta_p", "log_ratio")
QUANTILES = ("kl_values", "delta_p_values")


def add_rows(
    logits: Sequence[FloatArray],
    targets: IntArray,
    tallies: Sequence[Tally],
    pairs: Mapping[tuple[int, int], Pair],
) -> None:
    """Count a block of rows of every model.

    logits: [R, V] of each model; targets: ids [R]; tallies: one for each model; pairs: by (base,
    model), indices into them.
    """
    for start in range(0, len(targets), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        logs = [log_softmax(rows[block]) for rows in logits]
        for tally, log in zip(tallies, logs, strict=True):
            tally.add(-of_targets(log, targets[block]), log.argmax(-1) == targets[block])
        for (base, model), pair in pairs.items():
            pair.add(logs[base], logs[model], targets[block])


def comparison(pair: Pair, base: Tally, model: Tally) -> Comparison:
    """The statistics of a pair, whose rows are those of the tallies. Raises ValueError for no
    rows.
    """
    ratio, spread = pair.log_ratio.estimate(), pair.log_ratio.variance_of_mean
    variances = base.nll.variance_of_mean, model.nll.variance_of_mean
    covariance = (sum(variances) - spread) / 2
    deviation = math.sqrt(variances[0] * variances[1])
    square, rms = pair.squared_delta_p.estimate(), math.sqrt(pair.squared_delta_p.mean)
    before, after, factor = exp(base.nll.mean), exp(model.nll.mean), exp(ratio.value)
    difference = None
    if before is not None and after is not None:
        variance = (
            after**2 * variances[1] + before**2 * variances[0] - 2 * before * after * covariance
        )
        difference = Estimate(after - before, math.sqrt(max(0.0, variance)))
    return Comparison(
        n_rows=pair.kl.n,
        mean_kl=pair.kl.estimate(),
        kl_quantiles={share: pair.kl_values.at(share) for share in KL_SHARES},
        max_kl=pair.kl_values.at(1),
        top1=share(pair.n_same_top, pair.kl.n),
        mean_delta_p=pair.delta_p.estimate(),
        rms_delta_p=Estimate(rms, 0.5 * square.error / rms if rms else 0.0),
        delta_p_quantiles={share: pair.delta_p_values.at(share) for share in DELTA_P_SHARES},
        min_delta_p=pair.delta_p_values.at(0),
        max_delta_p=pair.delta_p_values.at(1),
        log_perplexity_ratio=ratio,
        perplexity_ratio=None if factor is None else Estimate(factor, factor * ratio.error),
        perplexity_difference=difference,
        correlation=min(1.0, covariance / deviation) if deviation else None,
    )
