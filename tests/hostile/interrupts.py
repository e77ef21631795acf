"""Ctrl-C at random moments of every command:

    python -m tests.hostile.interrupts --tries 200 [--seed N] [COMMAND ...]

The moment is counted in CPU time of the command, from its first import to its end, so a busy
machine changes nothing. Each try is a fork of a process that has imported `gpt_edge.cli` alone. It
must end with 130, or well if it was done, say nothing, and use less than a second of CPU time after
Ctrl-C; what it writes is the old or the new afterwards, with no temporary name beside it.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpt_edge.bundle.bundle import DEFAULT_BUNDLE
from gpt_edge.cli import program

REPO = Path(__file__).resolve().parents[2]
CPU_CLOCK = 2  # CLOCK_PROCESS_CPUTIME_ID of linux/time.h
ALLOWED_SECONDS = 1.0
WALL_SECONDS = 300
TINY = str(REPO / "tests" / "golden" / "tiny-edge")
STRAYS = (".lock", ".tmp-", ".old-")
COMMANDS: dict[str, list[str]] = {
    "inspect": ["inspect"],
    "tokenize": ["tokenize", "abc"],
    "generate": ["generate", "Once", "-n", "40"],
    "generate --batch": ["generate", "-m", TINY, "--batch", "prompts", "--greedy", "--out", "r"],
    "generate --prompt-cache": ["generate", "-m", TINY, "a cat", "--prompt-cache", "state"],
    "chat": ["chat", "-m", TINY, "--max-new-tokens", "8"],
    "classify": ["classify", "sentiment-6m-int8", "a good film"],
    "embed": ["embed", DEFAULT_BUNDLE, "abc", "--out", "vectors.npy"],
    "verify": ["verify", TINY],
    "diff": ["diff", TINY, str(REPO / "tests" / "golden" / "tiny-portable"), "a cat"],
    "eval --resume": ["eval", TINY, "text", "--resume", "state.json"],
    "native": ["native"],
    "web": ["web", TINY, "--out", "site"],
    "export": ["export", "checkpoint", "out", "--scheme", "fp32"],
    "quantize": ["quantize", TINY, "out", "--scheme", "int8", "--accept-parity"],
}


@dataclass(frozen=True)
class Ended:
    """How a command ended. code: negative is a signal. seconds: of CPU time."""

    code: int
    errors: str
    seconds: float


class Timer(ctypes.Structure):
    """struct itimerspec of time.h."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "in_s", "in_ns")]


def send_sigint_after(seconds: float) -> None:
    """Let the system send SIGINT to this process when it has used so much CPU time from now on."""
    library = ctypes.CDLL(None, use_errno=True)
    event = (ctypes.c_int * 16)()  # struct sigevent: a value, the signal, by a signal
    event[2] = signal.SIGINT
    timer = ctypes.c_void_p()
    if library.timer_create(CPU_CLOCK, event, ctypes.byref(timer)):
        raise OSError(ctypes.get_errno(), "timer_create")
    spec = Timer(0, 0, int(seconds), max(1, int(seconds % 1 * 1e9)))
    if library.timer_settime(timer, 0, ctypes.byref(spec), None):
        raise OSError(ctypes.get_errno(), "timer_settime")


def run(arguments: list[str], world: Path, seconds: float | None) -> Ended:
    """A command in a fork, interrupted after so much CPU time; its end is Python's own."""
    errors = world.parent / "errors"
    child = os.fork()
    if child == 0:
        os.chdir(world)
        for number, path in ((0, os.devnull), (1, os.devnull), (2, str(errors))):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(WALL_SECONDS)
        if seconds is not None:
            send_sigint_after(seconds)
        raise Leave(arguments)
    _, status, usage = os.wait4(child, 0)
    used = usage.ru_utime + usage.ru_stime
    return Ended(os.waitstatus_to_exitcode(status), errors.read_text(), used)


class Leave(BaseException):
    """Carries a fork's arguments out of all that this script does."""


def problem(ended: Ended, seconds: float, world: Path) -> str:
    """What is wrong; nothing if it is empty."""
    said = [line for line in ended.errors.splitlines() if line.startswith(("error: ", "Traceback"))]
    if ended.code not in (0, 130) or said:
        return f"exit code {ended.code}, {ended.errors[-400:]!r}"
    if ended.code == 130 and ended.seconds - seconds > ALLOWED_SECONDS:
        return f"{ended.seconds - seconds:.1f} s of CPU time after Ctrl-C"
    left = [str(path) for path in world.rglob(".*") if any(part in path.name for part in STRAYS)]
    return f"left {', '.join(left)}" if left else ""


def prepare(world: Path, make_checkpoint: Callable[[Path], object] | None) -> None:
    """What commands read."""
    (world / "prompts").write_text('{"prompt": "a"}\n{"prompt": "the"}\n' * 3)
    (world / "text").write_text("A cat ran to the sea. " * 20)
    if make_checkpoint is not None:
        make_checkpoint(world / "checkpoint")


def try_command(name: str, n_tries: int, seed: int) -> tuple[str, list[str]]:
    """A row of the table, and what was wrong."""
    draw = random.Random(f"{name} {seed}")
    wrong: list[str] = []
    codes = []
    slowest = 0.0
    folder = tempfile.mkdtemp()  # no with-block: forks leave this function too
    world = Path(folder) / "world"
    template = Path(folder) / "template"
    template.mkdir()
    prepare(template, _saved if name == "export" else None)
    shutil.copytree(template, world)
    whole = run(COMMANDS[name], world, None)
    assert whole.code == 0, whole
    for _ in range(n_tries):
        shutil.rmtree(world)
        shutil.copytree(template, world)
        seconds = draw.random() * whole.seconds * 1.02
        ended = run(COMMANDS[name], world, seconds)
        codes.append(ended.code)
        if ended.code == 130:
            slowest = max(slowest, ended.seconds - seconds)
        if found := problem(ended, seconds, world):
            wrong.append(f"{name} after {seconds:.4f} s: {found}")
    shutil.rmtree(folder)
    counts = [codes.count(130), codes.count(0), len(wrong)]
    cells = [name, n_tries, *counts, f"{whole.seconds:.2f}", f"{slowest:.2f}"]
    return f"| {' | '.join(map(str, cells))} |", wrong


def _saved(folder: Path) -> None:
    """A tiny checkpoint, made in a process of its own: this one does not import torch."""
    program = (
        "import sys; from pathlib import Path; from tests.support import finetune_factory as made; "
        "made.make_checkpoint(Path(sys.argv[1]), made.LARGER)"
    )
    code = os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", program, str(folder)])
    assert code == 0


def main() -> int:
    """Read the options, run, print; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("commands", nargs="*", choices=[*COMMANDS, []])
    options = parser.parse_args()
    total = 0
    print("| command | tries | 130 | done before | wrong | CPU s | most CPU s after Ctrl-C |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in options.commands or COMMANDS:
        row, wrong = try_command(name, options.tries, options.seed)
        for found in wrong:
            print(f"  {found}", flush=True)
        total += len(wrong)
        print(row, flush=True)
    return 1 if total else 0


if __name__ == "__main__":
    try:
        code = main()
    except Leave as leaving:
        sys.argv[1:] = leaving.args[0]
    else:
        raise SystemExit(code)
    sys.exit(program())
