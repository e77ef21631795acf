"""Where the library of operators is looked for, who may have written it, which body is taken, and
what is said where there is none.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt_edge.errors import GPTEdgeError, MissingDependencyError
from gpt_edge.native import compile as native_compile
from gpt_edge.native import library, self_check
from gpt_edge.native.compile import compile_library
from gpt_edge.native.library import (
    BODY_SETTING,
    SETTING,
    WITHOUT,
    body_in_use,
    built_path,
    find_library,
    packaged_path,
)
from gpt_edge.verify import native_operators as native_check
from gpt_edge.verify.native_operators import build_library, check_in_child
from tests.support.runner import run

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of the test's own, nothing in the package, and a CPU that runs two bodies."""
    monkeypatch.delenv(SETTING)
    monkeypatch.delenv(BODY_SETTING, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "packaged_path", lambda: None)
    monkeypatch.setattr(library, "bodies", lambda path: ["amx", "avx2"])
    monkeypatch.setattr(self_check, "check", lambda path, body: True)
    built_path.cache_clear()
    self_check.is_proven.cache_clear()
    yield tmp_path / "cache"
    built_path.cache_clear()
    self_check.is_proven.cache_clear()


def put_library() -> Path:
    path = built_path()
    path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    path.write_bytes(b"a library")
    path.chmod(0o644)
    return path


def test_it_is_found_once_it_is_there(cache: Path) -> None:
    assert find_library() is None
    assert cache in put_library().parents
    assert find_library() == built_path()


def test_a_build_comes_before_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = tmp_path / "_operators.abi3.so"
    packaged.write_bytes(b"a library")
    monkeypatch.setattr(library, "packaged_path", lambda: packaged)
    assert find_library() == packaged
    assert find_library(native=True) == packaged
    put_library()
    assert find_library() == built_path()


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


def test_the_best_body_is_taken_or_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    path = put_library()
    assert body_in_use(path) == "amx"
    monkeypatch.setenv(BODY_SETTING, "avx2")
    assert body_in_use(path) == "avx2"
    monkeypatch.setenv(BODY_SETTING, "i8mm")
    with pytest.raises(GPTEdgeError, match="GPT_EDGE_ISA is 'i8mm', and this CPU runs amx, avx2"):
        find_library()


def test_a_cpu_without_a_body_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    put_library()
    monkeypatch.setattr(library, "bodies", lambda path: [])
    assert find_library() is None
    assert "no body of the operators is for this CPU" in run("native").out
    with pytest.raises(GPTEdgeError, match="no body for this CPU"):
        find_library(native=True)


def test_what_fails_its_self_check_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    path = put_library()
    answers = [False]
    monkeypatch.setattr(self_check, "check", lambda path, body: answers.pop())
    with pytest.warns(RuntimeWarning, match=r"fail their self-check on this CPU \(amx\)"):
        assert find_library() is None
    self_check.is_proven.cache_clear()
    with pytest.warns(RuntimeWarning):  # the answer is remembered, for this file
        assert find_library() is None
    os.utime(path, ns=(1, 1))
    self_check.is_proven.cache_clear()
    answers = [True]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_library() == path


def test_a_library_that_crashes_fails_its_self_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    (tmp_path / "broken.so").write_bytes(b"\x7fELF")
    assert not self_check.check(tmp_path / "broken.so", "avx2")
    monkeypatch.setattr(self_check, "PROGRAM", "import os; os.kill(os.getpid(), 4)")
    assert not self_check.check(tmp_path / "broken.so", "avx2")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_frozen_program_checks_in_a_fork_as_it_cannot_start_a_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sys.executable is the program itself, which would open the model and check again."""

    class Library:
        def __init__(self, path: str) -> None:
            if path.endswith("crashes.so"):
                os.kill(os.getpid(), signal.SIGILL)

        def gpt_edge_check(self, body: bytes) -> int:
            return body == b"avx2"

    monkeypatch.undo()
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(self_check.subprocess, "run", lambda *_, **__: pytest.fail("a process"))
    assert not self_check.check(tmp_path / "missing.so", "avx2")
    monkeypatch.setattr(self_check.ctypes, "CDLL", Library)
    assert self_check.check(tmp_path / "right.so", "avx2")
    assert not self_check.check(tmp_path / "right.so", "amx")
    assert not self_check.check(tmp_path / "crashes.so", "avx2")


def test_an_unwritable_cache_asks_every_process(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put_library()
    monkeypatch.setattr(self_check, "atomic_write", lambda *args: (_ for _ in ()).throw(OSError))
    assert find_library() == path
    assert list(cache.rglob("checked-*")) == []


def test_a_build_is_used_whatever_the_umask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_check, "compiled_library", lambda: b"x")
    monkeypatch.setattr(native_check, "check_in_child", lambda path: {})
    before = os.umask(0o002)
    try:
        build_library()
    finally:
        os.umask(before)
    assert find_library() == built_path()
    assert list(built_path().parent.glob("*.so")) == [built_path()]


def test_a_build_that_is_wrong_is_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise GPTEdgeError("the operators are wrong on this machine: a flip")

    monkeypatch.setattr(native_check, "compiled_library", lambda: b"x")
    monkeypatch.setattr(native_check, "check_in_child", refuse)
    with pytest.raises(GPTEdgeError, match="wrong on this machine: a flip"):
        build_library()
    assert not list(cache.rglob("*.so"))


def test_other_sources_have_a_library_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = built_path()
    built_path.cache_clear()
    (tmp_path / "one.c").write_text("int one;")
    monkeypatch.setattr(library, "SOURCES", tmp_path)
    assert built_path() != first


def test_pip_and_the_command_compile_with_the_same_options_and_sources() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    (extension,) = settings["ext-modules"]
    assert tuple(extension["extra-compile-args"]) == native_compile.OPTIONS
    compiled = [path for path in library.sources() if path.suffix == ".c"]
    assert sorted(extension["sources"]) == sorted(
        path.relative_to(ROOT).as_posix() for path in compiled
    )
    assert extension["optional"]


def test_no_compiler_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="a C compiler is required"):
        compile_library(built_path())


@pytest.mark.parametrize("compiler", ["/bin/false", "/nowhere/cc"])
def test_a_compiler_that_fails_leaves_nothing(
    compiler: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(GPTEdgeError, match=f"{compiler} could not"):
        build_library()
    assert not cache.exists()


def test_a_library_that_ends_its_process_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.so").write_bytes(b"\x7fELF")
    with pytest.raises(GPTEdgeError, match="the operators failed with exit code 1"):
        check_in_child(tmp_path / "broken.so")


def test_the_command_says_what_is_used_and_removes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "pip found no C compiler" in run("native").out
    path = put_library()
    assert run("native").out.startswith(
        f"in use: amx, the best of amx, avx2 on this CPU\nlibrary: {path}\n"
    )
    assert json.loads(run("native", "--json").out) == {
        "library": str(path),
        "body": "amx",
        "bodies": ["amx", "avx2"],
        "reason": None,
    }
    with monkeypatch.context() as environment:
        environment.setenv(BODY_SETTING, "avx2")
        assert "in use: avx2, which GPT_EDGE_ISA names" in run("native").out
    with monkeypatch.context() as environment:
        environment.setenv(SETTING, WITHOUT)
        assert run("native").out == "not in use: GPT_EDGE_NATIVE is 0\n"
    assert run("native", "remove").code == 0
    assert not path.exists()
    assert run("native", "remove").code == 0
    if os.geteuid() != 0:  # root may remove anything
        put_library().parent.chmod(0o500)
        assert run("native", "remove").code == 1


def test_a_check_without_a_library_says_what_to_do() -> None:
    result = run("native", "check")
    assert result.code == 1
    assert "gpt-edge native build" in result.err


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


def test_a_file_that_is_no_library_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    path = tmp_path / "operators.so"
    path.write_bytes(b"no library")
    with pytest.raises(GPTEdgeError, match=r"the operators in .*operators\.so cannot be loaded"):
        find_library(native=path)


def test_the_package_has_one_where_it_was_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    path = packaged_path()
    if path is None:
        pytest.skip("pip found no C compiler")
    assert path.parent == Path(library.__file__).parent
