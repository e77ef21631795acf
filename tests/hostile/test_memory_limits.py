"""Too little address space: `python -m tests.hostile.memory_limits` tries many limits."""

from __future__ import annotations

import pytest

from gpt_edge import cli


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
