"""What a benchmark measures: lists of numbers, cases, and plans that fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_edge.bench.plan import CURVE_POINTS, Case, Plan, make_plan, parse_numbers
from gpt_edge.errors import ContextLengthError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", (0,)),
        ("32,512", (32, 512)),
        (" 4, 1 ,4", (4, 1)),
        ("128-512+128", (128, 256, 384, 512)),
        ("1-9*2", (1, 2, 4, 8)),
        ("0-4+2,7", (0, 2, 4, 7)),
        ("5-5+1", (5,)),
    ],
)
def test_lists_and_ranges_are_read(text: str, expected: tuple[int, ...]) -> None:
    assert parse_numbers(text) == expected


@pytest.mark.parametrize(
    "text", ["", ",", "a", "-1", "1.5", "1-2", "4-1+1", "1-4+0", "1-4*1", "0-4*2", "9" * 30, "٣"]
)
def test_what_is_no_list_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"numbers|range"):
        parse_numbers(text)


@pytest.mark.parametrize("text", ["0-9999999+1", ",".join(map(str, range(65)))])
def test_a_list_that_would_take_days_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="at most 64"):
        parse_numbers(text)


def test_cases_are_every_combination_and_are_named_as_in_llama_bench() -> None:
    cases = Plan((32, 64), (8,), depths=(0, 16), batches=(1, 4)).cases()
    names = [(case.name, case.batch) for case in cases]
    assert names[:4] == [("pp32", 1), ("pp32", 4), ("pp32 @ d16", 1), ("pp32 @ d16", 4)]
    assert names[-1] == ("tg8 @ d16", 4)
    assert len(set(names)) == len(cases) == 3 * 2 * 2


def test_decoding_starts_from_a_token_where_the_context_is_empty() -> None:
    assert (Case("decode", 8).n_past, Case("decode", 8).n_context) == (1, 9)
    assert (Case("decode", 8, depth=5).n_past, Case("prefill", 8, depth=5).n_context) == (5, 13)


@pytest.mark.parametrize(
    "changes",
    [
        {"prompts": (), "new_tokens": ()},
        {"prompts": (0,)},
        {"new_tokens": (-1,)},
        {"depths": (-1,)},
        {"depths": ()},
        {"threads": (0,)},
        {"threads": (257,)},
        {"batches": (0,)},
        {"batches": (1025,)},
        {"repetitions": 0},
        {"repetitions": True},
        {"warmup": -1},
    ],
)
def test_values_that_mean_nothing_are_refused(changes: dict[str, object]) -> None:
    values: dict[str, object] = {"prompts": (8,), "new_tokens": (8,), **changes}
    with pytest.raises(ValueError, match=r"nothing|must"):
        Plan(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("plan", "name"),
    [
        (Plan((1025,), ()), "pp1025"),
        (Plan((), (1024,)), "tg1024"),
        (Plan((24,), (8,), depths=(0, 1001)), "pp24 @ d1001"),
    ],
)
def test_a_case_longer_than_the_context_is_refused_by_name(plan: Plan, name: str) -> None:
    with pytest.raises(
        ContextLengthError, match=rf"^{name} needs a context of \d+ tokens, tiny has 1024$"
    ):
        plan.check_fits("tiny", 1024)
    plan.check_fits("tiny", 1025)


@given(n_ctx=st.integers(2, 4096), is_curve=st.booleans())
def test_what_is_not_given_is_chosen_so_that_it_fits(n_ctx: int, is_curve: bool) -> None:
    make_plan(n_ctx, is_curve=is_curve).check_fits("any", n_ctx)


def test_a_zero_leaves_a_kind_out() -> None:
    assert {case.kind for case in make_plan(64, prompts=[0]).cases()} == {"decode"}
    assert {case.kind for case in make_plan(64, new_tokens=[0]).cases()} == {"prefill"}
    with pytest.raises(ValueError, match="nothing"):
        make_plan(64, prompts=[0], new_tokens=[0])


def test_a_curve_spreads_over_the_whole_context_and_reads_no_prompts() -> None:
    cases = make_plan(1024, is_curve=True).cases()
    assert {case.kind for case in cases} == {"decode"}
    assert len(cases) == CURVE_POINTS
    assert (cases[0].depth, cases[-1].n_context) == (0, 1024)
    assert [
        case.depth
        for case in make_plan(1024, depths=[7], new_tokens=[4], prompts=[0], is_curve=True).cases()
    ] == [7]
