"""What only a process of its own can show: signals, closed pipes, full disks, two at once, and a
clean terminal.
"""

from __future__ import annotations

import os
import pty
import resource
import select
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.support.runner import COMMAND, EXPORT_COMMAND, listing
from tests.support.warm_process import PATIENCE, WarmProcess


def start(*arguments: str | Path, **options: object) -> subprocess.Popen[str]:
    """The command in a process that hears Ctrl-C, which a test run in the background would teach it
    to ignore.
    """
    given = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    }
    return subprocess.Popen([*COMMAND, *map(str, arguments)], **given)  # type: ignore[call-overload, no-any-return]


def wait_for(folder: Path, pattern: str) -> None:
    """Until a name appears in `folder`."""
    deadline = time.monotonic() + PATIENCE
    while not list(folder.glob(pattern)):
        assert time.monotonic() < deadline, f"{pattern} never appeared"
        time.sleep(0.01)


# `gpt-edge`, which waits before each trace.
SLOWLY = """
import sys, time
import torch
from tests.support.traces import share_traces
share_traces()

def export(*arguments, original=torch.onnx.export, **options):
    time.sleep({seconds})
    return original(*arguments, **options)

torch.onnx.export = export
from gpt_edge.cli import main
sys.exit(main())
"""

# An export that presses Ctrl-C itself, once the statement in braces is reached.
INTERRUPTED_EXPORT = """
import os, signal, sys
import torch
{imports}

def interrupt(*arguments, original={function}, **options):
    if {condition}:
        os.kill(os.getpid(), signal.SIGINT)
    return original(*arguments, **options)

{function} = interrupt
from gpt_edge.cli import main
sys.exit(main())
"""
MOMENTS = {
    "tracing": {
        "imports": "from gpt_edge.reference.model import GPT",
        "function": "GPT.embed",
        "condition": "torch.compiler.is_exporting()",
    },
    "writing weights": {
        "imports": "from tests.support.traces import share_traces; share_traces()\n"
        "from gpt_edge.export.weights.data_file import WeightsFile",
        "function": "WeightsFile.add",
        "condition": "arguments[1] == 'ln_f.bias'",
    },
}


def test_ctrl_c_during_an_export_leaves_nothing_and_exits_with_130(
    checkpoint: Path, tmp_path: Path
) -> None:
    program = SLOWLY.format(seconds=PATIENCE)  # a busy machine may be late with the signal
    process = WarmProcess(program, "export", checkpoint, tmp_path / "deep" / "out")
    wait_for(tmp_path, "deep/.out.tmp-*")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(PATIENCE)
    assert (process.returncode, out, err) == (130, "", "")
    assert listing(tmp_path) == {}


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_at_a_named_moment_of_an_export_leaves_nothing_and_exits_with_130(
    moment: str, checkpoint: Path, tmp_path: Path
) -> None:
    program = INTERRUPTED_EXPORT.format(**MOMENTS[moment])
    process = WarmProcess(program, "export", checkpoint, tmp_path / "deep" / "out")
    out, err = process.communicate(PATIENCE)
    assert (process.returncode, out, err) == (130, "", "")
    assert listing(tmp_path) == {}


def test_next_to_nothing_is_imported_before_ctrl_c_can_be_caught() -> None:
    """Earlier, the interpreter ends with a traceback. Without site, which may have imported
    anything already.
    """
    code = "import sys; sys.path.insert(0, sys.argv[1]); import gpt_edge.cli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-ISc", code, str(REPO)], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "gpt_edge.cli" in loaded
    assert not loaded & {
        "typing",
        "collections",
        "re",
        "enum",
        "json",
        "importlib",
        "warnings",
        "traceback",
        "typer",
    }


@pytest.mark.parametrize(
    ("module", "raised"),
    [
        ("support.console", "KeyboardInterrupt"),
        # Until Python 3.12, what `__set_name__` raises while a class is made becomes the cause of a
        # RuntimeError.
        ("app", "RuntimeError('Error calling __set_name__') from KeyboardInterrupt()"),
    ],
    ids=["as it is", "wrapped"],
)
def test_ctrl_c_while_modules_are_imported_exits_with_130(module: str, raised: str) -> None:
    """What a signal does there, at a place that can be named."""
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name == 'gpt_edge.cli.{module}':\n"
        f"            raise {raised}\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from gpt_edge.cli import main\n"
        "sys.exit(main(['--help']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_while_reading_a_prompt_exits_with_130_and_ends_the_line_on_a_terminal(
    tiny_edge: Path,
) -> None:
    controller, terminal = pty.openpty()
    process = start("generate", "-", "-m", tiny_edge, stdin=subprocess.PIPE, stderr=terminal)
    os.close(terminal)
    _wait_until_blocked(process.pid)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    assert select.select([controller], [], [], PATIENCE)[0]
    assert os.read(controller, 100) == b"\r\n"
    os.close(controller)
    process.communicate()


def _wait_until_blocked(pid: int) -> None:
    """Until the process sleeps in a read of its standard input."""
    deadline = time.monotonic() + PATIENCE
    while not Path(f"/proc/{pid}/syscall").read_text().startswith("0 0x0 "):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_reader_that_went_away_ends_it_quietly(tiny_edge: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = start("generate", "hi", "-m", tiny_edge, stdout=writer)
    os.close(writer)
    assert (process.communicate(timeout=PATIENCE)[1], process.returncode) == ("", 141)


def test_head_takes_its_20_bytes(tiny_edge: Path) -> None:
    command = f"'{COMMAND[0]}' -c '{COMMAND[2]}' generate hi -m '{tiny_edge}' -n 50 | head -c 20"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, timeout=PATIENCE, check=True
    )
    assert (len(done.stdout), done.stderr) == (20, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_under_standard_output_is_one_line(tiny_edge: Path) -> None:
    with open("/dev/full", "w") as full:
        process = start("tokenize", "hi", "-m", tiny_edge, stdout=full)
        _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (1, "error: No space left on device\n")


def test_a_closed_standard_output_is_one_line(tiny_edge: Path) -> None:
    command = f"'{COMMAND[0]}' -c '{COMMAND[2]}' tokenize hi -m '{tiny_edge}' >&-"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (1, "error: standard output is closed\n")


@pytest.mark.usefixtures("exported")  # whose trace is there, and need not be written
def test_an_export_onto_a_full_disk_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    limit = 20_000  # bytes in a file: less than half of the weights
    process = WarmProcess(
        EXPORT_COMMAND[2],
        *("export", checkpoint, tmp_path / "out", "--scheme", "fp32"),
        before=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit)),
    )
    out, err = process.communicate(PATIENCE)
    lines = err.splitlines()
    assert (process.returncode, out) == (1, ""), err
    assert lines[0].startswith(f"error: cannot write {tmp_path / 'out'}: File too large; ")
    assert [line.partition(":")[0] for line in lines] == ["error", "hint"]
    assert listing(tmp_path) == {}


@pytest.mark.every_core
def test_of_two_exports_at_once_one_is_made_and_the_other_says_why_not(
    checkpoint: Path, tmp_path: Path
) -> None:
    arguments = ("export", checkpoint, tmp_path / "out", "--scheme", "fp32")
    both = [WarmProcess(EXPORT_COMMAND[2], *arguments) for _ in range(2)]
    ends = [process.communicate(timeout=PATIENCE) for process in both]
    assert sorted(process.returncode for process in both) == [0, 1]
    loser = next(end for end, process in zip(ends, both, strict=True) if process.returncode == 1)
    assert loser[0] == ""
    assert loser[1].startswith(f"error: {tmp_path / 'out'} ")
    assert "busy" in loser[1] or "exists" in loser[1]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (
        start("generate", "hi", "-m", tmp_path / "out", "-n", "3").communicate(timeout=PATIENCE)[1]
        == ""
    )


def test_progress_is_shown_on_a_terminal_and_gone_at_the_end(
    tiny_edge: Path, tmp_path: Path
) -> None:
    controller, terminal = pty.openpty()
    process = WarmProcess(
        SLOWLY.format(seconds=1),  # in which a stage is drawn a dozen times
        *("quantize", tiny_edge, tmp_path / "out", "--scheme", "int8"),
        stderr=terminal,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(terminal)
    shown = b""
    while select.select([controller], [], [], PATIENCE)[0]:
        try:
            shown += os.read(controller, 4096)
        except OSError:  # the other side is closed
            break
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "fp32 against int8" in out
    assert b"building the int8 graph" in shown
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")  # the cursor is back
    assert shown.endswith(b"\x1b[2K")  # and the line empty
