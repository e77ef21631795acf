"""Power cuts, in a model of a disk:

    python -m tests.hostile.power_loss [COMMAND ...]

Every operation of a command is recorded once and replayed. At every moment the power may fail;
then of the operations that were not flushed any part may be missing. After that the target is the
old one or the new one; and the new one, once the command has ended. Of the sets of missing
operations all are tried where there are few, else none, all, each one alone, every prefix and
random ones; see `tests/support/crash_model.py`. Needs torch.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.hostile.disk_runs import run, warm_up
from tests.hostile.writers import WRITERS, Writer, on_disk, prepared
from tests.support.crash_model import check


def replayed(writer: Writer) -> tuple[int, int, list[str]]:
    """Of one command: operations, cuts, and what was wrong."""
    with tempfile.TemporaryDirectory() as folder:
        world = prepared(writer, Path(folder))
        before = on_disk(world / "out")
        done = run(world, writer.command(world), is_recorded=True)
        assert done.code == 0, done.errors
        n_cuts, wrong = check(before, done.done, on_disk(world / "out"))
    return len(done.done), n_cuts, wrong


def main() -> int:
    """Read the options, run, print; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", choices=[*WRITERS, []])
    options = parser.parse_args()
    warm_up()
    total = 0
    print("| command | operations | power cuts | neither old nor new, or lost |")
    print("|---|---|---|---|")
    for name in options.commands or WRITERS:
        n_operations, n_cuts, wrong = replayed(WRITERS[name])
        for problem in wrong[:20]:
            print(f"  {name}: {problem}", flush=True)
        total += len(wrong)
        print(f"| {name} | {n_operations} | {n_cuts:,} | {len(wrong)} |", flush=True)
    return 1 if total else 0


if __name__ == "__main__":
    raise SystemExit(main())
