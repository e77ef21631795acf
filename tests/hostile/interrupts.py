"""Ctrl-C at random moments of every command:

    python -m tests.hostile.interrupts --tries 200 [--seed N] [--results FOLDER] [COMMAND ...]

The moment is counted in CPU time of the command, from its first import to its end, so a busy
machine changes nothing. Each run of a command is a fork of a process that has imported
`gpt_edge.cli` alone, and serves many moments: see `moments.py`. It must end with 130, or well if it
was done, say nothing, and use less than a second of CPU time after Ctrl-C; what it writes is the
old or the new afterwards, with no temporary name beside it. `serve` is a process of its own for
each moment, as it has threads. With --results each moment is written down when it is over.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from gpt_edge.bundle.bundle import DEFAULT_BUNDLE
from gpt_edge.cli import program
from tests.hostile.moments import Ended, Moments, names_in

REPO = Path(__file__).resolve().parents[2]
CPU_CLOCK = 2  # CLOCK_PROCESS_CPUTIME_ID of linux/time.h
ALLOWED_SECONDS = 1.0
WALL_SECONDS = 3600
IDLE_SECONDS = 1.0
A_RUN = 40  # moments of one run of a command; more would fall together
TINY = str(REPO / "tests" / "golden" / "tiny-edge")
PORTABLE = str(REPO / "tests" / "golden" / "tiny-portable")
STRAYS = (".lock", ".tmp-", ".old-")
FINETUNE = [
    *["finetune", "--task", "classification", "--data", "train.tsv", "--dev", "dev.tsv"],
    *["--checkpoint", "checkpoint", "--epochs", "2", "--batch", "12", "--threads", "1"],
]


@dataclass(frozen=True)
class Command:
    """arguments: of gpt-edge. has_steps: whether it writes its files one after the other."""

    arguments: list[str]
    has_steps: bool = False


COMMANDS = {
    "inspect": Command(["inspect"]),
    "tokenize": Command(["tokenize", "abc"]),
    "generate": Command(["generate", "Once", "-n", "40"]),
    "generate --batch": Command(
        ["generate", "-m", TINY, "--batch", "prompts", "--greedy", "--out", "r"], has_steps=True
    ),
    "generate --prompt-cache": Command(["generate", "-m", TINY, "a cat", "--prompt-cache", "s"]),
    "chat": Command(["chat", "-m", TINY, "--max-new-tokens", "8"]),
    "classify": Command(["classify", "sentiment-6m-int8", "a good film"]),
    "embed": Command(["embed", DEFAULT_BUNDLE, "abc", "--out", "vectors.npy"]),
    "verify": Command(["verify", TINY]),
    "diff": Command(["diff", TINY, PORTABLE]),
    "eval --resume": Command(["eval", TINY, "text", "--resume", "state.json"], has_steps=True),
    "bench": Command(["bench", TINY, "-p", "16", "-n", "8", "-r", "1"]),
    "native": Command(["native"]),
    "web": Command(["web", TINY, "--out", "site"]),
    "calibrate": Command(["calibrate", "sentiment-6m-int8", "labelled.tsv", "--out", "out"]),
    "report": Command(["report", TINY, "--tokens", "64", "--out", "report.html"]),
    "quantize": Command(["quantize", TINY, "out", "--scheme", "int8", "--accept-parity"]),
    "export": Command(["export", "checkpoint", "out", "--scheme", "fp32"]),
    "train": Command(["train", "recipe.toml"], has_steps=True),
    "finetune": Command([*FINETUNE, "--out", "run"], has_steps=True),
    "serve": Command(["serve", TINY, "--port", "0"]),
}
GO_ON = ("chat",)  # with the next turn
OF_TORCH = ("export", "train", "finetune")


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


def run(
    name: str, world: Path, moments: Moments | None = None, seconds: float | None = None
) -> Ended:
    """A command in a fork; its end is Python's own. seconds: of CPU time, to Ctrl-C; a server that
    waits for requests gets it at once.
    """
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
        if moments is not None:
            moments.begin()
        raise Leave(COMMANDS[name].arguments)
    used = interrupt_when_idle(child) if name == "serve" else 0.0
    _, status, usage = os.wait4(child, 0)
    used = usage.ru_utime + usage.ru_stime - min(seconds or 0.0, used or 1e9)
    code = os.waitstatus_to_exitcode(status)
    return Ended(code, errors.read_text(), used, "", names_in(world))


def interrupt_when_idle(child: int) -> float:
    """Send SIGINT to a process that has ended or waits, and return its CPU time."""
    used, since = cpu_seconds(child), time.monotonic()
    while time.monotonic() - since < IDLE_SECONDS:
        time.sleep(0.05)
        if cpu_seconds(child) != used:
            used, since = cpu_seconds(child), time.monotonic()
    os.kill(child, signal.SIGINT)
    return abs(used)


def cpu_seconds(child: int) -> float:
    """Of a process; below 0 while it could go on."""
    state, *numbers = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    used = (int(numbers[10]) + int(numbers[11])) / os.sysconf("SC_CLK_TCK")
    return used if state in "SZ" else -used - time.monotonic()


class Leave(BaseException):
    """Carries a fork's arguments out of all that this script does."""


@dataclass(frozen=True)
class Whole:
    """An undisturbed run: its CPU time, and the names before and after."""

    seconds: float
    before: set[str]
    after: set[str]


def problem(name: str, ended: Ended, whole: Whole) -> str:
    """What is wrong; nothing if it is empty."""
    said = [line for line in ended.errors.splitlines() if line.startswith(("error: ", "Traceback"))]
    if ended.code not in (0, 130) or said:
        return f"exit code {ended.code}, {ended.errors[-600:]!r}"
    if ended.code == 0 and not ended.was_done and name not in GO_ON:
        return "Ctrl-C is lost"
    if ended.code == 130 and ended.seconds > ALLOWED_SECONDS:
        return f"{ended.seconds:.1f} s of CPU time after Ctrl-C"
    strays = [file for file in ended.files if any(part in file for part in STRAYS)]
    if strays:
        return f"left {', '.join(strays)}"
    is_old_or_new = set(ended.files) in (whole.before, whole.after)
    if not COMMANDS[name].has_steps and not is_old_or_new:
        return f"neither the old nor the new: {sorted(set(ended.files) - whole.before)}"
    return ""


def prepare(world: Path, name: str) -> None:
    """What commands read."""
    (world / "prompts").write_text('{"prompt": "a"}\n{"prompt": "the"}\n' * 3)
    (world / "text").write_text("A cat ran to the sea. " * 20)
    rows = "a good film\tpositive\na bad film\tnegative\n" * 4
    (world / "labelled.tsv").write_text("text\tlabel\n" + rows)
    if name in OF_TORCH:  # made in a process of its own: this one does not import torch
        program = (
            "import sys; from pathlib import Path; from tests.hostile.writers import trainings; "
            "trainings(Path(sys.argv[1]))"
        )
        made = [sys.executable, "-c", program, str(world)]
        assert os.spawnv(os.P_WAIT, sys.executable, made) == 0


def ends(name: str, n_tries: int, draw: random.Random, place: Path, results: Path) -> Whole:
    """Try a command; `results` gets the ends."""
    template, world = place / "template", place / "world"
    template.mkdir()
    prepare(template, name)
    shutil.copytree(template, world)
    begun = run(name, world)
    assert begun.code == (130 if name == "serve" else 0), begun
    whole = Whole(begun.seconds, set(names_in(template)), set(names_in(world)))
    n_runs = 0
    while (n_done := len(read(results))) < n_tries:
        n_runs += 1
        assert n_runs < n_tries + 10, "no moment comes"
        shutil.rmtree(world)
        shutil.copytree(template, world)
        n_moments = min(A_RUN, n_tries - n_done)  # those behind the end do not come
        seconds = sorted(draw.random() * whole.seconds for _ in range(n_moments))
        if name == "serve":
            ended = run(name, world, seconds=seconds[0])
            with results.open("a") as stream:
                stream.write(json.dumps(asdict(ended)) + "\n")
        else:
            begun = run(name, world, Moments(world, seconds, results))
            # a moment behind Python's end is none, and ends the process
            assert begun.code in (0, -signal.SIGPROF), begun
    return whole


def read(results: Path) -> list[Ended]:
    """The ends so far."""
    lines = results.read_text().splitlines() if results.exists() else []
    return [Ended(**json.loads(line)) for line in lines]


def try_command(name: str, n_tries: int, seed: int, results: Path) -> tuple[str, list[str]]:
    """A row of the table, and what was wrong. results: a folder."""
    draw = random.Random(f"{name} {seed}")
    place = Path(tempfile.mkdtemp())  # no with-block: forks leave this function too
    file = results / f"{name}.jsonl"
    whole = ends(name, n_tries, draw, place, file)
    found = read(file)
    shutil.rmtree(place)
    problems = [(ended, problem(name, ended, whole)) for ended in found]
    wrong = [f"{name} at {ended.where}: {what}" for ended, what in problems if what]
    codes = [ended.code for ended in found]
    slowest = max((ended.seconds for ended in found if ended.code == 130), default=0.0)
    counts = [len(found), codes.count(130), codes.count(0), len(wrong)]
    cells = [name, *counts, f"{whole.seconds:.2f}", f"{slowest:.2f}"]
    return f"| {' | '.join(map(str, cells))} |", wrong


def main() -> int:
    """Read the options, run, print; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, help="folder of ends so far; added to")
    parser.add_argument("commands", nargs="*", choices=[*COMMANDS, []])
    options = parser.parse_args()
    results = options.results or Path(tempfile.mkdtemp())
    results.mkdir(exist_ok=True)
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # threads do not come along in a fork
    total = 0
    print("| command | tries | 130 | done before | wrong | CPU s | most CPU s after Ctrl-C |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in options.commands or COMMANDS:
        row, wrong = try_command(name, options.tries, options.seed, results)
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
