"""Too little address space: `python -m tests.hostile.memory_limits` tries many limits."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gpt_edge import cli
from gpt_edge.cli.support import address_space
from tests.conftest import REPO


def test_a_library_that_cannot_be_mapped_is_out_of_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(arguments: list[str]) -> int:
        try:
            raise ImportError("x.so: failed to map segment from shared object")
        except ImportError as error:
            raise ImportError("please read this") from error

    monkeypatch.setattr(cli, "_run", run)
    assert cli.main(["generate"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: out of memory\nhint: ")
    assert "fault in gpt-edge" not in said


def test_a_thread_that_cannot_be_started_is_no_fault_of_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(arguments: list[str]) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(cli, "_run", run)
    assert cli.main(["web"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: no thread could be started: memory is short, or too many proces")
    assert "fault in gpt-edge" not in said


@pytest.mark.parametrize(
    "message",
    ["error return without exception set", "<f> returned NULL without setting an exception"],
)
def test_an_error_without_a_reason_is_no_fault_of_ours(
    message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(arguments: list[str]) -> int:
        raise SystemError(message)

    monkeypatch.setattr(cli, "_run", run)
    assert cli.main(["diff"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: a library failed and did not say why; memory may be short\nhint")
    assert "fault in gpt-edge" not in said


def test_an_odd_error_names_a_limit_of_the_address_space(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(arguments: list[str]) -> int:
        raise ImportError("cannot import name 'x' from 'torch'")

    monkeypatch.setattr(cli, "_run", run)
    assert cli.main(["export"]) == 1
    assert "fault in gpt-edge" in capsys.readouterr().err
    monkeypatch.setattr(address_space, "address_limit", lambda: 300 << 20)
    assert cli.main(["export"]) == 1
    said = capsys.readouterr().err
    assert "memory may be short: the address space is limited to 300 MiB" in said
    assert "fault in gpt-edge" not in said


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space")
def test_numpy_is_refused_where_its_openblas_would_end_the_process() -> None:
    program = (
        "import resource, sys; from gpt_edge.cli import program\n"
        "resource.setrlimit(resource.RLIMIT_AS, (90 << 20, 90 << 20))\n"
        "sys.exit(program())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "embed", "tinystories-7m-int8", "a cat"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: out of memory\nhint: "), done.stderr
