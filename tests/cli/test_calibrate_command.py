"""`gpt-edge calibrate`: a file of examples, a bundle with a temperature, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gpt_edge.bundle.reader import BUILTIN
from tests.support.runner import done, run

ROWS = [
    ("The soup was cold.", "negative"),
    ("We loved every minute.", "positive"),
    ("Good, not great.", "negative"),
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Labelled reviews."""
    path = tmp_path / "dev.csv"
    rows = [f'"{text}",{label}' for text, label in ROWS]
    path.write_text("\n".join(["review,opinion", *rows]) + "\n")
    return path


def test_a_bundle_is_calibrated_in_its_place(table: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "reviews"
    shutil.copytree(BUILTIN / "sentiment-6m-int8", bundle)
    columns = ("--text", "review", "--label", "opinion")
    found = done("calibrate", bundle, table, *columns, "--json").json
    assert found["task"]["temperature"] == found["calibration"]["temperature"]
    assert found["calibration"]["n_examples"] == 3
    shown = done("inspect", bundle).out
    assert f"calibrated, temperature {found['task']['temperature']:.4g}" in shown
    assert "on 3 examples" in shown
    copy = tmp_path / "copy"
    lines = done("calibrate", bundle, table, *columns, "--test", table, "--out", copy).out
    first, second = lines.splitlines()
    assert first.startswith(f"{copy}: temperature ")
    assert first.endswith("3 examples")
    assert second.removeprefix(str(table)) == first.removeprefix(str(copy))


def test_faults_are_one_line(table: Path) -> None:
    columns = ("--text", "review", "--label", "opinion")
    missing = run("calibrate", "sentiment-6m-int8", table)
    assert (missing.code, len(missing.errors)) == (1, 1)
    assert "there is no column 'text'" in missing.err
    builtin = run("calibrate", "sentiment-6m-int8", table, *columns)
    assert builtin.code == 1
    assert "hint: write a calibrated copy: --out DIR" in builtin.err
    wrong = run("calibrate", "sentiment-6m-int8", table, *columns, "--force")
    assert wrong.code == 2
    other = run("calibrate", "sentiment-6m-int8", table, "--text", "review", "--label", "review")
    assert "line 2: label 'The soup was cold.' does not occur" in other.err
