"""The default bundle is as fast as it was, beside a reference in the same run. See judge.py for
how, pairs.py for what.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.speed import pairs
from tests.speed.judge import ALLOWED_LOSS, ATTEMPTS, Pair, Verdict, Work, judge, measure_ratio
from tests.speed.pairs import COMMAND, cpu_kind, make_pairs, read_ratios

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def both() -> dict[str, Pair]:
    return {pair.name: pair for pair in make_pairs()}


def slowed(work: Work, factor: float) -> Work:
    """The same work, and then as much waiting as makes it `factor` times as long."""

    def slow() -> None:
        started = time.thread_time()
        work()
        end = started + factor * (time.thread_time() - started)
        while time.thread_time() < end:
            pass

    return slow


@pytest.mark.parametrize("name", ["decode", "prefill"])
def test_the_default_bundle_is_not_slower_than_it_was(name: str, both: dict[str, Pair]) -> None:
    stored = read_ratios()
    if cpu_kind() not in stored:
        pytest.skip(f"no ratio is stored for a CPU of the kind {cpu_kind()}: {COMMAND} stores one")
    verdict = judge(both[name], stored[cpu_kind()][name]["ratio"])
    assert not verdict.is_loss, f"{verdict}; if that is meant: {COMMAND}"


@pytest.mark.slow  # minutes beside other work, and its baseline is of another moment
@pytest.mark.parametrize("name", ["decode", "prefill"])
def test_the_judge_finds_a_loss_and_sees_none_where_there_is_none(
    name: str, both: dict[str, Pair]
) -> None:
    pair, pieces = both[name], 40
    pair.prepare()
    # beside itself: a baseline of another moment would be of another load
    itself = replace(pair, reference=pair.work)
    verdict = judge(replace(itself, work=slowed(pair.work, 1.4)), 1.0, pieces)
    assert verdict.is_loss, verdict
    assert len(verdict.ratios) == ATTEMPTS
    verdict = judge(itself, 1.0, pieces)
    assert not verdict.is_loss, verdict


def test_a_quarter_of_the_speed_is_a_loss_and_noise_is_not() -> None:
    assert ALLOWED_LOSS < 0.25
    assert Verdict("any", 1.0, (1 / 0.75,)).is_loss
    assert Verdict("any", 1.0, (1 / 0.75,)).loss == pytest.approx(0.25)
    assert not Verdict("any", 1.0, (1.15,)).is_loss
    assert not Verdict("any", 1.0, (9.0, 1.15)).is_loss
    assert "+25% of the speed lost" in str(Verdict("any", 1.0, (1 / 0.75,)))


@pytest.mark.parametrize(
    ("ratios", "n_attempts", "is_loss"),
    [
        ([1.0], 1, False),
        ([1.4, 1.1], 2, False),
        ([1.4, 1.4, 1.4, 1.2], 4, False),
        ([1.4, 1.3, 1.5, 1.4], 4, True),
    ],
)
def test_what_looks_like_a_loss_is_measured_again(
    ratios: list[float], n_attempts: int, is_loss: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    remaining = iter(ratios)
    monkeypatch.setattr("tests.speed.judge.measure_ratio", lambda *_: next(remaining))
    verdict = judge(Pair("scripted", lambda: None, lambda: None), 1.0)
    assert (len(verdict.ratios), verdict.is_loss) == (n_attempts, is_loss)


def test_work_and_reference_alternate_and_preparing_is_not_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []

    def busy(name: str, seconds: float) -> None:
        order.append(name)
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    pair = Pair(
        "any",
        lambda: busy("work", 0.02),
        lambda: busy("reference", 0.01),
        lambda: busy("prepare", 0.1),
    )
    assert measure_ratio(pair, pieces=2) == pytest.approx(2, rel=0.3)
    assert order == ["reference", "reference", "prepare", "work", "work"] * 2


def test_recording_stores_the_ratios_of_this_cpu_beside_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ratios.json"
    path.write_text(json.dumps({"another cpu": {"decode": {"ratio": 1.0}}}))
    monkeypatch.setattr(pairs, "STORED", path)
    monkeypatch.setattr(pairs, "RECORDINGS", 1)
    monkeypatch.setattr(pairs, "measure_ratio", lambda pair: measure_ratio(pair, 2))
    own = pairs.record(path)
    stored = read_ratios()
    assert set(stored) == {"another cpu", cpu_kind()}
    assert stored[cpu_kind()] == own
    assert own["decode"]["lowest"] <= own["decode"]["ratio"] <= own["decode"]["highest"]
    assert own["made_by"]["command"] == COMMAND
