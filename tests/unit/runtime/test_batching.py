"""Batches of like lengths: every row once, neighbours kept, little padding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_edge.runtime.batching import ENOUGH_POSITIONS, MAX_PADDING, MAX_POSITIONS, batches, pad


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
