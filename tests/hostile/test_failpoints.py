"""A fault of the disk, Ctrl-C or the end of the process at some operations of every command that
writes, and power cuts: `python -m tests.hostile.failpoints` and `power_loss` try all of them.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.crash_model import check
from tests.support.disk_operations import Disk, Operation
from tests.support.warm_process import PATIENCE, WarmProcess

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="fork and flushed folders")


def test_after_a_fault_or_a_power_cut_the_old_or_the_new_is_there(shared_traces: None) -> None:
    process = WarmProcess("from tests.hostile.failpoints import sample; sample()")
    found, errors = process.communicate(PATIENCE)
    assert (process.returncode, found) == (0, ""), errors


STEPS = [
    Operation("open", ".f.tmp-1"),
    Operation("write", ".f.tmp-1", data=b"new"),
    Operation("fsync", ".f.tmp-1"),
    Operation("rename", ".f.tmp-1", "f"),
    Operation("fsync", ""),
]


@pytest.mark.parametrize("missing", [None, 2, 4])
def test_a_flush_that_is_missing_is_found(missing: int | None) -> None:
    steps = [step for number, step in enumerate(STEPS) if number != missing]
    n_cuts, wrong = check({"f": b"old"}, steps, {"f": b"new"})
    assert n_cuts > 10
    assert bool(wrong) == (missing is not None)


def test_an_operation_that_fails_of_itself_has_a_number_too(tmp_path: Path) -> None:
    disk = Disk(tmp_path, is_recorded=True)
    with disk.installed():
        with suppress(FileNotFoundError):
            os.unlink(tmp_path / "gone")
        (tmp_path / "folder").mkdir()
    assert list(map(str, disk.tried)) == ["unlink gone", "mkdir folder"]
    assert list(map(str, disk.done)) == ["mkdir folder"]
    assert disk.count == 2


@pytest.mark.slow
@pytest.mark.parametrize("path", ["tests.hostile.failpoints", "tests.hostile.power_loss"])
def test_every_fault_of_every_command(path: str) -> None:
    process = WarmProcess(
        f"import sys; from {path} import main; sys.argv[1:] = []; sys.exit(main())"
    )
    found, errors = process.communicate(3600)
    assert process.returncode == 0, found + errors
