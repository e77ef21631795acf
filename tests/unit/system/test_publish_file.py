"""One file published by a rename, and what the system says no to: links in a circle, folders that
cannot be exchanged, a source in the way.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpt_edge.errors import OutputError
from gpt_edge.system import atomic_files as files
from gpt_edge.system.atomic_files import (
    find_set_aside,
    make_folder,
    publish_file,
    publish_folder,
)


def ours(path: Path) -> bool:
    return path.read_bytes().startswith(b"ours")


def publish(target: Path, content: bytes, *, force: bool = False, n_bytes: int = 0) -> None:
    with publish_file(target, force=force, is_ours=ours, n_bytes=n_bytes) as temporary:
        temporary.write_bytes(content)


def write_and(target: Path, then: Callable[[Path], object]) -> None:
    """Publish half a file; `then` is told its temporary name."""
    with publish_file(target, force=False, is_ours=ours, n_bytes=10) as temporary:
        temporary.write_bytes(b"half")
        then(temporary)


def fail(error: BaseException) -> None:
    raise error


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_put_in_its_place_and_its_folders_are_made(tmp_path: Path) -> None:
    publish(tmp_path / "new" / "deep" / "file", b"ours 1")
    assert (tmp_path / "new" / "deep" / "file").read_bytes() == b"ours 1"
    assert names(tmp_path / "new" / "deep") == ["file"]


def test_an_existing_file_stays_without_force(tmp_path: Path) -> None:
    publish(tmp_path / "file", b"ours 1")
    with pytest.raises(OutputError, match="exists"):
        publish(tmp_path / "file", b"ours 2")
    assert (tmp_path / "file").read_bytes() == b"ours 1"
    publish(tmp_path / "file", b"ours 2", force=True)
    assert (tmp_path / "file").read_bytes() == b"ours 2"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("kind", ["another's file", "a folder"])
def test_what_is_not_ours_stays_with_force(tmp_path: Path, kind: str) -> None:
    if kind == "a folder":
        (tmp_path / "file").mkdir()
    else:
        (tmp_path / "file").write_bytes(b"theirs")
    with pytest.raises(OutputError, match="not a file that was written here"):
        publish(tmp_path / "file", b"ours", force=True)
    assert names(tmp_path) == ["file"]


def test_a_file_that_came_meanwhile_stays(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists"):
        write_and(tmp_path / "file", lambda _: (tmp_path / "file").write_bytes(b"ours, but sooner"))
    assert (tmp_path / "file").read_bytes() == b"ours, but sooner"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("other")])
def test_after_an_exception_nothing_is_left(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        write_and(tmp_path / "new" / "file", lambda _: fail(error))
    assert names(tmp_path) == []


def test_a_block_that_writes_no_file_is_one_clear_error(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError),
        publish_file(tmp_path / "file", force=False, is_ours=ours),
    ):
        pass
    assert names(tmp_path) == []


def test_a_full_disk_is_named_with_the_target(tmp_path: Path) -> None:
    full = os.strerror(errno.ENOSPC)
    with pytest.raises(OutputError, match="file"):
        write_and(tmp_path / "file", lambda name: fail(OSError(errno.ENOSPC, full, str(name))))
    assert names(tmp_path) == []


def test_an_error_about_another_disk_passes_through(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError),
        publish_file(tmp_path / "file", force=False, is_ours=ours),
    ):
        (tmp_path / "nowhere").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_in_a_circle_are_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loop(self: Path, strict: bool = False) -> Path:
        raise RuntimeError(f"Symlink loop from {str(self)!r}")  # Python below 3.13

    monkeypatch.setattr(Path, "resolve", loop)
    with pytest.raises(OutputError, match="Symlink loop"):
        publish(tmp_path / "circle" / "file", b"ours")


def test_a_source_that_is_in_the_way_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    for target, what in (
        (source, "is the source itself"),
        (source / "new", "lies inside the source"),
        (tmp_path, "lies inside"),
    ):
        with (
            pytest.raises(OutputError, match=what),
            publish_folder(target, force=True, is_ours=ours, source=source),
        ):
            pass
    assert names(source) == ["inner"]


def test_nothing_is_set_aside_where_no_folder_is(tmp_path: Path) -> None:
    assert find_set_aside(tmp_path / "missing" / "bundle") is None
    assert find_set_aside(tmp_path / "bundle") is None


def test_folders_are_made_without_a_list_of_them(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError):
        make_folder(tmp_path / "file" / "b")


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux's")
@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_that_cannot_exchange_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace(renameat2=lambda *_: -1))
    monkeypatch.setattr(ctypes, "get_errno", lambda: code)
    assert not files._exchange(tmp_path / "one", tmp_path / "other")


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux's")
def test_an_exchange_that_fails_for_another_reason_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    with pytest.raises(FileNotFoundError):
        files._exchange(tmp_path / "one", tmp_path / "missing")


def test_without_the_call_or_another_system_nothing_is_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace())  # an old C library
    assert not files._exchange(tmp_path / "one", tmp_path / "other")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not files._exchange(tmp_path / "one", tmp_path / "other")


def refuse(*_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_disk_that_breaks_at_the_rename_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    (tmp_path / "file").write_bytes(b"ours 1")
    for write in (
        lambda: files.atomic_write(tmp_path / "file", b"ours 2"),
        lambda: publish(tmp_path / "file", b"ours 2", force=True),
    ):
        with monkeypatch.context() as broken:
            broken.setattr(os, call, refuse)
            with pytest.raises(OutputError, match="file"):
                write()
    assert (tmp_path / "file").read_bytes() == b"ours 1"
    assert names(tmp_path) == ["file"]


def test_a_target_that_cannot_be_looked_at_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError):
        files._check_target(tmp_path / "file" / "bundle", force=True, is_ours=ours)


def test_a_folder_that_cannot_be_listed_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bundle").mkdir()
    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(OutputError):
        files._check_target(tmp_path / "bundle", force=True, is_ours=ours)


def test_what_goes_while_its_size_is_added_up_counts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert files._size(tmp_path) == 5
    monkeypatch.setattr(os, "lstat", refuse)
    assert files._size(tmp_path) == 0


def test_a_disk_that_breaks_under_a_folder_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"ours")

    def write() -> None:
        with publish_folder(tmp_path / "bundle", force=False, is_ours=ours) as folder:
            (folder / "file").write_bytes(b"ours")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", refuse)
        with pytest.raises(OutputError, match="bundle"):
            write()
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("comes", ["before", "after"])
def test_an_interrupt_at_the_removal_of_the_lock_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes: str
) -> None:
    unlink = os.unlink
    came = []

    def interrupted(path: Path) -> None:
        if not str(path).endswith(".lock") or came:
            unlink(path)
            return
        came.append(path)
        if comes == "after":
            unlink(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "unlink", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.atomic_write(tmp_path / "file", b"ours")
    assert names(tmp_path) == ["file"]
