"""KVSlots: rows that join and leave have the bits of a cache of their own."""

from __future__ import annotations

import numpy as np
import pytest

from gpt_edge.runtime.kv_cache import KVCache
from gpt_edge.runtime.session import Session
from tests.support.tiny_model import GRAPHS, N_CTX, VOCAB_SIZE, open_session, random_ids


@pytest.fixture(params=GRAPHS)
def session(request: pytest.FixtureRequest) -> Session:
    return open_session(request.param)


def read(session: Session, n: int, seed: int) -> KVCache:
    cache = session.new_cache()
    session.forward(random_ids(n, seed), cache)
    return cache


def test_rows_that_join_and_leave_at_random_decode_as_alone(session: Session) -> None:
    random = np.random.default_rng(0)
    slots, alone = session.new_slots(4), []
    for number in range(80):
        if alone and (len(alone) == 4 or random.random() < 0.3):
            row = int(random.integers(len(alone)))
            slots.leave(row)
            last = alone.pop()
            if row < len(alone):
                alone[row] = last
        else:
            cache = read(session, int(random.integers(1, 30)), number)
            assert slots.join(cache) == len(alone)
            alone.append(cache)
        assert slots.lengths.tolist() == [cache.length for cache in alone]
        full = [row for row, cache in enumerate(alone) if cache.length == N_CTX]
        if not alone or full:
            continue
        ids = random.integers(0, VOCAB_SIZE, len(alone)).tolist()
        together = session.decode(ids, slots)
        for row, (id, cache) in enumerate(zip(ids, alone, strict=True)):
            expected = session.decode([id], cache)[0]
            np.testing.assert_allclose(together[row], expected, atol=1e-4)  # another batch's order
            assert together[row].argmax() == expected.argmax()


def test_a_row_that_leaves_is_replaced_by_the_last_alone() -> None:
    session = open_session("edge")
    slots = session.new_slots(3)
    for n in (3, 5, 7):
        slots.join(read(session, n, n))
    block = slots.arrays[0].base
    before = [array[2, :, :7].copy() for array in slots.arrays]
    slots.leave(0)
    assert slots.lengths.tolist() == [7, 5]
    assert slots.arrays[0].base is block
    for array, row in zip(slots.arrays, before, strict=True):
        assert (array[0, :, :7] == row).all()


def test_slots_grow_with_their_longest_row(session: Session) -> None:
    slots = session.new_slots(2)
    slots.join(read(session, 2, 0))
    slots.join(read(session, N_CTX, 1))
    slots.leave(1)
    assert slots.length == 2
    with pytest.raises(ValueError, match="1 of 2 slots are in use, 2 rows to join"):
        slots.join(session.new_cache(2))
    slots.join(read(session, 1, 2))
    with pytest.raises(ValueError, match="2 of 2 slots are in use"):
        slots.join(read(session, 1, 2))


def test_a_row_of_slots_can_read_on(session: Session) -> None:
    """Beyond the memory that it joined with."""
    slots, caches = session.new_slots(3), [read(session, n, n) for n in (4, 7)]
    for cache in caches:
        slots.join(cache)
    more = random_ids(40, seed=9)
    found = session.forward(more, slots, row=0)
    np.testing.assert_allclose(found, session.forward(more, caches[0]), atol=1e-4)
    assert slots.lengths.tolist() == [44, 7]
    together = session.decode([3, 5], slots)
    for row, cache in enumerate(caches):
        alone = session.decode([(3, 5)[row]], cache)[0]
        np.testing.assert_allclose(together[row], alone, atol=1e-4)


def test_no_slots_and_kept_rows_are_refused(session: Session) -> None:
    with pytest.raises(ValueError, match="a batch needs at least one slot, got 0"):
        session.new_slots(0)
    slots = session.new_slots(1)
    assert slots.length == 0
    slots.join(read(session, 2, 0))
    with pytest.raises(ValueError, match=r"rows of slots end with leave\(row\)"):
        slots.keep_rows([0])
