"""Commands with less and less address space:

    python -m tests.hostile.memory_limits [--limits N] [COMMAND ...]

First a command runs undisturbed, which tells the address space that it needs; then with N limits
from a tenth of that to a fifth more. Each must do its work or end with 1 and one clear line, and
leave no temporary name; never by a signal, and never with a line that calls it a fault of gpt-edge.
Below what the interpreter and its libraries need to start, their own messages are counted apart.
Commands and their worlds are those of `interrupts.py`. Needs torch.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.interrupts import COMMANDS, REPO, STRAYS, prepare
from tests.hostile.moments import names_in

CPU_SECONDS, SECONDS = 120, 3600  # longer is hung, on however busy a machine
OUTCOMES = ("done", "refused", "OpenBLAS", "unclear", "killed", "hung")


@dataclass(frozen=True)
class Ended:
    """code: negative is a signal, None hung. left: temporary names. peak: of address space."""

    code: int | None
    errors: str
    left: list[str]
    peak: int


def run(name: str, template: Path, limit: int | None = None) -> Ended:
    """A command in a copy of its world. limit: bytes of address space."""
    world = template.parent / "world"
    shutil.rmtree(world, ignore_errors=True)
    shutil.copytree(template, world)
    errors = template.parent / "errors"

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    with errors.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, str(REPO / "cli.py"), *COMMANDS[name].arguments],
            cwd=world,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stream,
            preexec_fn=limited,
        )
        deadline, peak = time.monotonic() + SECONDS, 0
        while (code := process.poll()) is None and time.monotonic() < deadline:
            if "http://" in errors.read_text():  # serve waits
                process.send_signal(signal.SIGINT)
            peak = max(peak, address_space(process.pid))
            time.sleep(0.02)
        if code is None:
            process.kill()
            process.wait()
    left = [file for file in names_in(world) if any(part in file for part in STRAYS)]
    return Ended(code, errors.read_text(), left, peak)


def address_space(process: int) -> int:
    """Bytes that a process took at its peak so far; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmPeak")), 0)


def need(name: str, template: Path) -> int:
    """Bytes of address space that an undisturbed run takes at its peak."""
    ended = run(name, template)
    assert ended.code == (130 if name == "serve" else 0), ended
    return ended.peak


def outcome(name: str, limit: int, template: Path) -> tuple[str, str]:
    """One of OUTCOMES, and what was said."""
    ended = run(name, template, limit)
    said = [line for line in ended.errors.splitlines() if line.startswith("error: ")]
    shown = " | ".join(ended.errors.strip().splitlines()[:3])[:300]
    if ended.code is None or -ended.code in (signal.SIGXCPU, signal.SIGKILL):
        return "hung", shown
    if ended.code < 0:
        return "killed", f"signal {-ended.code}: {shown}"
    if ended.left:
        return "unclear", f"left {', '.join(ended.left)}"
    if ended.code == (130 if name == "serve" else 0):
        return "done", ""
    if "OpenBLAS error" in ended.errors:  # numpy's library ends the process itself
        return "OpenBLAS", shown
    if len(said) != 1 or "fault in gpt-edge" in ended.errors or "Traceback" in ended.errors:
        return "unclear", shown
    return "refused", said[0]


def main() -> int:
    """Read the options, run, print; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limits", type=int, default=20)
    parser.add_argument("commands", nargs="*", choices=[*COMMANDS, []])
    options = parser.parse_args()
    wrong = 0
    print("| command | MiB needed | limits | done | refused | OpenBLAS | unclear | killed | hung |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in options.commands or COMMANDS:
        counts: Counter[str] = Counter()
        with tempfile.TemporaryDirectory() as folder:
            template = Path(folder) / "template"
            template.mkdir()
            prepare(template, name)
            n_bytes = need(name, template)
            for number in range(options.limits):
                share = 0.1 + 1.1 * number / (options.limits - 1)
                found, message = outcome(name, int(n_bytes * share), template)
                counts[found] += 1
                if message:
                    print(f"  {name}, {share:.0%}: {found}: {message}", flush=True)
        wrong += counts["unclear"] + counts["killed"] + counts["hung"]
        cells = [name, n_bytes >> 20, counts.total(), *(counts[key] for key in OUTCOMES)]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
