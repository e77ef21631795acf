"""The phone profile: threads, cores, pieces of a prompt, and what onnxruntime is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.runtime import open_graph, tuning
from gpt_edge.runtime.session import Session
from gpt_edge.runtime.tuning import DEFAULT, PHONE, tuning_of
from gpt_edge.system.threads import big_cores
from tests.conftest import REPO

TINY = REPO / "tests/golden/tiny-edge"


def write_capacities(folder: Path, capacities: list[int]) -> frozenset[int]:
    """A topology as Linux shows it on Arm."""
    for cpu, capacity in enumerate(capacities):
        (folder / f"cpu{cpu}").mkdir()
        (folder / f"cpu{cpu}/cpu_capacity").write_text(f"{capacity}\n")
    return frozenset(range(len(capacities)))


@pytest.mark.parametrize(
    ("capacities", "expected"),
    [
        ([250, 250, 250, 250, 1024, 1024], (4, 5)),
        ([300, 300, 800, 800, 1024], (2, 3, 4)),  # one core is a little faster than the big ones
        ([1024, 1024], ()),
    ],
)
def test_big_cores_are_those_of_most_capacity(
    capacities: list[int], expected: tuple[int, ...], tmp_path: Path
) -> None:
    cpus = write_capacities(tmp_path, capacities)
    assert big_cores(cpus, tmp_path) == expected
    assert big_cores(cpus | {99}, tmp_path) == ()  # the system does not say it of every core


@pytest.mark.parametrize(
    ("n_big", "n_cores", "expected"), [(4, 8, 2), (1, 8, 1), (0, 8, 2), (0, 1, 1)]
)
def test_a_phone_gets_one_or_two_threads(
    n_big: int, n_cores: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = tuple(range(4, 4 + n_big))
    monkeypatch.setattr(tuning, "big_cores", lambda: big)
    monkeypatch.setattr(tuning, "default_threads", lambda: n_cores)
    assert PHONE.threads() == expected
    assert DEFAULT.threads() == n_cores
    assert PHONE.worker_cores(expected) == (big[1:expected] if n_big else ())
    assert DEFAULT.worker_cores(expected) == ()


def test_onnxruntime_is_asked_not_to_spin_and_for_the_big_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tuning, "big_cores", lambda: (4, 5, 6))
    bundle = Bundle.open(TINY)
    entry = "session.intra_op_thread_affinities"
    phone = open_graph._options(bundle, 2, None, PHONE)
    assert phone.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert phone.get_session_config_entry(entry) == "6"  # core 5, counted from 1
    assert not phone.enable_cpu_mem_arena
    usual = open_graph._options(bundle, 2, None, DEFAULT)
    for name in (entry, "session.intra_op.allow_spinning"):
        with pytest.raises(RuntimeError, match=name):
            usual.get_session_config_entry(name)


def test_a_phone_computes_what_others_compute() -> None:
    bundle = Bundle.open(TINY)
    ids = np.arange(100)[None] % bundle.config.vocab_size
    ids = ids[:, : bundle.config.n_ctx]
    logits = []
    for each in (DEFAULT, PHONE):
        session = Session(bundle, tuning=each)
        logits.append(session.forward(ids, session.new_cache(), "all"))
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-5)


def test_an_unknown_profile_is_refused() -> None:
    assert tuning_of(None) is DEFAULT
    assert tuning_of("phone") is PHONE
    with pytest.raises(ValueError, match="profile must be one of default, phone, got 'tablet'"):
        tuning_of("tablet")
