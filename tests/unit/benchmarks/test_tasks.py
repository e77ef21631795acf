"""benchmarks/tasks/task_sets.py: what belongs together stays together when a set is split."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest

from tests.conftest import REPO

sys.path.insert(0, str(REPO / "benchmarks" / "tasks"))

import task_sets


def sentences(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [(row["premise"], row["hypothesis"]) for row in rows]


@pytest.mark.parametrize("seed", [0, 1])
def test_no_sentence_of_a_med_test_pair_is_in_training_nor_of_a_held_out_one(
    shared_data: Path, tmp_path: Path, seed: int
) -> None:
    med = task_sets.SETS["med"]
    train, test = task_sets.prepare(med, "med", shared_data / "tasks", tmp_path)
    learn, dev = task_sets.held_out(med, "med", train, tmp_path, seed)
    assert dev is not None
    parts = [sentences(path) for path in (learn, dev, test)]
    assert sum(map(len, parts)) == len(sentences(shared_data / "tasks" / med.train)) == 4598
    assert all(300 < len(part) < 4000 for part in parts)
    seen = [{sentence for pair in part for sentence in pair} for part in parts]
    assert not seen[0] & seen[1]
    assert not (seen[0] | seen[1]) & seen[2]


def test_rows_that_are_connected_over_others_are_one_group() -> None:
    rows = [["a", "b"], ["x", "y"], ["c", "b"], ["d", "c"], ["y", "x"], ["z", "z"]]
    assert task_sets._first_values(rows) == ["a", "x", "a", "a", "x", "z"]
