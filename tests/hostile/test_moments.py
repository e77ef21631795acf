"""Ctrl-C at random moments of a command: `python -m tests.hostile.interrupts` tries more."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import REPO

pytest.importorskip("fcntl")

from tests.hostile.interrupts import COMMANDS
from tests.hostile.moments import can_isolate


def moments(command: str, n_tries: int) -> subprocess.CompletedProcess[str]:
    arguments = ["-m", "tests.hostile.interrupts", "--tries", str(n_tries), command]
    return subprocess.run(
        [sys.executable, *arguments], cwd=REPO, capture_output=True, text=True, timeout=3600
    )


@pytest.fixture(scope="module")
def isolated() -> None:
    if not can_isolate():
        pytest.skip("a process may not have mounts of its own here")


def test_ctrl_c_at_some_moments_of_a_command_that_writes(isolated: None) -> None:
    done = moments("generate --prompt-cache", 12)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_at_200_moments(command: str, isolated: None) -> None:
    done = moments(command, 200)
    assert done.returncode == 0, done.stdout + done.stderr
