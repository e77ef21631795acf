"""Ctrl-C in the first moments of a command: exit code 130 and no traceback, as soon as gpt-edge's
own code runs. Before that Python itself ends, by the signal or with a traceback of its own.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpt_edge import cli
from tests.conftest import REPO

# says when gpt-edge's code begins, and lets no interrupt come before it
PROGRAM = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
from gpt_edge.cli import program
os.write(2, b"begun")
try:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
except KeyboardInterrupt:  # it came meanwhile, as processes run slowly here
    os._exit(130)
sys.exit(program())
"""


def outcome(program: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a Python program."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


def interrupted(arguments: list[str], delay: float) -> tuple[int, str, float]:
    """Exit code, standard error and the seconds that ending took."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=REPO,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    assert process.stderr.read(5) == b"begun"
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors.decode(), time.monotonic() - began


def check(n_times: int, arguments: list[str], longest: float, seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(n_times):
        delay = draw.random() * longest
        code, errors, seconds = interrupted(arguments, delay)
        assert (code, errors.strip()) in ((130, ""), (0, "")), (delay, code, errors)
        assert seconds < 5, (delay, seconds)  # 1 s where nothing else runs


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process")
def test_ctrl_c_while_a_command_is_imported_ends_it_quietly() -> None:
    check(6, ["inspect"], 0.25, seed=1)


def test_a_ctrl_c_that_python_lost_in_a_callback_comes_again() -> None:
    program = (
        "import sys, weakref, gpt_edge.cli as cli\n"
        "class Thing: pass\n"
        "def lose(_): raise KeyboardInterrupt\n"
        "def run(arguments):\n"
        "    thing = Thing(); kept = weakref.ref(thing, lose); del thing\n"
        "    import time; time.sleep(20)\n"
        "cli._main = run\n"
        "sys.exit(cli.main(['x']))\n"
    )
    assert outcome(program) == (130, "", "")


@pytest.mark.parametrize(
    "late",
    [
        "def main():\n"
        "    sys.unraisablehook = lambda lost: cli._interrupt_again(lost)\n"
        "    thing = Thing(); kept = weakref.ref(thing, lose); del thing\n"
        "    return 0\n"
        "cli.main = main\n",
        "ignore = cli._ignore_interrupts\n"
        "def interrupted(): cli._ignore_interrupts = ignore; lose(0)\n"
        "cli._ignore_interrupts, cli.main = interrupted, lambda: 0\n",
    ],
    ids=["lost", "after main"],
)
def test_a_ctrl_c_in_the_last_moments_of_a_command_is_no_traceback(late: str) -> None:
    program = (
        "import sys, weakref, gpt_edge.cli as cli\n"
        "class Thing: pass\n"
        "def lose(_): raise KeyboardInterrupt\n"
        f"{late}"
        "sys.exit(cli.program())\n"
    )
    assert outcome(program) == (130, "", "")


def test_a_ctrl_c_that_a_library_printed_and_replaced_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(arguments: list[str]) -> int:
        sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
        raise ImportError("numpy._core.multiarray failed to import")

    monkeypatch.setattr(cli, "_run", run)
    hook = sys.excepthook
    assert cli.main(["embed"]) == 130
    assert sys.excepthook is hook
    assert capsys.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGALRM")
def test_an_alarm_of_a_lost_ctrl_c_does_not_end_a_command_that_is_done() -> None:
    program = (
        "import signal, sys, time, gpt_edge.cli as cli\n"
        "def run(arguments):\n"
        "    signal.signal(signal.SIGALRM, signal.default_int_handler)\n"
        "    signal.setitimer(signal.ITIMER_REAL, 0.2)\n"
        "    return 0\n"
        "cli._main = run\n"
        "code = cli.program()\n"
        "time.sleep(0.4)\n"
        "sys.exit(code)\n"
    )
    assert outcome(program) == (0, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGALRM")
@pytest.mark.parametrize(("place", "code"), [("import lossy", 130), ("lossy()", 0)])
def test_a_ctrl_c_that_an_import_goes_on_after_comes_again(
    place: str, code: int, tmp_path: Path
) -> None:
    """And one that a command handles comes once."""
    lossy = (
        "import signal, time\n"
        "try: signal.raise_signal(signal.SIGINT)\n"
        "except BaseException: pass\n"
        "time.sleep(0.5)\n"
    )
    (tmp_path / "lossy.py").write_text(lossy)
    program = (
        "import sys, gpt_edge.cli as cli\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        f"def lossy(): exec({lossy!r})\n"
        "def run(arguments):\n"
        f"    {place}\n"
        "    return 0\n"
        "cli._run = run\n"
        "sys.exit(cli.program())\n"
    )
    assert outcome(program) == (code, "", "")


def test_an_error_that_a_library_raises_in_place_of_ctrl_c_is_one() -> None:
    # as Python's compiler does, which imports unicodedata for a name of a character in a string
    program = (
        "import signal, sys, gpt_edge.cli as cli\n"
        "def run(arguments):\n"
        "    try: signal.raise_signal(signal.SIGINT)\n"
        "    except KeyboardInterrupt: pass\n"
        "    raise SyntaxError('unicode error')\n"
        "cli._run = run\n"
        "sys.exit(cli.program())\n"
    )
    assert outcome(program) == (130, "", "")


def test_an_error_long_after_a_ctrl_c_that_ended_nothing_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(arguments: list[str]) -> int:
        cli._note_interrupt()
        monkeypatch.setattr(cli, "AFTERMATH", 0.0)
        raise OSError("the disk is gone")

    monkeypatch.setattr(cli, "_run", run)
    assert cli.main(["chat"]) == 1
    assert capsys.readouterr().err == "error: the disk is gone\n"
