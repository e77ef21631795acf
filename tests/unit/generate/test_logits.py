"""Logits processors: exactness against slow versions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_edge.generate.logits import divide_by_temperature, top_k_ids
from tests.support.logit_rows import V, row, slow_order, slow_top_k


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
    order = slow_order(logits)
    for k in (1, 2, 40, 41, 1000, size - 1, size, size + 1):
        if k >= 1:
            assert top_k_ids(logits, k).tolist() == sorted(order[:k])


@given(
    st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=60),
    st.sampled_from([1e-300, 1e-3, 0.7, 1.0, 50.0, 1e300]),
)
@settings(max_examples=200, deadline=None)
def test_a_temperature_divides_and_the_largest_becomes_zero(
    values: list[float], temperature: float
) -> None:
    logits = np.array(values, np.float32)
    before = logits.copy()
    expected = [(value - max(logits.tolist())) / temperature for value in logits.tolist()]
    assert divide_by_temperature(logits, temperature).tolist() == expected
    assert (logits == before).all()
