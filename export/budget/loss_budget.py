"""A loss budget: the limits, whether a measurement meets them, and how much headroom it leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

# KL is about 3 x (fraction of token flips)^2, seen on the built-in model; a first guess only
FLIPS_PER_KL = 3.0


class Measured(Protocol):
    """The figures of one measurement, as `degradation.Degradation` has them."""

    @property
    def mean_kl(self) -> float: ...
    @property
    def ppl_increase(self) -> float: ...
    @property
    def top1(self) -> float: ...
    def to_dict(self) -> dict[str, float | int | None]: ...


@dataclass(frozen=True, slots=True)
class LossBudget:
    """Limits of the loss; None sets no limit. Raises ValueError for a value outside its range.

    max_kl: mean KL in nats. max_ppl_increase: 0.002 allows 0.2 % more perplexity. min_top1:
    fraction of tokens, 0 to 1.
    """

    max_kl: float | None = None
    max_ppl_increase: float | None = None
    min_top1: float | None = None

    def __post_init__(self) -> None:
        for name in ("max_kl", "max_ppl_increase"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a number above 0, got {value}")
        if self.min_top1 is not None and not 0 < self.min_top1 <= 1:
            raise ValueError(f"min_top1 must be above 0 and at most 1, got {self.min_top1}")

    def __bool__(self) -> bool:
        return any(
            value is not None for value in (self.max_kl, self.max_ppl_increase, self.min_top1)
        )

    def headroom(self, measured: Measured) -> float:
        """The factor by which the KL could grow until it reaches the tightest limit; below 1 the
        budget is exceeded.
        """
        factors = []
        if self.max_kl is not None:
            factors.append(_ratio(self.max_kl, measured.mean_kl))
        if self.max_ppl_increase is not None:
            factors.append(_ratio(self.max_ppl_increase, measured.ppl_increase))
        if self.min_top1 is not None:  # token flips grow as the root of the KL
            factor = _ratio(1 - self.min_top1, 1 - measured.top1)
            is_decisive = measured.top1 < self.min_top1 or factor > 1
            factors.append(factor * factor if is_decisive else 1.0)
        return min(factors, default=math.inf)

    def is_met_by(self, measured: Measured) -> bool:
        """Whether every limit is met."""
        return (
            (self.max_kl is None or measured.mean_kl <= self.max_kl)
            and (self.max_ppl_increase is None or measured.ppl_increase <= self.max_ppl_increase)
            and (self.min_top1 is None or measured.top1 >= self.min_top1)
        )

    def first_guess(self) -> float:
        """The limit of predicted KL that the search starts with."""
        guesses = [self.max_kl] if self.max_kl is not None else []
        if self.max_ppl_increase is not None:
            guesses.append(math.log1p(self.max_ppl_increase))
        if self.min_top1 is not None:
            guesses.append(max(FLIPS_PER_KL * (1 - self.min_top1) ** 2, 1e-9))
        return min(guesses)

    def exceeded(self, measured: Measured) -> str:
        """The limits that are exceeded, and by how much, in words."""
        phrases = []
        if self.max_kl is not None and not measured.mean_kl <= self.max_kl:
            phrases.append(f"mean KL {measured.mean_kl:.3g} instead of {self.max_kl:.3g}")
        if self.max_ppl_increase is not None and not measured.ppl_increase <= self.max_ppl_increase:
            phrases.append(
                f"perplexity {measured.ppl_increase:+.3%} instead of {self.max_ppl_increase:+.3%}"
            )
        if self.min_top1 is not None and not measured.top1 >= self.min_top1:
            phrases.append(f"same token {measured.top1:.2%} instead of {self.min_top1:.2%}")
        return ", ".join(phrases)

    def to_dict(self) -> dict[str, float]:
        """The limits that are set."""
        values = {
            "max_kl": self.max_kl,
            "max_ppl_increase": self.max_ppl_increase,
            "min_top1": self.min_top1,
        }
        return {name: value for name, value in values.items() if value is not None}


def _ratio(limit: float, value: float) -> float:
    return limit / value if value > 0 else math.inf
