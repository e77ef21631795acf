"""Many tries of hostile bundles, with a table of what became of them:

    python -m tests.hostile.run --flips 10000 --mutants 10000 --sweep --attacks

Prints the name of each try that did not end as it should; such a try becomes an attack in
`attacks.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.hostile.attacks import ATTACKS, spoiled
from tests.hostile.attempts import Attempts
from tests.hostile.mutants import Mutant, flipped_bit, resigned, sweep


def attacks() -> Iterator[Mutant]:
    """The crafted attacks as mutants."""
    for attack in ATTACKS:
        yield Mutant(str(attack), attack.bundle, lambda out, a=attack: spoiled(a, out))  # type: ignore[misc]


def run(title: str, mutants: Iterable[Mutant], only_refused: bool) -> None:
    """Try them and print a row of the table; after Ctrl-C, of those that were tried."""
    began = time.monotonic()
    counts: Counter[str] = Counter()
    slowest = 0.0
    server = Attempts()
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        for mutant in mutants:
            out = Path(folder) / "bundle"
            mutant.write(out)
            found = server.run(out)
            counts[found.outcome] += 1
            slowest = max(slowest, found.seconds)
            if not found.is_clean or (only_refused and found.outcome != "refused"):
                print(f"  {mutant.name} ({mutant.bundle}): {found}", flush=True)
    server.close()
    columns = [counts[name] for name in ("refused", "loaded", "traceback", "killed", "hung")]
    cells = " | ".join(map(str, [sum(columns), *columns]))
    seconds = time.monotonic() - began
    print(f"| {title} | {cells} | {slowest:.2f} | {seconds:.0f} |", flush=True)


def main() -> None:
    """Read the options, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=0)
    parser.add_argument("--mutants", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--sweep", type=int, default=0, help="every n-th try of the sweep")
    parser.add_argument("--attacks", action="store_true")
    options = parser.parse_args()
    print("| tries | number | refused | loaded | traceback | killed | hung | slowest s | all s |")
    print("|---|---|---|---|---|---|---|---|---|")
    seeds = range(options.first, options.first + options.flips)
    if options.attacks:
        run("crafted attacks", attacks(), only_refused=True)
    if options.flips:
        run("flipped bits", map(flipped_bit, seeds), only_refused=True)
    if options.mutants:
        seeds = range(options.first, options.first + options.mutants)
        run("signed mutants", map(resigned, seeds), only_refused=False)
    if options.sweep:
        tries = itertools.islice(sweep(), 0, None, options.sweep)
        run("sweep over attributes and inputs", tries, only_refused=False)


if __name__ == "__main__":
    main()
