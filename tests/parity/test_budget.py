"""The search for a budget: exact where that can be tried, deterministic, honest where it fails."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_edge.config import GPTConfig
from gpt_edge.export.budget.loss_budget import LossBudget
from gpt_edge.export.budget.plot import plot_outcome
from gpt_edge.export.budget.search import (
    GRID,
    MAX_MEASUREMENTS,
    Bracket,
    Option,
    Point,
    best_assignment,
    cheapest,
    most_careful,
    pareto,
    search,
)
from gpt_edge.export.formats.plan import QuantizeOptions, candidates, shapes, uniform_plan
from gpt_edge.export.formats.tensor_format import FLOAT16, FLOAT32, Plan, TensorFormat

# heads of 12: padded to 16 in edge
CONFIG = GPTConfig(n_layer=2, n_head=3, n_embd=36, n_ctx=64, vocab_size=211)
FORMS = (
    TensorFormat(4, 128),
    TensorFormat(4, 32),
    TensorFormat(8, 128),
    TensorFormat(8, 32),
    FLOAT16,
)
FALLING = (1.0, 0.7, 0.01, 0.007, 1e-5)  # how the KL falls along FORMS, about as in trained models


@dataclass(frozen=True)
class Found:
    """A measurement made up by a test."""

    mean_kl: float
    ppl_increase: float = 0.0
    top1: float = 1.0
    kl_error: float = 0.0

    def to_dict(self) -> dict[str, float | int | None]:
        return {
            "mean_kl": self.mean_kl,
            "ppl_increase": self.ppl_increase,
            "top1": self.top1,
            "kl_error": self.kl_error,
        }


def tensors(scales: list[float]) -> dict[str, list[Option]]:
    """A model of tensors of different sizes, each with all FORMS; `scales` are the KLs of the worst
    one.
    """
    return {
        f"t{i}": [
            Option(form, form.n_bytes(64, 64 * (1 + i % 7)), scale * part)
            for form, part in zip(FORMS, FALLING, strict=True)
        ]
        for i, scale in enumerate(scales)
    }


def summed(options: dict[str, list[Option]], plan: Plan) -> float:
    """What a model whose KLs add up exactly would show."""
    return sum(
        option.kl
        for name, found in options.items()
        for option in found
        if option.form == plan[name]
    )


SCALES = st.lists(st.floats(1e-6, 1e-2), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(scales=SCALES, limit=st.floats(1e-7, 3e-2))
def test_the_knapsack_finds_what_trying_everything_finds(scales: list[float], limit: float) -> None:
    options = tensors(scales)
    every = [
        (sum(option.cost for option in chosen), sum(option.kl for option in chosen))
        for chosen in itertools.product(*options.values())
    ]
    found = cheapest(options, limit)
    share = 1 - len(scales) / GRID  # KLs are rounded up to the grid
    certain = [cost for cost, kl in every if kl <= limit * share]
    allowed = [cost for cost, kl in every if kl <= limit * (1 + 1e-9)]
    if found is None:
        assert not certain
        return
    cost = sum(option.cost for option in found.values())
    assert sum(option.kl for option in found.values()) <= limit * (1 + 1e-9)
    assert min(allowed) <= cost <= min(certain, default=math.inf)


def test_pareto_drops_what_another_option_beats() -> None:
    good, worse = Option(FORMS[1], 100, 1e-3), Option(FORMS[0], 100, 2e-3)
    better, dear = Option(FORMS[2], 200, 1e-5), Option(FORMS[3], 300, 1e-5)
    assert pareto([dear, worse, better, good]) == [good, better]


def test_float_activations_cost_more_than_their_bytes() -> None:
    plain, floats = TensorFormat(4, 64), TensorFormat(4, 64, activations="float")
    options = {"t": [Option(plain, 1000, 1e-5), Option(floats, 1000, 5e-6)]}
    assert cheapest(options, 1e-4) == {"t": options["t"][0]}
    assert cheapest(options, 7e-6) == {"t": options["t"][1]}


@pytest.mark.parametrize("truth", [1.0, 1.7, 0.5])  # how the whole model's KL differs from the sum
@pytest.mark.parametrize("limit", [1e-6, 1e-4, 1e-3, 1e-2, 1.0])
def test_the_search_ends_just_within_the_budget(truth: float, limit: float) -> None:
    options = tensors([10 ** (-5 + 3 * (i * 7 % 40) / 40) for i in range(40)])
    outcome = search(
        options, LossBudget(max_kl=limit), lambda plan: Found(truth * summed(options, plan))
    )
    assert outcome.best.is_met
    assert outcome.best.measured.mean_kl <= limit
    assert len(outcome.points) <= MAX_MEASUREMENTS
    everything_cheapest = sum(min(option.n_bytes for option in found) for found in options.values())
    assert (
        outcome.best.measured.mean_kl >= 0.9 * limit or outcome.best.n_bytes == everything_cheapest
    )


def test_a_bracket_looks_beyond_its_known_end_then_halves_on_the_logarithm() -> None:
    bracket = Bracket()
    bracket.record(1e-3, ok=True)
    assert bracket.next_limit(1e-3, headroom=2.0) == pytest.approx(2e-3)
    bracket.record(2e-3, ok=False)
    assert bracket.next_limit(2e-3, headroom=0.5) == pytest.approx(math.sqrt(2) * 1e-3)
    bracket.record(1.5e-3, ok=True)
    assert (bracket.met, bracket.missed, bracket.is_closed) == (1.5e-3, 2e-3, False)
    bracket.record(1.53e-3, ok=False)
    assert bracket.is_closed
    missed_only = Bracket()
    missed_only.record(1e-3, ok=False)
    assert missed_only.next_limit(1e-3, headroom=0.1) == pytest.approx(0.095e-3)


def test_the_best_assignment_is_the_cheapest_that_meets_the_budget() -> None:
    cheap, dear = Option(FORMS[0], 10, 1e-3), Option(FORMS[2], 20, 1e-5)
    trials = [
        (Point("cheap", 10, 1e-3, Found(1e-3), is_met=False), {"t": cheap}),
        (Point("dear", 20, 1e-5, Found(1e-5), is_met=True), {"t": dear}),
    ]
    assert best_assignment(trials, LossBudget(max_kl=1e-4))[0].label == "dear"
    assert best_assignment(trials[:1], LossBudget(max_kl=1e-4))[0].label == "cheap"


def test_the_search_is_deterministic() -> None:
    options = tensors([1e-4, 3e-4, 1e-3, 2e-5])

    def measure(plan: Plan) -> Found:
        return Found(1.3 * summed(options, plan))

    one, two = (search(options, LossBudget(max_kl=2e-4), measure) for _ in range(2))
    assert json.dumps(one.to_dict()) == json.dumps(two.to_dict())
    assert dict(one.plan) == dict(two.plan)


def test_every_limit_must_be_kept() -> None:
    options = tensors([10 ** (-5 + 3 * (i * 7 % 40) / 40) for i in range(40)])

    def measure(plan: Plan) -> Found:
        kl = summed(options, plan)
        return Found(kl, math.expm1(kl), 1 - math.sqrt(kl / 3))

    for budget in (
        LossBudget(max_ppl_increase=1e-4),
        LossBudget(min_top1=0.995),
        LossBudget(max_kl=5e-3, max_ppl_increase=1e-3, min_top1=0.99),
    ):
        best = search(options, budget, measure).best
        assert best.is_met
        assert budget.is_met_by(best.measured)
        assert budget.headroom(best.measured) < 1.3
        assert budget.exceeded(best.measured) == ""


def test_a_budget_that_nothing_meets_says_how_close_it_came() -> None:
    options = tensors([1e-3] * 5)
    budget = LossBudget(max_kl=1e-9, min_top1=0.999)
    outcome = search(options, budget, lambda plan: Found(summed(options, plan), 0.0, 0.98))
    assert not outcome.best.is_met
    assert dict(outcome.plan) == {
        name: option.form for name, option in most_careful(options).items()
    }
    assert "mean KL 5e-08 instead of 1e-09" in budget.exceeded(outcome.best.measured)
    assert "same token 98.00% instead of 99.90%" in budget.exceeded(outcome.best.measured)


def test_an_infinite_kl_is_never_chosen() -> None:
    options = {"t": [Option(FORMS[0], 10, math.inf), Option(FORMS[2], 1000, 1e-5)]}
    outcome = search(options, LossBudget(max_kl=1.0), lambda plan: Found(summed(options, plan)))
    assert outcome.plan["t"] == FORMS[2]
    json.dumps(outcome.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"max_kl": 0.0}, "max_kl must be a number above 0, got 0.0"),
        ({"max_ppl_increase": math.nan}, "max_ppl_increase"),
        ({"min_top1": 1.2}, "min_top1"),
    ],
)
def test_limits_that_are_none_are_refused(values: dict[str, float], wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        LossBudget(**values)


def test_the_plot_is_a_png_and_the_same_each_time(tmp_path: Path) -> None:
    options = tensors([1e-3, 1e-4])
    outcome = search(options, LossBudget(max_kl=1e-4), lambda plan: Found(summed(options, plan)))
    for name in ("one.png", "two.png"):
        plot_outcome(outcome, tmp_path / name, "tiny")
    content = (tmp_path / "one.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert content == (tmp_path / "two.png").read_bytes()


def test_shapes_are_those_of_the_padded_graph() -> None:
    found = shapes(CONFIG, "edge")
    assert found["h.1.attn.c_attn.weight"] == (3 * 3 * 16, 36)
    assert found["h.1.attn.c_proj.weight"] == (36, 3 * 16)
    assert shapes(CONFIG, "portable")["h.1.attn.c_proj.weight"] == (36, 36)
    assert next(iter(found)) == "wte.weight"
    assert len(found) == 1 + 4 * CONFIG.n_layer


def test_patterns_choose_what_is_rounded() -> None:
    options = QuantizeOptions("int4", include=("h.*.mlp.*",), exclude=("h.0.*",))
    plan = uniform_plan(CONFIG, "edge", options)
    rounded = {name for name, form in plan.items() if form != FLOAT32}
    assert rounded == {"h.1.mlp.c_fc.weight", "h.1.mlp.c_proj.weight"}
    mixed = candidates(CONFIG, "edge", QuantizeOptions("mixed", exclude=("h.0.*",)))
    assert mixed["h.0.attn.c_attn.weight"] == [FLOAT32]
    assert {form.bits for form in mixed["h.1.attn.c_attn.weight"]} == {4, 8, 16}


def test_a_tied_table_has_the_bits_of_head_and_embedding() -> None:
    for options in (
        QuantizeOptions("int4", head=4),
        QuantizeOptions("int4", embedding=4),
        QuantizeOptions("int4", head=4, embedding=4),
    ):
        assert uniform_plan(CONFIG, "edge", options)["wte.weight"].bits == 4
    with pytest.raises(ValueError, match="one table"):
        uniform_plan(CONFIG, "edge", QuantizeOptions("int8", head=8, embedding=4))


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (lambda: QuantizeOptions("int5"), "scheme must be one of"),
        (lambda: QuantizeOptions("int8-dynamic", head=8), "Optimum's"),
        (lambda: QuantizeOptions("int8", block_size=64), "int8-block"),
        (lambda: QuantizeOptions("int4", head=5), "bits must be one of"),
        (
            lambda: uniform_plan(CONFIG, "edge", QuantizeOptions("int4", exclude=("nothing.*",))),
            "'nothing.\\*' matches no weight",
        ),
        (
            lambda: uniform_plan(CONFIG, "portable", QuantizeOptions("int4", symmetric=False)),
            "no zero points",
        ),
        (
            lambda: uniform_plan(CONFIG, "edge", QuantizeOptions("int4", block_size=48)),
            "power of two",
        ),
    ],
)
def test_options_that_contradict_are_refused(make: object, wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        make()  # type: ignore[operator]
