"""Sampler: choices against slow versions, the fast way against the list of processors, soundness of
logits.
"""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_edge.errors import NumericError
from gpt_edge.generate import sampler as sampler_module
from gpt_edge.generate.logits import LogitsRow
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.sampler import Sampler
from tests.support.logit_rows import V, row, slow_top_k

PARAMS = [
    SamplingParams(),
    SamplingParams(temperature=0.0, top_k=5),
    SamplingParams(top_k=1, seed=1),
    SamplingParams(top_k=40, seed=1),
    SamplingParams(temperature=0.7, seed=1),
    SamplingParams(temperature=2.0, top_k=10**6, seed=1),
]


def unchanged(history: Sequence[int], logits: LogitsRow) -> LogitsRow:
    """A processor that changes nothing, but is one: the sampler takes the general way."""
    return logits


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
        "import numpy as np\n"
        "from gpt_edge.generate.params import SamplingParams\n"
        "from gpt_edge.generate.sampler import Sampler\n"
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
    monkeypatch.setattr(sampler_module, "_FEW", 0)
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


@given(
    st.lists(
        st.sampled_from(ENTRIES) | st.floats(-100, 100, width=32), min_size=1, max_size=60
    ).filter(lambda values: max(values) > -math.inf),
    st.sampled_from([None, 0.0, 1e-300, 0.7, 1.0, 50.0, 1e300]),
    st.sampled_from([None, 1, 2, 7, 40, 100]),
    st.integers(0, 2**64 - 1),
)
@settings(max_examples=400, deadline=None)
def test_the_fast_way_chooses_what_the_list_of_processors_chooses(
    values: list[float], temperature: float | None, top_k: int | None, seed: int
) -> None:
    logits = np.array(values, np.float32)
    params = SamplingParams(temperature=temperature, top_k=top_k, seed=seed)
    fast, general = Sampler(params), Sampler(params, [unchanged])
    assert [fast.sample(logits) for _ in range(5)] == [general.sample(logits) for _ in range(5)]


@pytest.mark.parametrize("params", PARAMS, ids=str)
@pytest.mark.parametrize("n_levels", [3, 60, 10**6], ids=["many ties", "ties", "hardly any"])
def test_both_ways_choose_the_same_from_rows_of_full_size(
    params: SamplingParams, n_levels: int
) -> None:
    random = np.random.default_rng(n_levels)
    rows = [
        (random.integers(0, n_levels, V) * (8 / n_levels)).astype(np.float32) for _ in range(10)
    ]
    params = dataclasses.replace(params, seed=3)
    fast, general = Sampler(params), Sampler(params, [unchanged])
    assert [fast.sample(row) for row in rows] == [general.sample(row) for row in rows]


@pytest.mark.parametrize("params", PARAMS, ids=str)
def test_a_processor_sees_the_history_and_may_remove_tokens(params: SamplingParams) -> None:
    def never_again(history: Sequence[int], logits: LogitsRow) -> LogitsRow:
        changed = logits.copy()
        changed[list(history)] = -math.inf
        return changed

    logits = row(300)
    sampler = Sampler(params, [never_again])
    history: list[int] = []
    for _ in range(300):
        history.append(sampler.sample(logits, history))
    assert sorted(history) == list(range(300))
    assert (logits == row(300)).all()
    with pytest.raises(NumericError, match="-inf for every token"):
        sampler.sample(logits, history)


@pytest.mark.parametrize("params", PARAMS, ids=str)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_unsound_logits_reach_no_processor(params: SamplingParams, value: float) -> None:
    logits = row(300)
    logits[7] = value
    sampler = Sampler(params, [lambda history, logits: np.zeros_like(logits)])
    with pytest.raises(NumericError, match="at token 7;"):
        sampler.sample(logits)


@pytest.mark.parametrize("value", [math.inf, math.nan])
@pytest.mark.parametrize("size", [1056, 1057, 1087, V])
def test_no_logit_of_the_tail_is_overlooked(size: int, value: float) -> None:
    """The logits that are left over when a row is cut into equal parts, each by itself."""
    tail = range(size - size % 32 - 1, size)
    for place in (0, *tail):
        logits = row(size)
        logits[place] = value
        with pytest.raises(NumericError, match=f"{value} at token {place};"):
            Sampler(SamplingParams(top_k=5, seed=1)).sample(logits)
        logits[place] = 1000.0
        assert Sampler(SamplingParams(top_k=5, seed=1)).sample(logits) == place


def test_a_seed_that_nobody_gives_has_64_random_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    def urandom(n_bytes: int) -> bytes:
        return b"\xff" * n_bytes

    monkeypatch.setattr(sampler_module.os, "urandom", urandom)
    assert Sampler(SamplingParams(temperature=1.0)).seed == (1 << 64) - 1


@pytest.mark.parametrize("n_left", [1, 256, 257, 900, 2047, 2048, 2049])
@pytest.mark.parametrize("truncated", [{}, {"min_p": 1e-9}])
def test_fewer_tokens_than_top_k_may_be_left(n_left: int, truncated: dict[str, Any]) -> None:
    rng = np.random.default_rng(n_left)
    logits = np.full(4096, -np.inf, np.float32)
    left = rng.choice(4096, n_left, replace=False)
    logits[left] = rng.normal(size=n_left)
    fast = Sampler(SamplingParams(temperature=1.0, top_k=2048, seed=4, **truncated))
    whole = Sampler(SamplingParams(temperature=1.0, top_k=4096, seed=4, **truncated))
    for _ in range(20):
        id = fast.sample(logits)
        assert id in left
        assert n_left > 2048 or id == whole.sample(logits)
