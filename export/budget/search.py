"""Find the cheapest formats of a model's tensors that meet a loss budget: a multiple-choice
knapsack, then measurements.

Each tensor has candidate formats with a cost and a measured KL. Small KLs nearly add up, so the
cheapest assignment with a predicted KL below a limit is a knapsack with one choice for each tensor
(Sinha and Zoltners 1979), solved exactly up to the grid by dynamic programming. A measurement of
the whole model decides whether an assignment meets the budget. The search lowers the limit after a
miss and raises it while there is headroom, until both ends are close. Nothing is random: the same
figures give the same assignment. Knows nothing of torch, graphs or files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpt_edge.arrays import DoubleArray
from gpt_edge.export.budget.loss_budget import LossBudget, Measured
from gpt_edge.export.formats.tensor_format import Plan, TensorFormat

GRID = 1 << 14  # steps of predicted KL
MAX_MEASUREMENTS = 10
CLOSE = 1.04  # ratio of the limits between which the search stops
# 4-bit weights with float activations are as fast as with 8-bit ones in prompts, half as fast token
# by token (768 x 3072, one thread of an AVX-512 VNNI machine). Without a price the search would
# choose them everywhere.
FLOAT_ACTIVATIONS_COST = 1.25

Costs = DoubleArray


@dataclass(frozen=True, slots=True)
class Option:
    """One candidate format of one tensor."""

    form: TensorFormat
    n_bytes: int
    kl: float  # of this tensor alone

    @property
    def cost(self) -> float:
        """What the search minimizes: bytes, with a surcharge if the product is slow."""
        is_slow = self.form.activations == "float" and not self.form.is_float
        return self.n_bytes * (FLOAT_ACTIVATIONS_COST if is_slow else 1.0)


@dataclass(frozen=True, slots=True)
class Point:
    """One measured assignment: a point of the plot."""

    label: str
    n_bytes: int  # of the quantized tensors
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
    """The result of a search. plan: of the best point; if no point met the budget, of the closest
    one.
    """

    budget: LossBudget
    plan: Plan
    best: Point
    points: tuple[Point, ...]  # in the order of measuring
    # the candidates; empty for a uniform scheme
    options: Mapping[str, Sequence[Option]]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: the limits, every measured assignment, and each tensor's format with
        its alternatives.
        """
        tensors: dict[str, dict[str, Any]] = {
            name: {"format": form.label} for name, form in self.plan.items()
        }
        for name, candidates in self.options.items():
            tensors[name]["kl"] = {option.form.label: _figure(option.kl) for option in candidates}
            tensors[name]["n_bytes"] = {option.form.label: option.n_bytes for option in candidates}
        return {
            "limits": self.budget.to_dict(),
            "ok": self.best.is_met,
            "best": self.best.label,
            "points": [point.to_dict() for point in self.points],
            "tensors": tensors,
        }


Assignment = dict[str, Option]
Trial = tuple[Point, Assignment]


def _figure(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


def pareto(options: Sequence[Option]) -> list[Option]:
    """The options that no other option beats in both cost and KL, by falling KL; ties go to the
    first.
    """
    front: list[Option] = []
    for option in sorted(options, key=lambda option: (option.cost, option.kl)):
        if not front or option.kl < front[-1].kl:
            front.append(option)
    return front


def cheapest(options: Mapping[str, Sequence[Option]], limit: float) -> Assignment | None:
    """Return one option for each tensor: least cost with a sum of KLs of at most `limit`. None if
    even the least sum is above.

    KLs are rounded up to limit / GRID, so an assignment within the fraction n_tensors / GRID of the
    limit may be passed over.
    """
    fronts = {name: pareto(candidates) for name, candidates in options.items()}
    costs = np.full(GRID + 1, np.inf)  # by KL spent so far, in grid steps
    costs[0] = 0.0
    choices = []
    for front in fronts.values():
        costs, choice = _add_tensor(costs, front, limit)
        choices.append(choice)
    spent = int(costs.argmin())
    if not math.isfinite(costs[spent]):
        return None
    assignment: Assignment = {}
    for (name, front), choice in zip(reversed(fronts.items()), reversed(choices), strict=True):
        option = front[int(choice[spent])]
        assignment[name] = option
        spent -= _grid_steps(option, limit)
    return {name: assignment[name] for name in fronts}


def _add_tensor(
    costs: Costs, front: Sequence[Option], limit: float
) -> tuple[Costs, npt.NDArray[np.int16]]:
    """Return the least costs [GRID + 1] with one more tensor, and the index of its option in each;
    -1 where none fits.
    """
    best = np.full(GRID + 1, np.inf)
    choice = np.full(GRID + 1, -1, np.int16)
    for index, option in enumerate(front):
        steps = _grid_steps(option, limit)
        if steps > GRID:
            continue
        offered = np.full(GRID + 1, np.inf)
        offered[steps:] = costs[: GRID + 1 - steps] + option.cost
        is_better = offered < best
        best[is_better] = offered[is_better]
        choice[is_better] = index
    return best, choice


def _grid_steps(option: Option, limit: float) -> int:
    """The option's KL in grid steps, rounded up."""
    return math.ceil(option.kl / limit * GRID) if math.isfinite(option.kl) else GRID + 1


def most_careful(options: Mapping[str, Sequence[Option]]) -> Assignment:
    """For each tensor the option with the least KL, the cheapest of equals."""
    return {
        name: min(candidates, key=lambda option: (option.kl, option.cost))
        for name, candidates in options.items()
    }


@dataclass(slots=True)
class Bracket:
    """The limits of predicted KL between which the best one lies: the highest that met the budget
    and the lowest that missed it.
    """

    met: float = 0.0
    missed: float = math.inf

    def record(self, limit: float, ok: bool) -> None:
        """Note whether the assignment of a limit met the budget."""
        if ok:
            self.met = max(self.met, limit)
        else:
            self.missed = min(self.missed, limit)

    @property
    def is_closed(self) -> bool:
        """Whether both ends are so close that another measurement would gain little."""
        return self.missed <= self.met * CLOSE

    def next_limit(self, limit: float, headroom: float) -> float:
        """The limit to try after `limit`: between the ends, or beyond the only known end, guided by
        the headroom that `limit` left.
        """
        if self.met and math.isfinite(self.missed):
            return math.sqrt(self.met * self.missed)
        if self.met:
            return limit * min(max(headroom, 1.15), 16.0)
        return limit * max(min(headroom * 0.95, 0.87), 1 / 16)


def search(
    options: Mapping[str, Sequence[Option]],
    budget: LossBudget,
    measure: Callable[[Plan], Measured],
    progress: Callable[[str], None] = lambda stage: None,
) -> Outcome:
    """Return the cheapest measured assignment that meets the budget; if none does, the closest.

    measure: runs the whole model with a plan, at most MAX_MEASUREMENTS times. Raises ValueError
    without a limit or without options.
    """
    if not budget or not options or not all(options.values()):
        raise ValueError("a search needs a limit and at least one option for each tensor")
    tried: dict[tuple[TensorFormat, ...], Trial] = {}
    bracket = Bracket()
    limit = budget.first_guess()
    largest = _largest_limit(options)
    while len(tried) < MAX_MEASUREMENTS:
        assignment = cheapest(options, limit)
        is_lowest = assignment is None  # no lower limit has another assignment
        if assignment is None:
            assignment = most_careful(options)
        key = tuple(option.form for option in assignment.values())
        if key not in tried:
            number = len(tried) + 1
            progress(f"measuring assignment {number}")
            tried[key] = (_measure(f"mixed {number}", assignment, budget, measure), assignment)
        point = tried[key][0]
        bracket.record(limit, point.is_met)
        if is_lowest and not point.is_met:
            break
        if bracket.is_closed or limit > largest:
            break
        following = bracket.next_limit(limit, budget.headroom(point.measured))
        if following == limit:
            break
        limit = following
    best, assignment = best_assignment(list(tried.values()), budget)
    points = tuple(point for point, _ in tried.values())
    return Outcome(budget, plan_of(assignment), best, points, options)


def best_assignment(tried: Sequence[Trial], budget: LossBudget) -> Trial:
    """Of the assignments that meet the budget the cheapest, of equal ones that with the least KL;
    if none meets it, the one with the most headroom.
    """
    meeting = [trial for trial in tried if trial[0].is_met]
    if not meeting:
        return max(tried, key=lambda trial: budget.headroom(trial[0].measured))
    return min(meeting, key=lambda trial: (_cost(trial[1]), trial[0].measured.mean_kl))


def plan_of(assignment: Mapping[str, Option]) -> Plan:
    """The format of each tensor."""
    return {name: option.form for name, option in assignment.items()}


def _largest_limit(options: Mapping[str, Sequence[Option]]) -> float:
    """A limit of predicted KL above which nothing changes: even the grid's first step holds the
    cheapest option of every tensor.
    """
    cheapest_options = [
        min(candidates, key=lambda option: (option.cost, option.kl))
        for candidates in options.values()
    ]
    return sum(option.kl for option in cheapest_options) * GRID


def _cost(assignment: Mapping[str, Option]) -> float:
    return sum(option.cost for option in assignment.values())


def _measure(
    label: str,
    assignment: Mapping[str, Option],
    budget: LossBudget,
    measure: Callable[[Plan], Measured],
) -> Point:
    measured = measure(plan_of(assignment))
    n_bytes = sum(option.n_bytes for option in assignment.values())
    predicted_kl = sum(option.kl for option in assignment.values())
    return Point(label, n_bytes, predicted_kl, measured, budget.is_met_by(measured))
