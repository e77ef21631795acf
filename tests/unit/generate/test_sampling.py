"""SamplingParams, keep_top_k and Sampler: defaults, refusals, exactness against slow versions,
soundness of logits.
"""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_edge.errors import NumericError
from gpt_edge.generate import sampling
from gpt_edge.generate.sampling import Sampler, SamplingParams, keep_top_k, philox, top_k_ids

V = 50257
PARAMS = [
    SamplingParams(),
    SamplingParams(temperature=0.0, top_k=5),
    SamplingParams(top_k=1, seed=1),
    SamplingParams(top_k=40, seed=1),
    SamplingParams(temperature=0.7, seed=1),
    SamplingParams(temperature=2.0, top_k=10**6, seed=1),
]


def row(size: int = V, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(size) * 3).astype(np.float32)


def slow_top_k(logits: np.ndarray, k: int) -> list[int]:
    """By sorting pairs: the largest first, the lower id first in a tie."""
    return sorted(sorted(range(logits.size), key=lambda id: (-logits[id], id))[:k])


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("max_new_tokens", [0, -1, 1.5, True, "3", None]),
        ("temperature", [-0.1, math.nan, math.inf, "1", True]),
        ("top_k", [0, -1, 2.0, True]),
        ("seed", [-1, 2**64, 1.0, True]),
        ("stop", ["END", ("",), ("a" * 65,), ("a",) * 5, (3,), None]),
    ],
)
def test_a_value_that_means_nothing_is_refused_by_name(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError, match="stop" if name == "stop" else name):
            SamplingParams(**{name: value})


def test_extreme_values_that_mean_something_are_accepted() -> None:
    params = SamplingParams(1, 1e-300, 10**9, 2**64 - 1, ["a" * 64, "b", "c", "d"])  # type: ignore[arg-type]
    assert params.stop == ("a" * 64, "b", "c", "d")


def test_greedy_unless_a_temperature_or_top_k_is_given() -> None:
    assert SamplingParams().is_greedy
    assert SamplingParams(seed=3).is_greedy
    assert SamplingParams(temperature=0, top_k=40).is_greedy
    assert not SamplingParams(top_k=40).is_greedy
    assert not SamplingParams(temperature=0.5).is_greedy


def test_a_temperature_alone_samples_from_the_forty_most_likely() -> None:
    logits = row(300) / 10
    sampler = Sampler(SamplingParams(temperature=1.5, seed=0))
    seen = {sampler.sample(logits) for _ in range(5000)}
    assert seen == set(slow_top_k(logits, 40))


def test_a_top_k_alone_samples_at_temperature_one() -> None:
    one, other = (
        Sampler(SamplingParams(top_k=7, seed=5)),
        Sampler(SamplingParams(temperature=1.0, top_k=7, seed=5)),
    )
    logits = row()
    assert [one.sample(logits) for _ in range(200)] == [other.sample(logits) for _ in range(200)]


@given(
    st.lists(
        st.sampled_from([0.0, 1.0, 1.0, 2.5, -3.0, -math.inf])
        | st.floats(-(2.0**99), 2.0**99, width=32),
        min_size=1,
        max_size=400,
    ),
    st.integers(1, 450),
)
@settings(max_examples=300, deadline=None)
def test_top_k_keeps_what_sorting_keeps(values: list[float], k: int) -> None:
    logits = np.array(values, np.float32)
    before = logits.copy()
    kept = slow_top_k(logits, k)
    assert top_k_ids(logits, k).tolist() == kept
    filtered = keep_top_k(logits, k)
    assert (filtered[kept] == logits[kept]).all()
    assert (np.delete(filtered, kept) == -np.inf).all()
    assert (logits == before).all()


@pytest.mark.parametrize("size", [1, 31, 32, 33, 1283, 4096, V])
@pytest.mark.parametrize(
    "make",
    [
        row,
        lambda n: np.sort(row(n)),
        lambda n: -np.sort(row(n)),
        lambda n: np.round(row(n)),
        np.zeros,
    ],
)
def test_top_k_is_exact_for_orders_that_break_shortcuts(size: int, make: Any) -> None:
    logits = make(size).astype(np.float32)
    for k in (1, 2, 40, 41, 1000, size - 1, size, size + 1):
        if k >= 1:
            assert top_k_ids(logits, k).tolist() == slow_top_k(logits, k)


def test_top_k_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        keep_top_k(row(), 0)


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
def test_the_random_numbers_are_those_of_numpys_philox(seed: int) -> None:
    ours = list(itertools.islice(philox(seed), 1000))
    assert ours == np.random.Philox(key=seed).random_raw(1000).tolist()


GOLDEN_IDS = [333, 600, 710, 333, 617, 843, 894, 150, 111, 120, 706, 244]


def golden_ids() -> list[int]:
    sampler = Sampler(SamplingParams(temperature=0.8, top_k=40, seed=1234))
    return [
        sampler.sample(np.cos(np.arange(1000, dtype=np.float32) * step)) for step in range(1, 13)
    ]


def test_a_seed_gives_the_same_choices_in_every_release() -> None:
    assert golden_ids() == GOLDEN_IDS


def test_a_seed_gives_the_same_choices_in_another_process() -> None:
    code = (
        "import numpy as np\nfrom gpt_edge.generate.sampling import *\n"
        "s = Sampler(SamplingParams(temperature=0.8, top_k=40, seed=1234))\n"
        "print([s.sample(np.cos(np.arange(1000, dtype=np.float32) * step)) for step in range(1, "
        "13)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(GOLDEN_IDS)


def test_without_a_seed_two_samplers_differ_and_the_seed_drawn_repeats_one() -> None:
    logits = row()
    params = SamplingParams(top_k=40)
    first, second = Sampler(params), Sampler(params)
    ids = [first.sample(logits) for _ in range(50)]
    assert ids != [second.sample(logits) for _ in range(50)]
    again = Sampler(SamplingParams(top_k=40, seed=first.seed))
    assert ids == [again.sample(logits) for _ in range(50)]


@pytest.mark.parametrize("size", [277, V])
@pytest.mark.parametrize("params", PARAMS, ids=str)
@pytest.mark.parametrize("where", ["first", "middle", "last"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "all -inf"], ids=str)
def test_unsound_logits_are_an_error_and_one_impossible_token_is_not(
    size: int, params: SamplingParams, where: str, value: float | str
) -> None:
    logits = row(size)
    place = {"first": 0, "middle": size // 2, "last": size - 1}[where]
    logits[place] = math.nan if isinstance(value, str) else value
    if isinstance(value, str):
        logits[:] = -math.inf
    sampler = Sampler(params)
    if value == -math.inf:
        assert place not in {sampler.sample(logits) for _ in range(20)}
        return
    wanted = "-inf for every token" if isinstance(value, str) else f"{value} at token {place};"
    with pytest.raises(NumericError, match=wanted):
        sampler.sample(logits)


def test_greedy_takes_the_lower_id_in_a_tie() -> None:
    logits = np.zeros(1000, np.float32)
    logits[[700, 300, 900]] = 2.5
    assert Sampler(SamplingParams()).sample(logits) == 300


ENTRIES = (0.0, -0.0, 1e38, -1e38, 3.4e38, -3.4e38, 1e-45, -1e-45, 1.0, -math.inf)


@given(
    st.lists(
        st.sampled_from(ENTRIES) | st.floats(-100, 100, width=32), min_size=1, max_size=60
    ).filter(lambda values: max(values) > -math.inf),
    st.sampled_from([None, 1e-300, 1e-3, 0.7, 1.0, 50.0, 1e30]),
    st.sampled_from([None, 1, 2, 7, 40, 100]),
    st.integers(0, 2**64 - 1),
)
@settings(max_examples=400, deadline=None)
def test_every_choice_is_a_possible_token(
    values: list[float], temperature: float | None, top_k: int | None, seed: int
) -> None:
    logits = np.array(values, np.float32)
    sampler = Sampler(SamplingParams(temperature=temperature, top_k=top_k, seed=seed))
    allowed = slow_top_k(logits, top_k or 40)
    for _ in range(5):
        id = sampler.sample(logits)
        assert id in allowed
        assert logits[id] > -math.inf


def test_ten_thousand_rows_of_extremes_give_possible_tokens() -> None:
    random = np.random.default_rng(3)
    entries = np.array(ENTRIES, np.float32)
    for index in range(10_000):
        size = int(random.integers(1, 80))
        logits = (
            random.choice(entries, size)
            if index % 2
            else random.standard_normal(size).astype(np.float32) * 30
        )
        logits[random.integers(size)] = 0.0
        params = PARAMS[index % len(PARAMS)]
        id = Sampler(params).sample(logits)
        assert 0 <= id < size
        assert logits[id] > -math.inf


def test_a_tiny_temperature_takes_the_most_likely_token() -> None:
    logits = row()
    sampler = Sampler(SamplingParams(temperature=1e-300, seed=0))
    assert {sampler.sample(logits) for _ in range(50)} == {int(logits.argmax())}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_choices_follow_the_softmax(temperature: float) -> None:
    logits = np.array([0.0, 1.0, -1.0, 2.0, 0.5, -9.0], np.float32)
    weights = np.exp(np.sort(logits.astype(np.float64))[-4:] / temperature)
    wanted = dict(
        zip(np.argsort(logits)[-4:].tolist(), (weights / weights.sum()).tolist(), strict=True)
    )
    sampler = Sampler(SamplingParams(temperature=temperature, top_k=4, seed=7))
    n = 20_000
    counts = np.bincount([sampler.sample(logits) for _ in range(n)], minlength=6)
    statistic = sum((counts[id] - n * p) ** 2 / (n * p) for id, p in wanted.items())
    assert counts.sum() == sum(counts[list(wanted)])
    assert statistic < 16.3  # chi-square with 3 degrees of freedom, p = 0.001; the seed is fixed


@pytest.mark.parametrize("size", [41, 2048, 4097, 50_257])
@pytest.mark.parametrize("n_levels", [3, 60, 10**6], ids=["many ties", "ties", "hardly any"])
def test_few_candidates_are_drawn_as_many_are(
    size: int, n_levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(size)
    rows = [
        (random.integers(0, n_levels, size) * (8 / n_levels)).astype(np.float32) for _ in range(30)
    ]
    params = SamplingParams(top_k=40, temperature=0.7, seed=9)
    sampler = Sampler(params)
    few = [sampler.sample(row) for row in rows]
    monkeypatch.setattr(sampling, "_FEW", 0)
    sampler = Sampler(params)
    assert few == [sampler.sample(row) for row in rows]


@pytest.mark.parametrize(("uniform", "wanted"), [(0.0, 1), (1 - 2.0**-53, 3)])
@pytest.mark.parametrize("top_k", [100, 5])
def test_the_ends_of_the_random_range_choose_tokens_of_the_support(
    monkeypatch: pytest.MonkeyPatch, uniform: float, wanted: int, top_k: int
) -> None:
    """The cumulative sum starts and ends with impossible tokens here, which no rounding
    may choose.
    """
    logits = np.array([-np.inf, 0.0, 0.0, 0.3, -200.0, -np.inf], np.float32)
    sampler = Sampler(SamplingParams(temperature=0.1, top_k=top_k, seed=0))
    monkeypatch.setattr(sampler, "_uniform", lambda: uniform)
    assert sampler.sample(logits) == wanted
    monkeypatch.setattr(sampler, "_uniform", lambda: 1.0)  # as if the product had been rounded up
    assert sampler.sample(logits) in (3, 4)
