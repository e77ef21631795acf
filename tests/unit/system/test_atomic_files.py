"""What files.py promises while nothing fails: whole files, whole folders, refusals, locks and
strays.
"""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gpt_edge.errors import OutputError
from gpt_edge.system import atomic_files as files
from gpt_edge.system import disk, lock
from gpt_edge.system.atomic_files import (
    atomic_write,
    check_free_space,
    publish_folder,
    sha256_file,
    write_check,
    write_file,
)
from gpt_edge.system.lock import hold_lock
from tests.support.warm_process import PATIENCE


def ours(folder: Path) -> bool:
    return (folder / "ours").exists()


def publish(target: Path, content: str, *, force: bool = False, source: Path | None = None) -> None:
    with publish_folder(target, force=force, source=source, is_ours=ours) as folder:
        (folder / "ours").write_text(content)


def interrupt(folder: Path, error: type[BaseException]) -> None:
    (folder / "ours").write_text("half")
    raise error


def atomic_write_into_new(folder: Path, name: str) -> None:
    folder.mkdir()
    atomic_write(folder / name, b"somebody else's")


def test_sha256_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    data = os.urandom(3_000_001)
    (tmp_path / "f").write_bytes(data)
    assert sha256_file(tmp_path / "f") == hashlib.sha256(data).hexdigest()


def test_write_file_refuses_an_existing_file(tmp_path: Path) -> None:
    write_file(tmp_path / "f", b"old")
    with pytest.raises(FileExistsError):
        write_file(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"old"


def test_atomic_write_makes_and_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    for content in (b"", b"one", b"two" * 100_000):
        atomic_write(tmp_path / "f", content)
        assert (tmp_path / "f").read_bytes() == content
        assert os.listdir(tmp_path) == ["f"]


def test_atomic_write_into_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*No such file"):
        atomic_write(tmp_path / "missing" / "f", b"x")


def test_write_check_names_both_sizes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    write_check(tmp_path / "f", 5)
    with pytest.raises(OutputError, match=r"has 5 bytes after writing 6"):
        write_check(tmp_path / "f", 6)


def test_a_write_that_claims_more_than_it_did_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(
        os, "write", lambda descriptor, data: len(data) * write(descriptor, data[:3]) // 3
    )
    with pytest.raises(OutputError, match="has 3 bytes after writing 6"):
        atomic_write(tmp_path / "f", b"123456")
    assert os.listdir(tmp_path) == []


def test_free_space_is_asked_for_with_a_tenth_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 1100)
    check_free_space(tmp_path, 1000)
    with pytest.raises(OutputError, match=r"has 1100 bytes free, 1101 bytes are needed"):
        check_free_space(tmp_path, 1001)


def test_free_space_of_a_folder_to_be_made_is_that_of_its_parent(tmp_path: Path) -> None:
    check_free_space(tmp_path / "a" / "b", 1)
    with pytest.raises(OutputError, match=r"bytes are needed"):
        check_free_space(tmp_path / "a" / "b", 1 << 60)


def test_publish_makes_the_folder_and_its_parents(tmp_path: Path) -> None:
    publish(tmp_path / "a" / "b" / "out", "x")
    assert (tmp_path / "a" / "b" / "out" / "ours").read_text() == "x"
    assert os.listdir(tmp_path / "a" / "b") == ["out"]


def test_a_published_folder_has_the_rights_the_user_asked_for(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        publish(tmp_path / "out", "x")
    finally:
        os.umask(old)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


def test_force_replaces_the_whole_folder(tmp_path: Path) -> None:
    publish(tmp_path / "out", "one")
    (tmp_path / "out" / "stale").touch()
    publish(tmp_path / "out", "two", force=True)
    assert os.listdir(tmp_path / "out") == ["ours"]
    assert (tmp_path / "out" / "ours").read_text() == "two"
    assert os.listdir(tmp_path) == ["out"]


def test_force_replaces_the_folder_where_two_cannot_be_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    publish(tmp_path / "out", "one")
    publish(tmp_path / "out", "two", force=True)
    assert (tmp_path / "out" / "ours").read_text() == "two"
    assert os.listdir(tmp_path) == ["out"]


def test_force_fills_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    publish(tmp_path / "out", "x", force=True)
    assert (tmp_path / "out" / "ours").read_text() == "x"


def test_a_reader_of_the_old_folder_keeps_it_while_it_is_replaced(tmp_path: Path) -> None:
    publish(tmp_path / "out", "one")
    with (
        disk.FolderReader(tmp_path / "out") as reader,
        reader.open("ours") as stream,
    ):
        assert reader.is_current()
        publish(tmp_path / "out", "two", force=True)
        assert stream.read() == b"one"
        assert not reader.is_current()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_an_exception_leaves_the_target_as_it_was_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    publish(tmp_path / "out", "one")
    with (
        pytest.raises(error),
        publish_folder(tmp_path / "out", force=True, is_ours=ours) as folder,
    ):
        interrupt(folder, error)
    assert (tmp_path / "out" / "ours").read_text() == "one"
    assert os.listdir(tmp_path) == ["out"]


def test_an_exception_removes_the_parents_that_were_made(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with (
        pytest.raises(ValueError, match="stop"),
        publish_folder(tmp_path / "there" / "a" / "b" / "out", force=False, is_ours=ours),
    ):
        raise ValueError("stop")
    assert os.listdir(tmp_path) == ["there"]
    assert os.listdir(tmp_path / "there") == []


def test_an_existing_folder_needs_force(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="exists") as caught:
        publish(tmp_path / "out", "x")
    assert "--force" in str(caught.value.cli_hint)
    assert os.listdir(tmp_path) == ["out"]


def test_force_never_replaces_a_folder_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="did not write"):
        publish(tmp_path / "out", "x", force=True)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


def test_a_folder_that_appears_during_the_work_is_not_replaced(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="exists"),
        publish_folder(tmp_path / "out", force=False, is_ours=ours),
    ):
        atomic_write_into_new(tmp_path / "out", "f")
    assert os.listdir(tmp_path / "out") == ["f"]
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("force", [False, True])
def test_a_file_and_a_link_are_no_target(tmp_path: Path, force: bool) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name, message in (
        ("file", "is a file"),
        ("link", "symbolic link"),
        ("dangling", "symbolic link"),
    ):
        with pytest.raises(OutputError, match=message):
            publish(tmp_path / name, "x", force=force)
    assert sorted(os.listdir(tmp_path)) == ["dangling", "file", "folder", "link"]


def test_a_file_among_the_parents_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="Not a directory"):
        publish(tmp_path / "file" / "out", "x")


@pytest.mark.parametrize("target", ["/", "", "a\0b", "n" * 256, "n" * 250])
def test_a_name_that_no_folder_can_have_is_an_output_error(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError):
        publish(Path(target), "x")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("force", [False, True])
def test_source_and_target_must_lie_apart(tmp_path: Path, force: bool) -> None:
    source = tmp_path / "source"
    publish(source, "weights")
    (tmp_path / "alias").symlink_to(source)
    for target, message in (
        (source, "is the source itself"),
        (source / "sub" / "out", "inside the source"),
        (tmp_path / "alias" / "out", "inside the source"),
        (tmp_path / "x" / ".." / "source" / "out", "inside the source"),
        (tmp_path, "lies inside"),
    ):
        with pytest.raises(OutputError, match=message):
            publish(target, "x", force=force, source=source)
    with pytest.raises(OutputError, match="lies inside"):
        publish(source, "x", force=force, source=source / "ours")
    assert os.listdir(source) == ["ours"]


def test_a_neighbour_of_the_source_whose_name_begins_alike_is_no_part_of_it(tmp_path: Path) -> None:
    publish(tmp_path / "source", "weights")
    publish(tmp_path / "source-int8", "x", source=tmp_path / "source")
    publish(tmp_path / "out", "x", source=tmp_path / "source" / "ours")
    assert sorted(os.listdir(tmp_path)) == ["out", "source", "source-int8"]


def test_a_second_writer_is_told_at_once_that_the_target_is_busy(tmp_path: Path) -> None:
    with publish_folder(tmp_path / "out", force=False, is_ours=ours) as folder:
        (folder / "ours").write_text("first")
        for alias in (tmp_path / "out", tmp_path / "x" / ".." / "out"):
            with pytest.raises(OutputError, match="busy"):
                publish(alias, "second")
        publish(tmp_path / "other", "beside")
    assert (tmp_path / "out" / "ours").read_text() == "first"
    assert sorted(os.listdir(tmp_path)) == ["other", "out"]


@pytest.mark.every_core
def test_a_writer_in_another_process_is_told_that_the_target_is_busy(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from gpt_edge.system.atomic_files import publish_folder
try:
    with publish_folder(Path({str(tmp_path / "out")!r}), force=True, is_ours=lambda folder: True):
        print("published")
except Exception as error:
    print(type(error).__name__, error)
"""
    with publish_folder(tmp_path / "out", force=False, is_ours=ours) as folder:
        (folder / "ours").write_text("first")
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE
        )
    assert done.stdout.startswith("OutputError"), done
    assert "busy" in done.stdout
    assert (tmp_path / "out" / "ours").read_text() == "first"


def test_the_lock_of_a_dead_process_blocks_nobody(tmp_path: Path) -> None:
    (tmp_path / ".out.lock").touch()
    publish(tmp_path / "out", "x")
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.every_core
def test_a_lock_is_never_held_twice(tmp_path: Path) -> None:
    held, most = [0], [0]

    def work() -> None:
        done = 0
        while done < 50:
            try:
                with lock.hold_lock(tmp_path / "out"):
                    held[0] += 1
                    time.sleep(0)  # lets the others in, if anything does
                    most[0] = max(most[0], held[0])
                    held[0] -= 1
                    done += 1
            except OutputError:
                time.sleep(0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert os.listdir(tmp_path) == []


def test_strays_of_dead_writers_are_cleared_and_others_files_are_not(tmp_path: Path) -> None:
    stray = tmp_path / ".out.tmp-999999-0123abcd"
    stray.mkdir()
    (stray / "model.onnx").write_bytes(b"half")
    (tmp_path / ".out.tmp-7-89abcdef").touch()
    others = [
        ".out.tmp-7",
        ".out.tmp-x-89abcdef",
        ".out2.tmp-7-89abcdef",
        "out.tmp-7-89abcdef",
        ".oxt.tmp-7-89abcdef",
    ]
    for name in others:
        (tmp_path / name).touch()
    publish(tmp_path / "out", "x")
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "out"])


def test_a_folder_is_cleared_of_what_dead_writers_left_in_it(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    dead = [tmp_path / ".a.lock", inner / ".b.lock", inner / ".b.tmp-1-00000000"]
    for path in (*dead, tmp_path / ".c.tmp-1-00000000" / "file"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    others = [tmp_path / "a", inner / ".lock", inner / ".b.tmp-1"]
    for path in others:
        path.touch()
    with hold_lock(inner / "held"):
        lock.clear_folder(tmp_path)
        left = {path for path in tmp_path.rglob("*") if path != inner}
    assert left == {*others, inner / ".held.lock"}


def test_a_stray_that_cannot_be_removed_is_an_output_error_and_frees_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".a.tmp-1-00000000").touch()
    real = os.unlink

    def unlink(path: Path) -> None:
        if ".tmp-" in str(path):
            raise OSError(errno.EIO, "broken", str(path))
        real(path)

    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(OutputError, match=r"cannot write .*broken"), hold_lock(tmp_path / "a"):
        pass
    assert not (tmp_path / ".a.lock").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="locks with flock")
def test_ctrl_c_while_a_lock_is_taken_closes_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(descriptor: int, flags: int) -> None:
        held.append(descriptor)
        raise KeyboardInterrupt

    held: list[int] = []
    monkeypatch.setattr(lock.fcntl, "flock", interrupted)
    with pytest.raises(KeyboardInterrupt), hold_lock(tmp_path / "a"):
        pass
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(held[0])


def test_a_stray_that_is_a_link_is_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "f").touch()
    (tmp_path / ".out.tmp-7-89abcdef").symlink_to(tmp_path / "precious")
    publish(tmp_path / "out", "x")
    assert os.listdir(tmp_path / "precious") == ["f"]
    assert sorted(os.listdir(tmp_path)) == ["out", "precious"]


def test_a_folder_moved_aside_is_put_back_where_the_target_is_gone(tmp_path: Path) -> None:
    publish(tmp_path / ".out.old-7-89abcdef", "one")
    assert files.find_set_aside(tmp_path / "out") == tmp_path / ".out.old-7-89abcdef"
    with pytest.raises(OutputError, match="exists"):
        publish(tmp_path / "out", "two")
    assert (tmp_path / "out" / "ours").read_text() == "one"
    assert os.listdir(tmp_path) == ["out"]
    assert files.find_set_aside(tmp_path / "out") is None


def test_a_folder_moved_aside_goes_where_the_target_is_there(tmp_path: Path) -> None:
    publish(tmp_path / "out", "two")
    publish(tmp_path / ".out.old-7-89abcdef", "one")
    publish(tmp_path / "out", "three", force=True)
    assert (tmp_path / "out" / "ours").read_text() == "three"
    assert os.listdir(tmp_path) == ["out"]


def test_an_error_about_the_source_passes_through_unchanged(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError),
        publish_folder(tmp_path / "out", force=False, is_ours=ours),
    ):
        (tmp_path / "source-is-gone").read_bytes()
    assert os.listdir(tmp_path) == []


def test_a_full_disk_names_the_bytes_needed_and_free(tmp_path: Path) -> None:
    with (
        pytest.raises(
            OutputError, match=r"No space left.*at least 5000 bytes needed, \d+ bytes free"
        ),
        publish_folder(tmp_path / "out", force=False, is_ours=ours, n_bytes=5000),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert os.listdir(tmp_path) == []


def test_too_little_room_is_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 1000)
    with (
        pytest.raises(OutputError, match="1000 bytes free, 5500 bytes are needed"),
        publish_folder(tmp_path / "out", force=False, is_ours=ours, n_bytes=5000),
    ):
        pytest.fail("the work must not begin")
    assert os.listdir(tmp_path) == []


def test_a_folder_reader_opens_only_regular_files(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "link").symlink_to("f")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with disk.FolderReader(tmp_path) as reader:
        assert reader.names() == ["f", "folder", "link", "pipe"]
        with reader.open("f") as stream:
            assert stream.read() == b"x"
        for name in ("link", "folder", "pipe"):
            with pytest.raises(ValueError, match="not a regular file"), reader.open(name):
                pass
