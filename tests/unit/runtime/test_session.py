"""Session: every way of reading the same tokens gives the same logits, on both graphs; and what it
refuses.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpt_edge.runtime.session
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.errors import BundleError, ContextLengthError, GPTEdgeError
from gpt_edge.runtime.session import Session
from gpt_edge.runtime.tuning import DEFAULT
from tests.support.tiny_model import (
    GOLDEN,
    GRAPHS,
    N_CTX,
    VOCAB_SIZE,
    bundle_path,
    open_session,
    random_ids,
)
from tests.support.warm_process import PATIENCE

# max |difference| of logits, float32: another number of tokens at once sums in another order
TOLERANCE = 1e-4


@pytest.fixture(params=GRAPHS)
def session(request: pytest.FixtureRequest) -> Session:
    return open_session(request.param)


def assert_same(found: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE)
    assert (found.argmax(-1) == wanted.argmax(-1)).all()


@pytest.mark.parametrize("graph", GRAPHS)
@given(length=st.integers(2, N_CTX), split=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_decode_after_prefill_equals_one_full_forward(
    graph: str, length: int, split: float
) -> None:
    session, ids = open_session(graph), random_ids(length)
    first = max(1, int(split * (length - 1)))
    whole = session.forward(ids, session.new_cache(), "all")
    cache = session.new_cache(capacity=1)
    rest = [session.forward(ids[:, :first], cache, "all")[0]]
    rest += [
        session.decode(ids[0, place : place + 1], cache).copy() for place in range(first, length)
    ]
    assert cache.length == length
    assert_same(np.concatenate(rest), whole[0])


@pytest.mark.parametrize("chunk", [1, 2, 7, 37, 63, 64])
def test_chunks_of_any_size_equal_one_full_forward(
    session: Session, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = random_ids(N_CTX)
    whole, cache = session.forward(ids, session.new_cache(), "all"), session.new_cache()
    reference = session.new_cache()
    session.forward(ids, reference)
    monkeypatch.setattr(gpt_edge.runtime.session, "PREFILL_CHUNK", chunk)
    assert_same(session.forward(ids, cache, "all"), whole)
    for name, array in reference.save().items():
        np.testing.assert_allclose(cache.save()[name], array, atol=TOLERANCE)


def test_both_graphs_say_the_same() -> None:
    ids = random_ids(N_CTX)
    edge, portable = (open_session(graph) for graph in GRAPHS)
    assert_same(
        edge.forward(ids, edge.new_cache(), "all"),
        portable.forward(ids, portable.new_cache(), "all"),
    )


@pytest.mark.parametrize("chunk", [5, 16, 256])
@pytest.mark.parametrize("rows", [[0], [49], [3, 4, 5], [0, 7, 15, 16, 48, 49], list(range(50))])
def test_wanted_rows_are_the_rows_of_all(
    session: Session, rows: list[int], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = random_ids(50)
    monkeypatch.setattr(gpt_edge.runtime.session, "PREFILL_CHUNK", chunk)
    whole = session.forward(ids, session.new_cache(), "all")
    assert_same(session.forward(ids, session.new_cache(), rows), whole[:, rows])
    assert_same(session.forward(ids, session.new_cache(), "last"), whole[:, -1:])


def test_rows_of_a_batch_equal_the_rows_alone(session: Session) -> None:
    lengths = (1, 2, 17, 40)
    sequences = [random_ids(length, seed=length) for length in lengths]
    cache, alone = session.new_cache(batch=4, capacity=8), [session.new_cache() for _ in lengths]
    for row, ids in enumerate(sequences):
        assert_same(session.forward(ids, cache, row=row), session.forward(ids, alone[row]))
    for step in range(20):
        tokens = random_ids(4, seed=100 + step)[0]
        together = session.decode(tokens, cache)
        assert_same(
            together,
            np.concatenate(
                [session.decode([id], own) for id, own in zip(tokens, alone, strict=True)]
            ),
        )
    assert cache.lengths.tolist() == [length + 20 for length in lengths]


def test_a_batch_of_equal_lengths_can_be_given_as_one_array(session: Session) -> None:
    ids = np.concatenate([random_ids(20, seed=seed) for seed in range(3)])
    together = session.forward(ids, session.new_cache(batch=3), "all")
    assert together.shape == (3, 20, VOCAB_SIZE)
    for row, own in zip(together, ids, strict=True):
        assert_same(row, session.forward(own[None], session.new_cache(), "all")[0])
    cache = session.new_cache(batch=3)
    one_by_one = [session.forward(ids[:, place : place + 1], cache) for place in range(20)]
    assert_same(np.concatenate(one_by_one, axis=1), together)


def test_forward_returns_memory_of_its_own(session: Session) -> None:
    cache = session.new_cache()
    first = session.forward([[5]], cache)
    before = first.copy()
    session.forward([[7]], cache)
    session.decode([8], cache)
    assert (first == before).all()


def test_decode_binds_once_until_the_cache_moves() -> None:
    session = open_session()
    cache = session.new_cache(capacity=8)
    session.forward(random_ids(3), cache)
    bound = []
    for _ in range(12):
        logits = session.decode([5], cache)
        bound.append((id(cache.bound), logits.ctypes.data))
    assert len(set(bound[:5])) == 1
    assert len(set(bound[5:])) == 1
    assert bound[4] != bound[5]  # 8 positions were full, the cache grew to 16


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[VOCAB_SIZE]], f"token ids must be from 0 to {VOCAB_SIZE - 1}, got {VOCAB_SIZE}"),
        ([[3, -1]], "got -1"),
        ([3, 4], r"ids must be whole numbers \[B, T\], got int64 \[2\]"),
        ([[]], r"\[1, 0\]"),
        ([[1.5]], "float64"),
        ([["a"]], "ids must be whole numbers"),
        ([[1], [2]], "ids have 2 rows, the cache has 1"),
    ],
)
def test_wrong_ids_are_refused_and_the_cache_stays(
    session: Session, ids: Any, message: str
) -> None:
    cache = session.new_cache()
    session.forward(random_ids(5), cache)
    with pytest.raises(ValueError, match=message):
        session.forward(ids, cache)
    assert cache.length == 5


NO_ROWS = np.empty(0, np.int64)


@pytest.mark.parametrize(
    "rows", ["first", [], NO_ROWS, [5], [0, 5], [-1], [-1, 0], [2, 1], [1, 1], [0.5], [[0]]]
)
def test_wrong_logit_rows_are_refused(session: Session, rows: Any) -> None:
    with pytest.raises(ValueError, match="logit_rows must be"):
        session.forward(random_ids(5), session.new_cache(), rows)


@pytest.mark.parametrize("row", [-1, 2])
def test_a_row_that_is_not_there_is_refused(session: Session, row: int) -> None:
    with pytest.raises(ValueError, match=f"the cache has 2, row is {row}"):
        session.forward(random_ids(5), session.new_cache(batch=2), row=row)


@pytest.mark.parametrize("ids", [[VOCAB_SIZE], [-1], [1, 2], []])
def test_decode_refuses_wrong_ids(session: Session, ids: list[int]) -> None:
    cache = session.new_cache()
    with pytest.raises(ValueError, match="got"):
        session.decode(ids, cache)
    assert cache.length == 0


def test_the_context_can_be_filled_and_not_overfilled(session: Session) -> None:
    cache = session.new_cache()
    session.forward(random_ids(N_CTX), cache)
    with pytest.raises(ContextLengthError, match="the context of 64 tokens is full"):
        session.decode([1], cache)
    with pytest.raises(ContextLengthError, match="65 tokens do not fit into the context of 64"):
        session.forward([[1]], cache)
    with pytest.raises(ContextLengthError, match="640 tokens"):
        session.forward(random_ids(640), session.new_cache())
    assert cache.length == N_CTX


@pytest.mark.parametrize("n", range(2, 9))
def test_several_ids_at_once_are_the_same_ids_one_by_one(session: Session, n: int) -> None:
    ids = random_ids(n, seed=n)[0].tolist()
    cache, other = session.new_cache(), session.new_cache()
    for each in (cache, other):
        session.forward(random_ids(5), each)
    for _ in range(2):
        together = session.decode_several(ids, cache)
        assert_same(together, np.concatenate([session.decode([id], other).copy() for id in ids]))
    assert cache.length == other.length == 5 + 2 * n


@pytest.mark.parametrize("ids", [[], [5], [5] * 9])
def test_several_are_two_to_eight(session: Session, ids: list[int]) -> None:
    with pytest.raises(ValueError, match=f"2 to 8 ids are expected, got 1 rows and {len(ids)} ids"):
        session.decode_several(ids, session.new_cache())


def test_several_have_to_fit_into_the_context(session: Session) -> None:
    cache = session.new_cache()
    session.forward(random_ids(N_CTX - 2), cache)
    with pytest.raises(ContextLengthError, match="65 tokens do not fit into the context of 64"):
        session.decode_several([1, 2, 3], cache)
    assert cache.length == N_CTX - 2
    session.decode_several([1, 2], cache)
    assert cache.length == N_CTX


def test_room_is_made_at_once_where_the_cache_is_written_in_place(session: Session) -> None:
    cache = session.new_cache(capacity=4)
    session.reserve(cache, 33)
    assert cache.capacity == (64 if session.graph == "edge" else 0)
    with pytest.raises(ValueError, match="length must be a whole number"):
        session.reserve(cache, -1)


def test_hidden_states_are_the_same_in_chunks_and_in_a_batch() -> None:
    """Of a bundle that gives them; the states of one call end where the next one's begin."""
    bundle = Bundle.open(GOLDEN / "native-int8")
    session = Session(bundle, threads=1)
    small = Session(bundle, threads=1, tuning=dataclasses.replace(DEFAULT, prefill_chunk=7))
    width = session.config.n_embd
    ids = np.random.default_rng(0).integers(0, session.config.vocab_size, (2, 30))
    whole, pieces = (np.full((2, 30, width), np.nan, np.float32) for _ in range(2))
    logits = session.forward(ids, session.new_cache(2), "all", hidden=whole)
    chunked = small.forward(ids, small.new_cache(2), "all", hidden=pieces)
    np.testing.assert_allclose(pieces, whole, atol=0.02)
    np.testing.assert_allclose(chunked, logits, atol=0.05)
    cache, steps = session.new_cache(2), []
    for place in range(4):
        states = np.full((2, 1, width), np.nan, np.float32)
        session.forward(ids[:, place : place + 1], cache, hidden=states)
        steps.append(states)
    np.testing.assert_allclose(np.concatenate(steps, 1), whole[:, :4], atol=0.02)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, 100_000])
def test_wrong_threads_are_refused(threads: Any) -> None:
    with pytest.raises(ValueError, match="threads must be a whole number from 1 to 256"):
        Session(Bundle.open(bundle_path()), threads=threads)


@pytest.mark.every_core
def test_two_threads_give_the_same_greedy_ids_as_one() -> None:
    one, two = open_session(), Session(Bundle.open(bundle_path()), threads=2)
    ids = random_ids(N_CTX)
    assert_same(two.forward(ids, two.new_cache(), "all"), one.forward(ids, one.new_cache(), "all"))


def test_a_graph_that_onnxruntime_refuses_is_a_bundle_error_and_silent(tmp_path: Path) -> None:
    shutil.copytree(bundle_path(), tmp_path / "b")
    (tmp_path / "b" / "model.onnx").write_bytes(b"\x08\x0anot a graph at all" * 20)
    code = (
        "from gpt_edge.bundle.bundle import Bundle\nfrom gpt_edge.runtime.session import "
        "Session\nfrom gpt_edge.errors import *\n"
        "import dataclasses, pathlib, sys\n"
        f"good = Bundle.open({str(bundle_path())!r})\n"
        f"try: Session(dataclasses.replace(good, path=pathlib.Path({str(tmp_path / 'b')!r})))\n"
        "except BundleError as error: print(error.message)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot load" in done.stdout
    assert str(tmp_path / "b" / "model.onnx") in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("graph", "other", "named"),
    [("edge", "portable", "seqlens_k"), ("portable", "edge", "seqlens_k")],
)
def test_a_graph_of_the_other_kind_is_refused_by_name(graph: str, other: str, named: str) -> None:
    bundle = Bundle.open(bundle_path(graph))
    wrong = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, graph=other))
    with pytest.raises(BundleError, match=f"{named}.*{other} graph"):
        Session(wrong, threads=1)


def test_a_failure_inside_onnxruntime_is_one_of_our_errors_printed_by_nobody(
    capfd: pytest.CaptureFixture[str],
) -> None:
    session = open_session()
    cache = session.new_cache()
    session.forward(random_ids(4), cache)
    session.decode([1], cache)
    cache.bound[1, False].ids[0] = 9999  # type: ignore[attr-defined]
    with pytest.raises(
        GPTEdgeError, match=r"onnxruntime failed while running the model: .*idx=9999"
    ):
        session._graph_runner.run(cache.bound[1, False].binding)  # type: ignore[attr-defined]
    assert cache.length == 5
    assert capfd.readouterr() == ("", "")


@pytest.mark.every_core
def test_many_threads_share_a_session_and_each_gets_its_own_logits(session: Session) -> None:
    sequences = [random_ids(12, seed=seed) for seed in range(8)]
    wanted = [session.forward(ids, session.new_cache(), "all") for ids in sequences]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(25):
            cache = session.new_cache(capacity=2)
            found = [
                session.decode(sequences[index][0, place : place + 1], cache).copy()
                for place in range(12)
            ]
            if not np.allclose(np.concatenate(found), wanted[index][0], atol=TOLERANCE):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


FORK = """
import os, sys, threading, time
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.errors import GPTEdgeError
from gpt_edge.runtime.session import Session
session = Session(Bundle.open(sys.argv[1]), threads=2)
cache = session.new_cache()
before = session.forward([[1, 2, 3]], cache)
codes = []
for _ in range(10):
    child = os.fork()
    if child == 0:
        try:
            session.decode([4], cache)
        except GPTEdgeError as error:
            own = Session(Bundle.open(sys.argv[1]), threads=2)
            same = (own.forward([[1, 2, 3]], own.new_cache()) == before).all()
            sys.exit(0 if same and f"process {os.getppid()}" in error.message else 3)
        sys.exit(4)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
after = session.forward([[1, 2, 3]], session.new_cache())
print(codes, bool((after == before).all()))
"""


@pytest.mark.every_core
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_is_refused_opens_its_own_and_ends_well() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(bundle_path())],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stdout.strip() == f"{[0] * 10} True", done.stderr


def test_telemetry_is_off_unless_the_user_set_it() -> None:
    code = "import os, sys, gpt_edge.runtime.session; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    clean = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    for environment, wanted in ((clean, "1"), ({**clean, "ORT_DISABLE_TELEMETRY": "0"}, "0")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == wanted
