"""Where the library of operators is looked for, who may have written it, and what is said where it
cannot be made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt_edge.errors import GPTEdgeError, MissingDependencyError
from gpt_edge.native import library
from gpt_edge.native.library import (
    SETTING,
    WITHOUT,
    compile_library,
    find_library,
    library_path,
)
from gpt_edge.verify import native_operators as native_check
from gpt_edge.verify.native_operators import _check_in_child, build_library
from tests.support.runner import run


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of the test's own, on a machine that can run the operators."""
    monkeypatch.delenv(SETTING)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "why_unsupported", lambda: None)
    library_path.cache_clear()
    yield tmp_path / "cache"
    library_path.cache_clear()


def put_library() -> Path:
    path = library_path()
    path.parent.mkdir(parents=True, mode=0o700)
    path.write_bytes(b"a library")
    path.chmod(0o644)
    return path


def test_it_is_found_once_it_is_there(cache: Path) -> None:
    assert find_library() is None
    assert cache in put_library().parents
    assert find_library() == library_path()


def test_the_setting_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_library()
    with monkeypatch.context() as environment:
        environment.setenv(SETTING, WITHOUT)
        assert find_library() is None
    assert find_library() is not None
    other = tmp_path / "other.so"
    other.write_bytes(b"")
    monkeypatch.setenv(SETTING, str(other))
    assert find_library() == other
    monkeypatch.setenv(SETTING, str(tmp_path / "nowhere.so"))
    with pytest.raises(
        GPTEdgeError, match=r"GPT_EDGE_NATIVE must be 0 or a library's path.*nowhere.so"
    ):
        find_library()


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_others_may_write_to_is_not_loaded(is_folder: bool) -> None:
    path = put_library()
    (path.parent if is_folder else path).chmod(0o777)
    assert find_library() is None


def test_a_build_is_used_whatever_the_umask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        native_check,
        "compile_library",
        lambda path: (path.parent.mkdir(parents=True, mode=0o700), path.write_bytes(b"x")),
    )
    monkeypatch.setattr(native_check, "_check_in_child", lambda path: {"figures": {}, "faults": []})
    before = os.umask(0o002)
    try:
        build_library()
    finally:
        os.umask(before)
    assert find_library() == library_path()
    assert list(library_path().parent.iterdir()) == [library_path()]


def test_a_build_that_is_wrong_is_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        native_check,
        "compile_library",
        lambda path: (path.parent.mkdir(parents=True), path.write_bytes(b"x")),
    )
    monkeypatch.setattr(
        native_check, "_check_in_child", lambda path: {"figures": {}, "faults": ["a flip"]}
    )
    with pytest.raises(GPTEdgeError, match="wrong on this machine: a flip"):
        build_library()
    assert not list(cache.rglob("*.so"))


def test_a_machine_that_cannot_run_it_does_not_load_it(monkeypatch: pytest.MonkeyPatch) -> None:
    put_library()
    monkeypatch.setattr(library, "why_unsupported", lambda: "another CPU")
    assert find_library() is None
    with pytest.raises(GPTEdgeError, match="another CPU"):
        compile_library(library_path())


def test_an_older_cpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(library.sys, "platform", "linux")
    monkeypatch.setattr(library.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(
        library,
        "cpu_flags",
        lambda: frozenset({"avx2", "avx512f", "avx512bw", "avx512vl", "avx512dq"}),
    )
    assert (
        library.why_unsupported()
        == "the operators want a CPU with AVX-512 VNNI, this one lacks avx512_vnni"
    )
    monkeypatch.setattr(library.platform, "machine", lambda: "aarch64")
    assert "on aarch64" in (library.why_unsupported() or "")


def test_another_cpu_in_the_same_home_has_a_library_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = library_path()
    library_path.cache_clear()
    monkeypatch.setattr(library, "cpu_flags", lambda: frozenset({"another"}))
    assert library_path() != first


def test_no_compiler_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="a C compiler is required"):
        compile_library(library_path())


@pytest.mark.parametrize("compiler", ["/bin/false", "/nowhere/cc"])
def test_a_compiler_that_fails_leaves_nothing(
    compiler: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(GPTEdgeError, match=f"{compiler} could not"):
        build_library()
    assert not cache.exists()


def test_a_library_that_ends_its_process_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.so").write_bytes(b"\x7fELF")
    with pytest.raises(GPTEdgeError, match="the compiled operators failed with exit code 1"):
        _check_in_child(tmp_path / "broken.so")


def test_the_command_says_what_is_used_and_removes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nothing is built" in run("native").out
    path = put_library()
    assert run("native").out == f"in use: {path}\n"
    assert json.loads(run("native", "--json").out) == {"library": str(path), "reason": None}
    with monkeypatch.context() as environment:
        environment.setenv(SETTING, WITHOUT)
        assert run("native").out == "not in use: GPT_EDGE_NATIVE is 0\n"
    assert run("native", "remove").code == 0
    assert not path.exists()
    assert run("native", "remove").code == 0
    if os.geteuid() != 0:  # root may remove anything
        put_library().parent.chmod(0o500)
        assert run("native", "remove").code == 1


def test_the_argument_comes_before_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put_library()
    other = tmp_path / "other.so"
    other.write_bytes(b"")
    monkeypatch.setenv(SETTING, str(other))
    assert find_library() == other
    assert find_library(native=False) is None
    assert find_library(native=True) == path
    monkeypatch.setenv(SETTING, "0")
    assert find_library() is None
    assert find_library(native=other) == other
    with pytest.raises(GPTEdgeError, match=r"no library of custom operators at .*nowhere\.so"):
        find_library(native=tmp_path / "nowhere.so")
    path.unlink()
    with pytest.raises(GPTEdgeError, match="no library of custom operators is installed"):
        find_library(native=True)
    monkeypatch.setattr(library, "why_unsupported", lambda: "another CPU")
    for native in (True, other):
        with pytest.raises(GPTEdgeError, match="another CPU"):
            find_library(native=native)
