"""Change the code a little, and see whether a test fails: mutants of what runs a bundle.

`python scripts/mutants.py` tries the mutants of every file of SCOPE (see mutant_making.py) in an
order drawn with `--seed`, so that a run that was stopped is a fair sample, each against those tests
of its folder that run its statement (see mutant_server.py), and writes
benchmarks/results/mutants.md. Outcomes are kept in `--results`: a later run goes on from there, and
`--again` tries those that stayed alive and are not explained once more, longer, and `--wider` also
against those of WIDER that run the statement. `--only WORD …` keeps files whose path holds a word,
`--minutes M` ends it.
What stayed alive and cannot be seen by a caller is explained, with the line that it changes, in
scripts/mutants_explained.tsv.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from scripts.mutant_making import Mutant, digest_of, mutants_of  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "mutants.md"
EXPLAINED = ROOT / "scripts" / "mutants_explained.tsv"
ARGUMENTS = "tests/hostile/test_api_arguments.py"
OWN_OF_GATE, READERS = "tests/unit/bundle/gate", "tests/hostile/test_fast_readers.py"
# files of the package: the tests that must see what is wrong with them; a later entry counts
SCOPE = {
    "gpt_edge/runtime": (
        "tests/unit/runtime",
        "tests/unit/generate",
        "tests/unit/classify",
        ARGUMENTS,
    ),
    "gpt_edge/generate": ("tests/unit/generate", ARGUMENTS),
    "gpt_edge/tokenizer": ("tests/unit/tokenizer",),
    "gpt_edge/bundle": ("tests/unit/bundle",),
    "gpt_edge/bundle/gate": (OWN_OF_GATE, "tests/hostile/test_attacks.py"),
    "gpt_edge/bundle/onnx_wire.py": (OWN_OF_GATE, READERS),
    "gpt_edge/classify": ("tests/unit/classify", ARGUMENTS),
    **{
        f"gpt_edge/bundle/gate/{name}.py": (OWN_OF_GATE,)
        for name in ("arithmetic", "products", "shaping", "values", "operators")
    },
    **{
        f"gpt_edge/bundle/gate/{name}.py": (OWN_OF_GATE, READERS)
        for name in ("proto", "records", "stored", "tensors")
    },
    "gpt_edge/system/atomic_files.py": ("tests/unit/system",),
    "gpt_edge/tasks.py": ("tests/unit/test_tasks.py", "tests/unit/classify"),
    "gpt_edge/task_inputs.py": ("tests/unit/test_tasks.py", "tests/unit/classify"),
    "gpt_edge/evaluate/calibration.py": ("tests/unit/evaluate/test_calibration.py",),
}
# besides these with --wider: they need torch, or run commands, so they take longer
WIDER = {
    "gpt_edge/runtime/": ("parity/test_adapters.py", "parity/test_task_export.py"),
    "gpt_edge/generate/": (
        "parity/test_processors.py",
        "parity/test_generate_transformers.py",
        "parity/test_chat_template.py",
        "cli/test_batch_run.py",
        "cli/test_chat.py",
    ),
    "gpt_edge/tokenizer/": (
        "parity/test_gpt1_tokenizer.py",
        "parity/test_tokenizers_of_checkpoints.py",
        "parity/test_to_transformers.py",
    ),
    "gpt_edge/bundle/": (
        "parity/test_adapters.py",
        "parity/test_optimum_folders.py",
        "unit/bundle",
        "unit/signing",
        "hostile/test_attacks.py",
        "hostile/test_gate_in_process.py",
    ),
    "gpt_edge/classify/": ("parity/test_adapters.py", "parity/test_task_export.py"),
}
FOLDERS = [
    f"gpt_edge/{name}/" for name in ["runtime", "generate", "tokenizer", "bundle", "classify"]
]
LEFT_OUT = (
    "tests/unit/tokenizer/test_worst_case.py",  # measures time alone
    "tests/unit/tokenizer/test_training.py",  # with torch
)
MARKS = "not slow and not network and not browser and not alone and not every_core"
# a mutant is alive after so many, as measured while lines were recorded
SECONDS_OF_TESTS, SECONDS_AGAIN = 3.0, 20.0
EXAMPLES = 30  # that hypothesis draws
Results = dict[str, dict[str, Any]]


def files_of(only: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The Python files of SCOPE whose paths hold one of the words, with the folders and files of
    their tests.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name, tests in SCOPE.items():
        path = ROOT / name
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        found |= {file.relative_to(ROOT).as_posix(): tests for file in files}
    return {path: tests for path, tests in found.items() if any(w in path for w in only)}


def wider(path: str) -> list[str]:
    """More tests of a file."""
    return [f"tests/{name}" for at, names in WIDER.items() if path.startswith(at) for name in names]


def key_of(mutant: Mutant) -> str:
    """Of a mutant of one state of its file."""
    return f"{digest_of(mutant.path)} {mutant.number} {mutant.kind}"


def read_results(path: Path) -> Results:
    """Outcomes by key; a later one replaces an earlier one."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {row["key"]: row for row in map(json.loads, lines)}


def explanations() -> dict[tuple[str, str, str], str]:
    """Why no test can fail, by path, line of code and change."""
    rows = EXPLAINED.read_text(encoding="utf-8").splitlines() if EXPLAINED.exists() else []
    cells = [row.split("\t") for row in rows]
    return {(path, code, change): why for path, code, change, why in cells}


def page(mutants: list[Mutant], results: Results, seed: int) -> str:
    """The table by file, and what stayed alive."""
    why = explanations()
    made: dict[str, int] = defaultdict(int)
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    alive: list[str] = []
    for mutant in mutants:
        made[mutant.path] += 1
        row = results.get(key_of(mutant))
        if row is None or row["outcome"] == "unclear":
            continue
        reason = why.get((mutant.path, mutant.code, mutant.change))
        is_killed = row["outcome"] == "killed"
        kind = "killed" if is_killed else "explained" if reason else "alive"
        counts[mutant.path][kind] += 1
        if not is_killed:
            what = f"`{mutant.path}`: `{mutant.code}`: {mutant.change}"
            alive.append(f"- {what}: {reason or 'not explained'}".replace("|", "\\|"))
    every = {
        kind: sum(row[kind] for row in counts.values()) for kind in ("killed", "explained", "alive")
    }
    n_run = sum(every.values())
    share = every["killed"] / max(1, n_run - every["explained"])
    lines = [
        "# Mutants",
        "",
        f"`python scripts/mutants.py` tried {n_run:,} of {len(mutants):,} mutants, in an order "
        f"drawn with seed {seed}, each against the tests that run its statement: "
        f"{every['killed']:,} killed, {every['explained']} alive and explained, {every['alive']} "
        f"alive and not. Killed of those that a caller can see: {share:.1%}.",
        "",
        "| file | made | tried | killed | explained | alive |",
        "|---|---|---|---|---|---|",
    ]
    folders = {folder: [path for path in made if path.startswith(folder)] for folder in FOLDERS}
    for name, paths in [*folders.items(), *((path, [path]) for path in made)]:
        cells = [
            sum(made[path] for path in paths),
            sum(sum(counts[path].values()) for path in paths),
        ]
        cells += [sum(counts[path][kind] for path in paths) for kind in every]
        lines.append(f"| `{name}` | " + " | ".join(map(str, cells)) + " |")
    return "\n".join([*lines, "", "Alive:", "", *sorted(set(alive))]) + "\n"


def queue_of(
    mutants: list[Mutant], results: Results, *, again: bool, minutes: float
) -> Iterator[Mutant]:
    """Those that have no outcome, or with `again` stayed alive and are not explained, until the
    time is over.
    """
    ends = time.monotonic() + 60 * minutes
    why = explanations()
    for mutant in mutants:
        row = results.get(key_of(mutant))
        is_wanted = not row
        if again and row:
            is_explained = (mutant.path, mutant.code, mutant.change) in why
            is_wanted = row["outcome"] != "killed" and not is_explained
        if is_wanted and time.monotonic() < ends:
            yield mutant


def run(
    queue: Iterator[Mutant], chosen: dict[str, tuple[str, ...]], arguments: argparse.Namespace
) -> None:
    """Try mutants of the chosen files, and append their outcomes to a file."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import pytest

    from scripts.mutant_server import Server

    def report(mutant: Mutant, found: dict[str, Any]) -> None:
        row = {
            "key": key_of(mutant),
            "name": mutant.name,
            "code": mutant.code,
            **found,
            "seconds": round(found["seconds"], 2),
        }
        with open(arguments.results, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    if arguments.wider:
        chosen = {path: (*names, *wider(path)) for path, names in chosen.items()}
    tests = sorted({str(ROOT / test) for names in chosen.values() for test in names})
    lines = arguments.results.with_suffix(".lines")
    limit = SECONDS_AGAIN if arguments.again else SECONDS_OF_TESTS
    files = files_of([""]) | chosen  # lines of every file are kept: they serve other choices too
    server = Server(queue, files, arguments.children, lines, report, limit, EXAMPLES)
    words = ["-n0", "-s", "-q", "-p", "no:cacheprovider", "-o", "timeout=0", "-m", MARKS]
    words += ["--assert=plain", "--tb=native"]  # nobody reads why a test failed
    words += [f"--ignore={ROOT / path}" for path in LEFT_OUT]
    pytest.main([*words, f"--rootdir={ROOT}", *tests], [server, server.recorder])


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default=[""], nargs="+", metavar="WORD")
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--again", action="store_true", help="those that stayed alive")
    parser.add_argument("--wider", action="store_true", help="against the tests of WIDER too")
    parser.add_argument("--children", type=int, default=2, help="mutants at once")
    parser.add_argument("--results", type=Path, default=Path("mutants.jsonl"))
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--page-only", action="store_true", help="write the table alone")
    arguments = parser.parse_args()
    everything = [mutant for path in files_of([""]) for mutant in mutants_of(path)]
    drawn = random.Random(arguments.seed).sample(everything, len(everything))
    files = files_of(arguments.only)
    chosen = [mutant for mutant in drawn if mutant.path in files]
    if not arguments.page_only:
        results = read_results(arguments.results)
        queue = queue_of(chosen, results, again=arguments.again, minutes=arguments.minutes)
        run(queue, files, arguments)
    text = page(everything, read_results(arguments.results), arguments.seed)
    arguments.out.write_text(text, encoding="utf-8")
    print(text.splitlines()[2])


if __name__ == "__main__":
    main()
