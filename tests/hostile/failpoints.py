"""A fault at every operation of every command that writes:

    python -m tests.hostile.failpoints [--every N] [--results FILE] [COMMAND ...]

Afterwards the target is the old one or the new one, nothing of ours lies around, the message is one
clear line, and the same command run again comes to the result of an undisturbed one. After `death`,
which is `_exit`, temporary names may lie around until that next run. Method: SQLite's tests, which
fail the first, second, … operation. With --results each try is written down when it is done, and
one that stands there is not made again, so a sweep may end at any moment and go on later; points
come in random order, so that a part of them is a fair one. Needs torch.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.hostile.disk_runs import Outcome, Rungs, import_here, run, warm_up
from tests.hostile.moments import can_isolate
from tests.hostile.writers import WRITERS, Writer, on_disk, prepared, strays
from tests.support.crash_model import Tree, check
from tests.support.disk_operations import KINDS, REMOVES, fault_at

# the others publish as these do, and take seconds
SAMPLED = (
    "export --force",
    "finetune",
    "eval --resume",
    "generate --batch",
    "generate --prompt-cache",
    "embed",
    "native build",
)


A_RUN = 100  # points of one run of a command


@dataclass
class Found:
    """Of one command: tries by what became of the target, and what was wrong."""

    name: str
    n_operations: int
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Sweep:
    """One command in its world."""

    def __init__(self, writer: Writer, folder: Path) -> None:
        self.writer = writer
        self.world = prepared(writer, folder / "world")
        self.out = self.world / "out"
        self.template = folder / "template"
        shutil.copytree(self.out, self.template)
        self.old = writer.result(self.out)
        self.before: Tree = on_disk(self.out)
        done = run(self.world, writer.command(self.world), is_recorded=True)
        assert done.code == 0, done.errors
        self.new = writer.result(self.out)
        assert self.new != self.old
        self.operations = done.tried
        self.done = done.done
        self.after: Tree = on_disk(self.out)
        import_here(done.modules)

    def reset(self) -> None:
        """The world before the command."""
        shutil.rmtree(self.out)
        shutil.copytree(self.template, self.out)

    def attempt(self, index: int, kind: str) -> tuple[str, list[str]]:
        """Old, new or between, and what is wrong."""
        self.reset()
        outcome = run(self.world, self.writer.command(self.world), fault_at(index, kind))
        return self._judged(index, kind, outcome)

    def attempts(self, points: list[tuple[int, str]]) -> Iterator[tuple[str, list[str]]]:
        """Of each point what `attempt` returns; one run of the command that forks there."""
        self.reset()
        with tempfile.TemporaryDirectory() as folder:
            rungs = Rungs(points, self.out, Path(folder))
            done = run(self.world, self.writer.command(self.world), rungs)
            assert done.code == 0, done.errors
            for index, kind in points:
                outcome, out = rungs.end(index, kind)
                shutil.rmtree(self.out)
                out.rename(self.out)
                yield self._judged(index, kind, outcome)

    def _judged(self, index: int, kind: str, outcome: Outcome) -> tuple[str, list[str]]:
        wrong = [outcome.problem] if outcome.problem else []
        wrong += self._left(outcome, index, kind)
        found, problem = self._target()
        wrong += [problem] if problem else []
        if outcome.code == 0 and found != "new":
            wrong.append(f"exit code 0, but the target is {found}")
        if outcome.code in (0, 1, 130) and found != "a step" and not strays(self.out):
            return found, wrong  # as before a run, or after one
        return found, [*wrong, *self._next_run(found)]

    def _left(self, outcome: Outcome, index: int, kind: str) -> list[str]:
        removal = index < len(self.operations) and self.operations[index].name in REMOVES
        if outcome.code not in (0, 1, 130) or (removal and kind == "broken disk"):
            return []
        left = strays(self.out)
        return [f"left {', '.join(left)}"] if left else []

    def _target(self) -> tuple[str, str]:
        try:
            found = self.writer.result(self.out)
            if found == self.old or not found:
                lost = bool(self.old) and not found
                return "old", "the old one is gone" if lost else ""
            if found == self.new:
                return "new", ""
        except Exception as error:
            if self.writer.check_between is None:
                return "between", f"{type(error).__name__}: {error}"
        if self.writer.check_between is None:
            return "between", "neither old nor new"
        try:
            self.writer.check_between(self.out, self.new)
        except Exception as error:
            return "between", f"{type(error).__name__}: {error}"
        return "a step", ""

    def _next_run(self, found: str) -> list[str]:
        again = self.writer.again or self.writer.command
        done = run(self.world, again(self.world))
        if done.code != 0:
            return [f"the next run: exit code {done.code}, {done.errors[-300:]!r}"]
        # a run that finds the new one may go on from it
        is_same = found == "new" or self.writer.result(self.out) == self.new
        wrong = [] if is_same else ["the next run differs"]
        left = strays(self.out)
        return [*wrong, f"the next run left {', '.join(left)}"] if left else wrong


def points(sweep: Sweep, every: int) -> Iterator[tuple[int, str]]:
    """Every n-th point of a command: operations, and the kinds that can befall them."""
    number = 0
    for index, operation in enumerate(sweep.operations):
        for kind in KINDS:
            if kind == "short write" and operation.name != "write":
                continue
            if kind.startswith("full") and operation.name in REMOVES:
                continue
            if number % every == 0:
                yield index, kind
            number += 1


def try_all(writer: Writer, every: int = 1, results: Path | None = None) -> Found:
    """Every n-th point of one command. results: a file of tries, see above."""
    done = _read(results, writer.name) if results is not None else {}
    with tempfile.TemporaryDirectory() as folder:
        sweep = Sweep(writer, Path(folder))
        found = Found(writer.name, len(sweep.operations))
        order = list(points(sweep, every))
        random.Random(writer.name).shuffle(order)
        missing = [point for point in order if point not in done]
        for point, end in zip(missing, _ends(sweep, missing), strict=True):
            done[point] = end
            if results is not None:
                _append(results, [writer.name, *point, *end])
        for index, kind in order:
            what, wrong = done[index, kind]
            found.counts[what] += 1
            label = f"{writer.name}, {kind} at {index}, {sweep.operations[index]}"
            found.wrong += [f"{label}: {problem}" for problem in wrong]
    return found


def _ends(sweep: Sweep, order: list[tuple[int, str]]) -> Iterator[tuple[str, list[str]]]:
    if not can_isolate():
        yield from (sweep.attempt(index, kind) for index, kind in order)
        return
    for begin in range(0, len(order), A_RUN):
        yield from sweep.attempts(order[begin : begin + A_RUN])


def _read(results: Path, name: str) -> dict[tuple[int, str], tuple[str, list[str]]]:
    """What became of the tries of a command that stand in the file, by their points."""
    lines = results.read_text("utf-8").splitlines() if results.exists() else []
    tries = [json.loads(line) for line in lines]
    return {(index, kind): (what, wrong) for of, index, kind, what, wrong in tries if of == name}


def _append(results: Path, row: list[object]) -> None:
    with results.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")


def sample() -> None:
    """One or two faults and some power cuts of some commands; prints what is wrong."""
    warm_up()
    for name in SAMPLED:
        writer = WRITERS[name]
        draw = random.Random(writer.name)
        with tempfile.TemporaryDirectory() as folder:
            sweep = Sweep(writer, Path(folder))
            _, problems = check(sweep.before, sweep.done, sweep.after)
            chosen = draw.sample(list(points(sweep, 1)), 1 if len(sweep.operations) > 100 else 2)
            for index, kind in chosen:
                _, wrong = sweep.attempt(index, kind)
                problems += [f"{kind} at {index}: {problem}" for problem in wrong]
        for problem in problems:
            print(f"{writer.name}: {problem}", flush=True)


def main() -> int:
    """Read the options, run, print; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="every n-th point")
    parser.add_argument("--results", type=Path, help="tries so far, as JSON lines; added to")
    parser.add_argument("commands", nargs="*", choices=[*WRITERS, []])
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # threads do not come along in a fork
    warm_up()
    wrong = 0
    print("| command | operations | faults | old | new | between two steps | wrong | CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.commands or WRITERS:
        began = sum(os.times()[:4])
        found = try_all(WRITERS[name], options.every, options.results)
        for problem in found.wrong:
            print(f"  {problem}", flush=True)
        wrong += len(found.wrong)
        counts = [found.counts[key] for key in ("old", "new", "a step")]
        cells = [name, found.n_operations, found.counts.total(), *counts, len(found.wrong)]
        seconds = sum(os.times()[:4]) - began
        print(f"| {' | '.join(map(str, cells))} | {seconds:.0f} |", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
