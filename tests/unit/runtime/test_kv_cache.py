"""KVCache: growth in steps, cropping, rows, saving; and R13.2: a rewound cache continues as a fresh
one.
"""

from __future__ import annotations

import io

import numpy as np
import pytest

from gpt_edge.config import GPTConfig
from gpt_edge.errors import ContextLengthError, GPTEdgeError
from gpt_edge.runtime import kv_cache
from gpt_edge.runtime.kv_cache import FIRST_CAPACITY, KVCache
from gpt_edge.runtime.session import Session
from tests.support.tiny_model import GRAPHS, N_CTX, VOCAB_SIZE, open_session, random_ids

CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=24, n_ctx=1000, vocab_size=300)
# max |difference| of logits, float32: another number of tokens at once sums in another order
TOLERANCE = 1e-4


@pytest.fixture(params=GRAPHS)
def session(request: pytest.FixtureRequest) -> Session:
    return open_session(request.param)


def test_capacity_doubles_from_128_up_to_the_context() -> None:
    cache = KVCache(CONFIG, "edge")
    seen = []
    for length in range(1, CONFIG.n_ctx + 1):
        cache.reserve(length)
        if cache.capacity not in seen:
            seen.append(cache.capacity)
        assert cache.capacity >= length
    assert seen == [FIRST_CAPACITY, 256, 512, 1000]
    # layers and sides, heads, positions, D' = 12 padded to 16, float32
    assert cache.n_bytes == 4 * 2 * 1000 * 16 * 4


def test_a_cache_takes_what_it_needs_and_the_whole_context_at_most() -> None:
    assert KVCache(CONFIG, "portable").n_bytes == 0
    for length, capacity in ((128, 128), (129, 256), (256, 256), (512, 512), (1000, 1000)):
        cache = KVCache(CONFIG, "edge")
        cache.reserve(length)
        assert cache.capacity == capacity


def test_too_little_memory_is_said_with_what_it_would_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    zeros = np.zeros

    def fail(shape: object, *arguments: object) -> np.ndarray:
        if isinstance(shape, tuple) and len(shape) == 4:
            raise MemoryError
        return zeros(shape, *arguments)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(kv_cache.np, "zeros", fail)
    # layers and sides, rows, heads, positions, D' = 12 padded to 16, float32
    n_bytes = 4 * 3 * 2 * 200 * 16 * 4
    with pytest.raises(GPTEdgeError, match=f"3 x 200 tokens take {n_bytes:,} bytes"):
        KVCache(CONFIG, "edge", 3, 200)


def test_growth_keeps_what_counts_and_forgets_what_was_bound() -> None:
    cache = KVCache(CONFIG, "edge", capacity=4)
    for array in cache.arrays:
        array[:] = np.random.default_rng(array.size).standard_normal(array.shape)
    cache.lengths[:] = 3
    cache.bound = object()
    before = [array[:, :, :3].copy() for array in cache.arrays]
    cache.reserve(5)
    assert cache.capacity == 8
    assert cache.bound is None
    for array, old in zip(cache.arrays, before, strict=True):
        assert (array[:, :, :3] == old).all()


def test_a_cache_beyond_the_context_is_refused_and_nothing_changes() -> None:
    cache = KVCache(CONFIG, "edge")
    arrays = cache.arrays
    with pytest.raises(ContextLengthError, match="1001 tokens do not fit into the context of 1000"):
        cache.reserve(1001)
    assert cache.arrays is arrays


def test_no_memory_for_growth_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = KVCache(CONFIG, "edge")
    cache.lengths[:] = 7
    arrays, made = cache.arrays, []

    def fail(capacity: int) -> np.ndarray:
        made.append(capacity)
        if len(made) == 3:
            raise MemoryError
        return np.zeros(capacity)

    monkeypatch.setattr(cache, "_zeros", fail)
    with pytest.raises(MemoryError):
        cache.reserve(500)
    assert cache.arrays is arrays
    assert cache.length == 7


@pytest.mark.parametrize(
    ("batch", "capacity", "named"), [(0, None, "batch"), (1, 0, "capacity"), (1, 1001, "capacity")]
)
def test_a_wrong_size_is_refused_by_name(batch: int, capacity: int | None, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        KVCache(CONFIG, "edge", batch, capacity)


def test_crop_refuses_what_is_not_there() -> None:
    cache = KVCache(CONFIG, "edge", batch=2)
    cache.lengths[:] = (5, 9)
    for length in (-1, 10):
        with pytest.raises(ValueError, match=f"a cache of 9 tokens cannot be cropped to {length}"):
            cache.crop(length)
    cache.crop(7)
    assert cache.lengths.tolist() == [5, 7]


def test_five_hundred_scripts_of_appending_and_rewinding_end_like_a_fresh_run() -> None:
    session = open_session()
    random = np.random.default_rng(0)
    for _ in range(500):
        cache, ids = session.new_cache(capacity=4), []
        for _ in range(int(random.integers(2, 8))):
            if ids and random.random() < 0.4:
                kept = int(random.integers(0, len(ids) + 1))
                cache.crop(kept)
                ids = ids[:kept]
            new = random.integers(0, VOCAB_SIZE, int(random.integers(1, 9))).tolist()
            if len(ids) + len(new) > N_CTX:
                continue
            ids += new
            logits = session.forward([new], cache)
        fresh = session.forward([ids], session.new_cache())
        assert cache.length == len(ids)
        np.testing.assert_allclose(logits, fresh, atol=TOLERANCE)
        assert logits.argmax() == fresh.argmax()


def test_a_rewound_cache_gives_the_same_bits_again(session: Session) -> None:
    ids = random_ids(40)
    cache = session.new_cache()
    session.forward(ids[:, :20], cache)
    first = session.forward(ids[:, 20:30], cache)
    session.forward(ids[:, 30:], cache)
    cache.crop(20)
    assert (session.forward(ids[:, 20:30], cache) == first).all()


def test_a_saved_cache_continues_from_a_file_with_the_same_bits(session: Session) -> None:
    ids = random_ids(40)
    cache = session.new_cache(batch=2)
    session.forward(ids[:, :30], cache, row=0)
    session.forward(ids[:, :12], cache, row=1)
    file = io.BytesIO()
    np.savez(file, **cache.save())
    wanted = session.decode([5, 6], cache).copy()
    file.seek(0)
    again = session.new_cache(batch=2)
    with np.load(file) as saved:
        again.restore(saved)
    assert again.lengths.tolist() == [30, 12]
    assert (session.decode([5, 6], again) == wanted).all()


def test_a_save_is_a_copy(session: Session) -> None:
    cache = session.new_cache()
    session.forward(random_ids(10), cache)
    saved = cache.save()
    before = {name: array.copy() for name, array in saved.items()}
    cache.crop(2)
    session.forward(random_ids(8, seed=1), cache)
    assert all((saved[name] == before[name]).all() for name in before)


def test_restoring_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    session = open_session()
    cache = session.new_cache()
    session.forward(random_ids(9), cache)
    good = cache.save()
    wrong = {
        "has no 'past_key_values.1.value'": {
            k: v for k, v in good.items() if k != "past_key_values.1.value"
        },
        "saved 'past_key_values.0.key' is float64": {
            **good,
            "past_key_values.0.key": good["past_key_values.0.key"].astype(float),
        },
        "saved 'lengths' is int64 \\[2\\]": {**good, "lengths": np.array([9, 9])},
        "saved lengths must be from 0 to 64": {**good, "lengths": np.array([65])},
        "saved 'past_key_values.0.key' is float32 \\[1, 2, 9, 8\\], "
        "expected float32 \\[1, 2, 8, 8\\]": {
            **good,
            "lengths": np.array([8]),
        },
    }
    other = session.new_cache()
    session.forward(random_ids(3, seed=2), other)
    before = other.save()
    for message, saved in wrong.items():
        with pytest.raises(ValueError, match=message):
            other.restore(saved)
    assert all((array == before[name]).all() for name, array in other.save().items())


def test_rows_that_are_kept_continue_with_the_same_bits(session: Session) -> None:
    ids = random_ids(30)
    cache = session.new_cache(batch=3)
    for row, length in enumerate((5, 30, 17)):
        session.forward(ids[:, :length], cache, row=row)
    alone = session.new_cache()
    session.forward(ids[:, :17], alone)
    cache.keep_rows([2])
    assert (session.decode([9], cache) == session.decode([9], alone)).all()
    for rows in ([1], [-1], []):
        with pytest.raises(ValueError, match="rows must name some of 0 to 0"):
            cache.keep_rows(rows)


@pytest.mark.parametrize("lengths", [[-1, 9], [9, -1]])
def test_lengths_below_none_are_not_restored(lengths: list[int]) -> None:
    session = open_session()
    cache = session.new_cache(batch=2)
    session.forward(random_ids(9), cache, row=0)  # the other row is empty
    saved = cache.save()
    session.new_cache(batch=2).restore(saved)
    with pytest.raises(ValueError, match="saved lengths must be from 0 to 64, got"):
        session.new_cache(batch=2).restore({**saved, "lengths": np.array(lengths)})


def test_a_used_cache_takes_another_content_in_place_and_continues_with_it(
    session: Session,
) -> None:
    """The lengths are bound to the graph's inputs by their memory: they are written, never
    replaced.
    """
    ids = random_ids(12, seed=5)[0]
    source = session.new_cache()
    session.forward(ids[None, :9], source, "last")
    saved = source.save()
    expected = [session.decode([int(id)], source).copy() for id in ids[9:]]
    used = session.new_cache()
    session.forward(random_ids(20, seed=6), used, "last")
    session.decode([3], used)
    lengths = used.lengths
    used.restore(saved)
    assert used.lengths is lengths
    found = [session.decode([int(id)], used).copy() for id in ids[9:]]
    np.testing.assert_array_equal(found, expected)
    assert lengths.tolist() == [12]
