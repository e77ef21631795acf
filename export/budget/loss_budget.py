"""A budget of loss: what may be lost, whether a measurement keeps to it, and how much room it
leaves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

# KL is about 3 x (share of changed tokens)^2, seen on the embedded model; a first guess only
FLIPS_PER_KL = 3.0


class Measured(Protocol):
    """The figures of one measurement, as `sensitivity.Degradation` has them."""

    @property
    def mean_kl(self) -> float: ...
    @property
    def ppl_increase(self) -> float: ...
    @property
    def top1(self) -> float: ...
    def to_dict(self) -> dict[str, float | int | None]: ...


@dataclass(frozen=True, slots=True)
class LossBudget:
    """What may be lost, each None where it does not matter. Raises ValueError for a limit that is
    no limit.

    max_kl: mean KL in nats. max_ppl_increase: 0.002 lets perplexity grow by 0.2 %. min_top1: share
    of tokens, 0 to 1.
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

    def headroom(self, found: Measured) -> float:
        """By how much the KL could grow until the tightest limit is reached: 2 is twice; below
        1 the budget is missed.
        """
        rooms = []
        if self.max_kl is not None:
            rooms.append(_ratio(self.max_kl, found.mean_kl))
        if self.max_ppl_increase is not None:
            rooms.append(_ratio(self.max_ppl_increase, found.ppl_increase))
        if self.min_top1 is not None:  # flips grow as the root of the KL
            room = _ratio(1 - self.min_top1, 1 - found.top1)
            rooms.append(room * room if found.top1 < self.min_top1 or room > 1 else 1.0)
        return min(rooms, default=math.inf)

    def is_met_by(self, found: Measured) -> bool:
        """Whether every limit is kept."""
        return (
            (self.max_kl is None or found.mean_kl <= self.max_kl)
            and (self.max_ppl_increase is None or found.ppl_increase <= self.max_ppl_increase)
            and (self.min_top1 is None or found.top1 >= self.min_top1)
        )

    def first_guess(self) -> float:
        """The predicted KL to begin with."""
        guesses = [self.max_kl] if self.max_kl is not None else []
        if self.max_ppl_increase is not None:
            guesses.append(math.log1p(self.max_ppl_increase))
        if self.min_top1 is not None:
            guesses.append(max(FLIPS_PER_KL * (1 - self.min_top1) ** 2, 1e-9))
        return min(guesses)

    def exceeded(self, found: Measured) -> str:
        """In words, what is missed and by how much."""
        parts = []
        if self.max_kl is not None and not found.mean_kl <= self.max_kl:
            parts.append(f"mean KL {found.mean_kl:.3g} instead of {self.max_kl:.3g}")
        if self.max_ppl_increase is not None and not found.ppl_increase <= self.max_ppl_increase:
            parts.append(
                f"perplexity {found.ppl_increase:+.3%} instead of {self.max_ppl_increase:+.3%}"
            )
        if self.min_top1 is not None and not found.top1 >= self.min_top1:
            parts.append(f"same token {found.top1:.2%} instead of {self.min_top1:.2%}")
        return ", ".join(parts)

    def to_dict(self) -> dict[str, float]:
        """The limits that are set."""
        values = {
            "max_kl": self.max_kl,
            "max_ppl_increase": self.max_ppl_increase,
            "min_top1": self.min_top1,
        }
        return {name: value for name, value in values.items() if value is not None}


def _ratio(limit: float, found: float) -> float:
    return limit / found if found > 0 else math.inf
