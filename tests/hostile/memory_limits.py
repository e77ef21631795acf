"""Commands with less and less address space:

    python -m tests.hostile.memory_limits [--step MIB] [COMMAND ...]

Each must do its work or end with 1 and one clear line; never by a signal, and never with a line
that calls it a fault of gpt-edge. Below what the interpreter and its libraries need to start, their
own messages are counted apart.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path

from gpt_edge.bundle.bundle import DEFAULT_BUNDLE

REPO = Path(__file__).resolve().parents[2]
TINY = str(REPO / "tests" / "golden" / "tiny-edge")
PORTABLE = str(REPO / "tests" / "golden" / "tiny-portable")
TEXT = str(REPO / "LICENSE")
COMMANDS = {
    "inspect": ["inspect"],
    "tokenize": ["tokenize", "abc"],
    "generate": ["generate", "-m", TINY, "a cat", "-n", "4"],
    "generate built-in": ["generate", "Once", "-n", "4"],
    "classify": ["classify", "sentiment-6m-int8", "a good film"],
    "verify": ["verify", TINY],
    "embed": ["embed", DEFAULT_BUNDLE, "a cat"],
    "eval": ["eval", TINY, TEXT],
    "bench": ["bench", TINY, "-p", "8", "-n", "4", "-r", "1"],
    "diff": ["diff", TINY, PORTABLE],
    "chat": ["chat", "-m", TINY, "--max-new-tokens", "4"],
    "native": ["native"],
}
HANGS = 120


def outcome(arguments: list[str], mebibytes: int) -> tuple[str, str]:
    """done, refused, OpenBLAS, unclear, killed or hung; and the last line of standard error."""
    limit = mebibytes << 20
    command = [sys.executable, str(REPO / "cli.py"), *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=HANGS,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        )
    except subprocess.TimeoutExpired:
        return "hung", ""
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    shown = " | ".join(done.stderr.strip().splitlines()[:3])[:300]
    if done.returncode == 0:
        return "done", ""
    if done.returncode < 0:
        return "killed", f"signal {-done.returncode}: {shown}"
    if "OpenBLAS error" in done.stderr:  # numpy's library ends the process itself
        return "OpenBLAS", shown
    if len(said) != 1 or "fault in gpt-edge" in done.stderr or "Traceback" in done.stderr:
        return "unclear", shown
    return "refused", said[0]


def main() -> int:
    """Read the options, run, print; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=60, help="MiB")
    parser.add_argument("--last", type=int, default=700, help="MiB")
    parser.add_argument("--step", type=int, default=20, help="MiB")
    parser.add_argument("commands", nargs="*", choices=[*COMMANDS, []])
    options = parser.parse_args()
    wrong = 0
    print("| command | limits | done | refused | OpenBLAS | unclear | killed | hung |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.commands or COMMANDS:
        counts: Counter[str] = Counter()
        for mebibytes in range(options.first, options.last, options.step):
            found, message = outcome(COMMANDS[name], mebibytes)
            counts[found] += 1
            if message:
                print(f"  {name}, {mebibytes} MiB: {found}: {message}", flush=True)
        wrong += counts["unclear"] + counts["killed"] + counts["hung"]
        cells = [
            counts[key] for key in ("done", "refused", "OpenBLAS", "unclear", "killed", "hung")
        ]
        print(f"| {name} | {counts.total()} | {' | '.join(map(str, cells))} |", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
