"""The cheapest way to store a model that still meets a budget of loss: a multiple-choice knapsack,
then measurements.

Each tensor has candidate formats with a cost and a measured KL. As small KLs nearly add up, the
cheapest assignment with a predicted KL of at most some limit is a knapsack with one choice for each
tensor (Sinha and Zoltners 1979), solved exactly up to the grid by dynamic programming. Whether an
assignment meets the budget is decided by measuring the whole model with it: where it misses, the
limit is lowered, where it has room, raised, until both ends are close. Nothing is drawn by chance:
the same figures give the same assignment. Knows nothing of torch, graphs or files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpt_edge.export.budget.loss_budget import LossBudget, Measured
from gpt_edge.export.formats.tensor_format import Plan, TensorFormat

GRID = 1 << 14  # steps of predicted KL
MAX_MEASUREMENTS = 10
CLOSE = 1.04  # ratio of the limits between which the search stops
# 4-bit weights with float activations: as fast as with 8-bit ones in prompts, half as fast token by
# token (768 x 3072, one thread of an AVX-512 VNNI machine). Without a price the search would choose
# them everywhere.
FLOAT_ACTIVATIONS_COST = 1.25


@dataclass(frozen=True, slots=True)
class Option:
    """One candidate of one tensor."""

    form: TensorFormat
    n_bytes: int
    kl: float  # of this tensor alone

    @property
    def cost(self) -> float:
        """What the search adds up: bytes, more of them where the product is slow."""
        is_slow = self.form.activations == "float" and not self.form.is_float
        return self.n_bytes * (FLOAT_ACTIVATIONS_COST if is_slow else 1.0)


@dataclass(frozen=True, slots=True)
class Point:
    """One assignment that was measured: a point of the plot."""

    label: str
    n_bytes: int  # of the rounded tensors
    predicted_kl: float | None
    measured: Measured
    is_met: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "label": self.label,
            "n_bytes": self.n_bytes,
            "predicted_kl": _figure(self.predicted_kl),
            **self.measured.to_dict(),
            "ok": self.is_met,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search came to. plan: of the best point; where no point met the limits, of the one
    that came closest.
    """

    budget: LossBudget
    plan: Plan
    best: Point
    points: tuple[Point, ...]  # in the order of measuring
    # what there was to choose from; empty for a uniform scheme
    options: Mapping[str, Sequence[Option]]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: the limits, every measured assignment, and for each tensor its format
        and alternatives.
        """
        tensors: dict[str, dict[str, Any]] = {
            name: {"format": form.label} for name, form in self.plan.items()
        }
        for name, found in self.options.items():
            tensors[name] |= {"kl": {option.form.label: _figure(option.kl) for option in found}}
            tensors[name] |= {"n_bytes": {option.form.label: option.n_bytes for option in found}}
        return {
            "limits": self.budget.to_dict(),
            "ok": self.best.is_met,
            "best": self.best.label,
            "points": [point.to_dict() for point in self.points],
            "tensors": tensors,
        }


def _figure(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


def pareto(options: Sequence[Option]) -> list[Option]:
    """The options that no other one beats in both cost and KL, by falling KL; ties go to
    the first.
    """
    kept: list[Option] = []
    for option in sorted(options, key=lambda option: (option.cost, option.kl)):
        if not kept or option.kl < kept[-1].kl:
            kept.append(option)
    return kept


def cheapest(options: Mapping[str, Sequence[Option]], limit: float) -> dict[str, Option] | None:
    """One option for each tensor: least cost with a sum of KLs of at most `limit`; None where even
    the least is above.

    KLs are rounded up to limit / GRID, so an assignment within a share n_tensors / GRID of the
    limit may be passed over.
    """
    fronts = {name: pareto(found) for name, found in options.items()}
    costs = np.full(GRID + 1, np.inf)  # by KL spent so far, in grid steps
    costs[0] = 0.0
    choices = []
    for front in fronts.values():
        best, choice = np.full(GRID + 1, np.inf), np.full(GRID + 1, -1, np.int16)
        for index, option in enumerate(front):
            steps = math.ceil(option.kl / limit * GRID) if math.isfinite(option.kl) else GRID + 1
            if steps > GRID:
                continue
            offered = np.full(GRID + 1, np.inf)
            offered[steps:] = costs[: GRID + 1 - steps] + option.cost
            is_better = offered < best
            best[is_better], choice[is_better] = offered[is_better], index
        costs = best
        choices.append(choice)
    at = int(costs.argmin())
    if not math.isfinite(costs[at]):
        return None
    found: dict[str, Option] = {}
    for (name, front), choice in zip(reversed(fronts.items()), reversed(choices), strict=True):
        option = front[int(choice[at])]
        found[name] = option
        at -= math.ceil(option.kl / limit * GRID)
    return {name: found[name] for name in fronts}


def most_careful(options: Mapping[str, Sequence[Option]]) -> dict[str, Option]:
    """For each tensor the option with the least KL, the cheapest of equals."""
    return {
        name: min(found, key=lambda option: (option.kl, option.cost))
        for name, found in options.items()
    }


def search(
    options: Mapping[str, Sequence[Option]],
    budget: LossBudget,
    measure: Callable[[Plan], Measured],
    progress: Callable[[str], None] = lambda stage: None,
) -> Outcome:
    """Return the cheapest assignment that was measured to keep the limits; of none, the one that
    came closest.

    measure: the whole model with a plan, at most MAX_MEASUREMENTS times. Raises ValueError without
    limits or options.
    """
    if not budget or not options or not all(options.values()):
        raise ValueError("a search needs a limit and at least one option for each tensor")
    tried: dict[tuple[TensorFormat, ...], tuple[Point, dict[str, Option]]] = {}
    met, missed, limit = 0.0, math.inf, budget.first_guess()
    while len(tried) < MAX_MEASUREMENTS:
        chosen = cheapest(options, limit)
        is_last = chosen is None
        chosen = chosen or most_careful(options)
        key = tuple(option.form for option in chosen.values())
        if key not in tried:
            progress(f"measuring assignment {len(tried) + 1}")
            tried[key] = (_point(f"mixed {len(tried) + 1}", chosen, budget, measure), chosen)
        point = tried[key][0]
        if point.is_met:
            met = max(met, limit)
        else:
            missed = min(missed, limit)
        if (is_last and not point.is_met) or missed <= met * CLOSE or limit > _most(options) * GRID:
            break
        following = _next_limit(limit, met, missed, budget.headroom(point.measured))
        if following == limit:
            break
        limit = following
    met_ones = [pair for pair in tried.values() if pair[0].is_met]
    best, chosen = (
        min(met_ones, key=lambda pair: (_cost(pair[1]), pair[0].measured.mean_kl))
        if met_ones
        else max(tried.values(), key=lambda pair: budget.headroom(pair[0].measured))
    )
    plan = {name: option.form for name, option in chosen.items()}
    return Outcome(budget, plan, best, tuple(point for point, _ in tried.values()), options)


def _next_limit(limit: float, met: float, missed: float, room: float) -> float:
    """Where to look next: between the ends, or beyond the one that is known, guided by how much
    room there was.
    """
    if met and math.isfinite(missed):
        return math.sqrt(met * missed)
    if met:
        return limit * min(max(room, 1.15), 16.0)
    return limit * max(min(room * 0.95, 0.87), 1 / 16)


def _most(options: Mapping[str, Sequence[Option]]) -> float:
    """Predicted KL of the cheapest option everywhere: a higher limit changes nothing any more."""
    return sum(
        min(found, key=lambda option: (option.cost, option.kl)).kl for found in options.values()
    )


def _cost(chosen: Mapping[str, Option]) -> float:
    return sum(option.cost for option in chosen.values())


def _point(
    label: str,
    chosen: Mapping[str, Option],
    budget: LossBudget,
    measure: Callable[[Plan], Measured],
) -> Point:
    found = measure({name: option.form for name, option in chosen.items()})
    predicted = sum(option.kl for option in chosen.values())
    return Point(
        label,
        sum(option.n_bytes for option in chosen.values()),
        predicted,
        found,
        budget.is_met_by(found),
    )
