"""scripts/cpus.py: what it calls a difference between two CPUs."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPO

SCRIPT = runpy.run_path(str(REPO / "scripts" / "cpus.py"))


def save(path: Path, name: str, logits: np.ndarray, greedy: list[int]) -> Path:
    found = {f"{name}:logits": logits, f"{name}:greedy": np.array(greedy)}
    np.savez(path, saturates=np.array(False), **found)
    return path


@pytest.mark.parametrize(
    ("scheme", "change", "agrees"),
    [("fp32", 1e-6, True), ("fp32", 0.1, False), ("int8", 0.1, True), ("int8", 2.0, False)],
)
def test_a_cpu_differs_where_its_divergence_exceeds_the_schemes_limit(
    scheme: str, change: float, agrees: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logits = np.random.default_rng(0).normal(size=(5, 30)).astype(np.float32)
    changed = logits.copy()
    changed[2, 7] += change
    here = save(tmp_path / "here.npz", f"{scheme} edge", logits, [1, 2, 3])
    there = save(tmp_path / "there.npz", f"{scheme} edge", changed, [1, 2, 4])
    assert SCRIPT["compare"](here, [there]) == agrees
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.startswith(f"| there | no | {scheme} edge |")
    assert row.endswith("| 2 of 3 |")


def test_probe_runs_the_golden_bundles_of_both_graphs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt_edge.bundle.bundle.builtin_bundles", lambda: ())
    (tmp_path / "bundles").mkdir()
    SCRIPT["probe"](tmp_path / "bundles", tmp_path / "out.npz")
    found = np.load(tmp_path / "out.npz")
    assert found["golden edge:logits"].shape[0] == SCRIPT["N_TOKENS"]
    assert found["golden portable:greedy"].shape == (SCRIPT["N_GREEDY"],)
