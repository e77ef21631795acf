"""The folder of a run, where an earlier one was killed."""

from __future__ import annotations

from pathlib import Path

from gpt_edge.training.run_folder import STATE, hold_run_folder


def test_a_run_clears_what_a_killed_one_left_beside_files_it_does_not_write(tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir()
    (tmp_path / STATE).touch()
    for name in (".tokenizer.tiktoken.lock", "tokens/.train.json.tmp-1-00000000"):
        (tmp_path / name).touch()
    with hold_run_folder(tmp_path, resume=True, option="--out"):
        left = sorted(path.name for path in tmp_path.rglob("*"))
    assert left == [STATE, "tokens"]
