"""Batches of like lengths: every row once, neighbours kept, little padding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_edge.runtime.batching import (
    ENOUGH_POSITIONS,
    MAX_PADDING,
    MAX_POSITIONS,
    batches,
    equal_batches,
    pad,
)

# sums and products of them meet the limits exactly
ROUND = st.sampled_from([1, 2, 15, 16, 32, 64, 120, 128, 136, 256, 512, 1024, 2048])


def slow_batches(sizes: list[int], batch: int, per_example: int) -> list[list[int]]:
    """Examples one after the other, the shortest first, while their batch may take one more."""
    found: list[list[int]] = []
    for example in sorted(range(len(sizes)), key=lambda example: (sizes[example], example)):
        if found:
            mine = [sizes[other] for other in found[-1]]
            positions = per_example * (len(mine) + 1) * sizes[example]
            tokens = per_example * sum(mine)
            padding = positions - tokens - per_example * sizes[example]
            is_enough = tokens >= ENOUGH_POSITIONS
            is_ragged = padding > MAX_PADDING * positions
            if len(mine) < batch and positions <= MAX_POSITIONS and not (is_enough and is_ragged):
                found[-1].append(example)
                continue
        found.append([example])
    return found


@given(
    st.lists(ROUND | st.integers(1, 300), max_size=40), st.integers(1, 70), st.sampled_from([1, 2])
)
def test_batches_are_filled_by_their_rule(sizes: list[int], batch: int, per_example: int) -> None:
    found = batches(np.repeat(sizes, per_example), batch, per_example)
    expected = [
        [example * per_example + row for example in examples for row in range(per_example)]
        for examples in slow_batches(sizes, batch, per_example)
    ]
    assert [rows.tolist() for rows in found] == expected


def test_equal_batches_hold_one_length_each() -> None:
    lengths = [3, 1, 3, 2, 3, 1]
    found = [rows.tolist() for rows in equal_batches(lengths, 2)]
    assert found == [[1, 5], [3], [0, 2], [4]]


@given(
    lengths=st.lists(st.integers(1, 600), max_size=60),
    batch=st.integers(1, 70),
    per_example=st.sampled_from([1, 2]),
)
def test_every_row_comes_once_and_no_batch_is_too_large(
    lengths: list[int], batch: int, per_example: int
) -> None:
    rows_of = np.repeat(lengths, per_example)
    found = list(batches(rows_of, batch, per_example))
    assert sorted(row for rows in found for row in rows) == list(range(len(rows_of)))
    for rows in found:
        examples = rows[::per_example] // per_example
        assert (
            rows.reshape(-1, per_example)
            == examples[:, None] * per_example + np.arange(per_example)
        ).all()
        assert len(examples) <= batch
        assert len(examples) == 1 or rows_of[rows].max() * len(rows) <= MAX_POSITIONS


def test_a_large_set_of_ragged_texts_has_hardly_any_padding() -> None:
    lengths = np.random.default_rng(1).lognormal(3, 0.8, 2000).astype(int) + 1
    found = list(batches(lengths, 64))
    positions = sum(lengths[rows].max() * len(rows) for rows in found)
    assert positions <= (1 + MAX_PADDING) * lengths.sum()
    assert positions / len(found) > ENOUGH_POSITIONS / 2  # and the batches are no crumbs


def test_padding_is_at_the_ends() -> None:
    ids, lengths = pad([[5], [1, 2, 3]])
    assert ids.tolist() == [[5, 0, 0], [1, 2, 3]]
    assert lengths.tolist() == [1, 3]


def test_a_batch_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="batch must be at least 1"):
        list(batches([1], 0))
