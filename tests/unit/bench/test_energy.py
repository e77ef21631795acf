"""Joules of a token: from counters as Linux shows them, and the reason where there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt_edge.bench import run as bench_run
from gpt_edge.bench.energy import EnergyCounter, find_counters, joules, joules_per_token
from gpt_edge.bench.plan import make_plan
from gpt_edge.bench.report import render
from gpt_edge.bundle.bundle import Bundle
from tests.conftest import REPO

TINY = REPO / "tests/golden/tiny-edge"


def write_zone(root: Path, zone: str, name: str, energy: int) -> Path:
    folder = root / zone
    folder.mkdir()
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{energy}\n")
    (folder / "max_energy_range_uj").write_text("999999\n")
    return folder / "energy_uj"


def test_packages_are_summed_across_a_wrap_and_parts_of_them_are_not(tmp_path: Path) -> None:
    first = write_zone(tmp_path, "intel-rapl:0", "package-0", 900_000)
    second = write_zone(tmp_path, "intel-rapl:1", "package-1", 10)
    core = write_zone(tmp_path, "intel-rapl:0:0", "core", 0)
    counters = find_counters(tmp_path)
    assert not isinstance(counters, str)
    assert len(counters) == 2

    def work() -> None:
        first.write_text("100000")  # 200,000 microjoules later, over the wrap
        second.write_text("300010")
        core.write_text("500000")

    assert joules(counters, work) == pytest.approx(0.5)


def test_a_machine_without_counters_says_so(tmp_path: Path) -> None:
    assert "no processor package counts its energy" in str(find_counters(tmp_path / "missing"))
    path = write_zone(tmp_path, "intel-rapl:0", "package-0", 1)
    path.unlink()  # what an unreadable counter looks like, also to root
    assert "energy_uj cannot be read: No such file" in str(find_counters(tmp_path))


def test_a_token_has_its_share_of_the_joules(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([0, 64_000_000])
    monkeypatch.setattr(EnergyCounter, "read", lambda counter: next(readings))
    bundle = Bundle.open(TINY)
    per_token = joules_per_token(bundle, 1, (EnergyCounter(TINY, 10**9),))
    assert per_token == pytest.approx(64 / min(128, bundle.config.n_ctx - 1))


def test_the_report_has_the_joules_or_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(TINY)
    plan = make_plan(bundle.config.n_ctx, prompts=(4,), new_tokens=(2,), depths=(0,), threads=(1,))
    for name in ("_measure_start", "_measure_speed"):
        monkeypatch.setattr(bench_run, name, lambda *given: ([], []) if len(given) == 3 else [])
    monkeypatch.setattr(bench_run, "find_counters", lambda: "nothing counts here")
    report = bench_run.bench([bundle], plan, with_energy=True)
    assert bench_run.find_counters() == report.no_energy
    assert '"no_energy": "nothing counts here"' in render(report, "json")
    monkeypatch.setattr(bench_run, "find_counters", lambda: (EnergyCounter(TINY, 10),))
    monkeypatch.setattr(bench_run, "joules_per_token", lambda *given: 0.25)
    report = bench_run.bench([bundle], plan, with_energy=True)
    assert [row.joules_per_token for row in report.energy] == [0.25]
    assert '"joules_per_token": 0.25' in render(report, "json")
