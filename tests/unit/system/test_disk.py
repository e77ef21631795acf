"""What disk.py says of a folder that changes under a reader, and of a disk without room."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from gpt_edge.system import disk
from gpt_edge.system.disk import FolderReader, output_error

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no handle of a folder")


def test_a_folder_that_is_moved_is_current_no_more(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with FolderReader(folder) as reader:
        assert reader.is_current()
        folder.rename(tmp_path / "moved")
        assert not reader.is_current()
        folder.mkdir()
        assert not reader.is_current()
        reader.__exit__()
    assert reader.is_current()  # without a handle nothing is known


def test_a_pipe_that_takes_a_files_place_is_neither_read_nor_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    status = os.stat(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    with FolderReader(tmp_path) as reader:
        monkeypatch.setattr(os, "stat", lambda *path, **options: status)
        with pytest.raises(ValueError, match="is not a regular file"), reader.open("pipe"):
            pass


def test_a_full_disk_whose_room_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> int:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(disk, "free_bytes", fail)
    error = output_error(OSError(errno.ENOSPC, "No space left"), tmp_path / "x")
    assert "free space unknown" in error.message


@pytest.mark.parametrize("is_limited", [False, True])
def test_a_file_beyond_the_limit_of_files_names_the_limit(
    is_limited: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 4096 if is_limited else disk.resource.RLIM_INFINITY
    monkeypatch.setattr(disk.resource, "getrlimit", lambda which: (limit, limit))
    error = output_error(OSError(errno.EFBIG, "File too large"), tmp_path / "x")
    assert ("4096" in error.message) == is_limited
