"""Change the code a little, and see whether a test fails: mutants of the runtime, one at a time.

A mutant is one change of one file, made from its syntax tree: a comparison flipped, a number off by
one, an operator exchanged, a condition negated, an assignment to a slice made one to the name, an
addition in place made an assignment, a call dropped. It runs in a copy of the checkout, against the
tests of its file alone, which stop at the first failure. `python scripts/mutants.py` takes every
file of FILES, `--per-file N` mutants of each, drawn with `--seed`, for at most `--minutes`, and
writes the table benchmarks/results/mutants.md; `--only WORD` keeps files whose path holds the word.
Mutants that stayed alive, and change nothing that a caller sees, are explained in EXPLAINED.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "mutants.md"
UNIT = "tests/unit"
# file: the tests that are about it
FILES = {
    "gpt_edge/runtime/kv_cache.py": [f"{UNIT}/runtime/test_kv_cache.py"],
    "gpt_edge/runtime/batching.py": [f"{UNIT}/runtime/test_batching.py"],
    "gpt_edge/runtime/session.py": [
        f"{UNIT}/runtime/test_session.py",
        f"{UNIT}/runtime/test_session_portable.py",
        f"{UNIT}/runtime/test_kv_cache.py",
    ],
    "gpt_edge/generate/sampler.py": [f"{UNIT}/generate/test_sampler.py"],
    "gpt_edge/generate/logits.py": [
        f"{UNIT}/generate/test_logits.py",
        f"{UNIT}/generate/test_sampler.py",
    ],
    "gpt_edge/generate/params.py": [f"{UNIT}/generate/test_params.py"],
    "gpt_edge/generate/philox.py": [f"{UNIT}/generate/test_philox.py"],
    "gpt_edge/generate/stop_strings.py": [f"{UNIT}/generate/test_stopping.py"],
    "gpt_edge/generate/stream.py": [
        f"{UNIT}/generate/test_generator.py",
        f"{UNIT}/generate/test_stopping.py",
    ],
    "gpt_edge/tokenizer/detokenizer.py": [f"{UNIT}/tokenizer/test_detokenizer.py"],
    "gpt_edge/tokenizer/special_tokens.py": [
        f"{UNIT}/tokenizer/test_tokenizer.py",
        f"{UNIT}/tokenizer/test_hf_files.py",
        f"{UNIT}/tokenizer/test_folder_settings.py",
    ],
    "gpt_edge/tokenizer/rows.py": [f"{UNIT}/tokenizer/test_rows.py"],
    "gpt_edge/tokenizer/spec.py": [f"{UNIT}/tokenizer/test_spec.py"],
    "gpt_edge/tokenizer/formats/rank_file.py": [
        f"{UNIT}/tokenizer/test_gpt2.py",
        f"{UNIT}/tokenizer/test_tokenizer.py",
    ],
    "gpt_edge/bundle/manifest.py": [
        f"{UNIT}/bundle/test_format.py",
        f"{UNIT}/bundle/test_bundle.py",
        f"{UNIT}/bundle/test_damage.py",
    ],
    "gpt_edge/bundle/generation_defaults.py": [f"{UNIT}/bundle/test_generation_defaults.py"],
    "gpt_edge/classify/classifier.py": [f"{UNIT}/classify/test_classifier.py"],
    "gpt_edge/classify/token_labels.py": [f"{UNIT}/classify/test_token_labels.py"],
    "gpt_edge/tasks.py": [f"{UNIT}/test_tasks.py", f"{UNIT}/classify/test_classifier.py"],
    "gpt_edge/evaluate/calibration.py": [f"{UNIT}/evaluate/test_calibration.py"],
}
TIMEOUT = 240  # seconds; a mutant that never ends is killed by its tests too
FLIPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
EXCHANGED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
}
# "path:line change": why no test can fail
EXPLAINED: dict[str, str] = {
    "gpt_edge/tokenizer/detokenizer.py:118 1 becomes 0": (
        "a whole `</w>` was replaced by a space before, so no text ends with one"
    ),
}


@dataclass(frozen=True)
class Mutant:
    """One change: the kind-th of the number-th node of a file's code."""

    path: str
    line: int
    change: str
    number: int
    kind: int

    @property
    def name(self) -> str:
        return f"{self.path}:{self.line} {self.change}"

    def source(self) -> str:
        """The whole file with the change."""
        tree = ast.parse((ROOT / self.path).read_text(encoding="utf-8"))
        _apply(next(n for i, n in enumerate(_code(tree)) if i == self.number), self.kind)
        return ast.unparse(ast.fix_missing_locations(tree))


def mutants_of(path: str) -> list[Mutant]:
    """Every mutant of a file; messages, annotations and docstrings are left as they are."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    found = []
    for number, node in enumerate(_code(tree)):
        for kind in range(_n_changes(node)):
            if change := _apply(copy.deepcopy(node), kind):
                found.append(Mutant(path, getattr(node, "lineno", 0), change, number, kind))
    return found


def _code(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes of code inside functions, in a fixed order; what is raised and what a repr shows is
    not."""
    pending: list[ast.AST] = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    seen: set[int] = set()
    for function in pending:
        if function.name == "__repr__":  # type: ignore[attr-defined]
            continue
        for statement in function.body:  # type: ignore[attr-defined]
            for node in _walk(statement):
                if id(node) not in seen:
                    seen.add(id(node))
                    yield node


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.FunctionDef | ast.Assert):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _walk(child)


def _n_changes(node: ast.AST) -> int:
    if isinstance(node, ast.Constant):
        return 2 if isinstance(node.value, int) and not isinstance(node.value, bool) else 1
    kinds = (ast.Compare, ast.BinOp, ast.BoolOp, ast.If, ast.Assign, ast.AugAssign, ast.Expr)
    return 1 if isinstance(node, kinds) else 0


def _apply(node: ast.AST, kind: int) -> str:
    """Change a node in place, and say how; "" where nothing was changed."""
    match node:
        case ast.Compare(ops=[op, *_]) if type(op) in FLIPPED:
            node.ops[0] = FLIPPED[type(op)]()
            return f"{type(op).__name__} becomes {type(node.ops[0]).__name__}"
        case ast.BinOp(op=op) if type(op) in EXCHANGED:
            node.op = EXCHANGED[type(op)]()
            return f"{type(op).__name__} becomes {type(node.op).__name__}"
        case ast.BoolOp(op=op):
            node.op = ast.Or() if isinstance(op, ast.And) else ast.And()
            return f"{type(op).__name__} becomes {type(node.op).__name__}"
        case ast.Constant(value=bool(value)):
            node.value = not value
            return f"{value} becomes {not value}"
        case ast.Constant(value=int(value)):
            node.value = value + (1 if kind == 0 else -1)
            return f"{value} becomes {node.value}"
        case ast.If(test=test):
            node.test = ast.UnaryOp(ast.Not(), test)
            return "a condition is negated"
        case ast.AugAssign(target=target, value=value):
            store = copy.deepcopy(target)
            _become(node, ast.Assign([store], value))
            return "an addition in place becomes an assignment"
        case ast.Assign(targets=[ast.Subscript(value=inner, slice=ast.Slice(None, None))]):
            name = copy.deepcopy(inner)
            name.ctx = ast.Store()  # type: ignore[attr-defined]
            node.targets = [name]
            return "writing into an array becomes rebinding its name"
        case ast.Expr(value=ast.Call()):
            _become(node, ast.Pass())
            return "a call is dropped"
    return ""


def _become(node: ast.AST, other: ast.AST) -> None:
    other = ast.copy_location(other, node)
    node.__class__ = other.__class__  # type: ignore[assignment]
    node.__dict__ = other.__dict__


def outcome(mutant: Mutant, copy_of_root: Path) -> str:
    """ "killed", "alive" or "killed (too slow)"."""
    target = copy_of_root / mutant.path
    before = target.read_bytes()
    target.write_text(mutant.source(), encoding="utf-8")
    words = [sys.executable, "-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(copy_of_root), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [*words, *FILES[mutant.path]],
            cwd=copy_of_root,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "killed (too slow)"
    finally:
        target.write_bytes(before)
    return "alive" if done.returncode == 0 else "killed"


def page(results: dict[str, list[tuple[Mutant, str]]], n_made: dict[str, int], seed: int) -> str:
    """The table by file, and what stayed alive."""
    every = [pair for pairs in results.values() for pair in pairs]
    alive = [mutant for mutant, found in every if found == "alive"]
    unexplained = [mutant for mutant in alive if mutant.name not in EXPLAINED]
    n_killed = len(every) - len(alive)
    lines = [
        "# Mutants",
        "",
        f"`python scripts/mutants.py` ran {len(every)} of {sum(n_made.values())} mutants, drawn "
        f"with seed {seed}, each against the tests of its file: {n_killed} killed "
        f"({n_killed / max(1, len(every)):.1%}), {len(alive) - len(unexplained)} alive and "
        f"explained, {len(unexplained)} alive and not.",
        "",
        "| file | made | run | killed | alive |",
        "|---|---|---|---|---|",
    ]
    for path, pairs in results.items():
        dead = sum(found != "alive" for _, found in pairs)
        lines.append(f"| `{path}` | {n_made[path]} | {len(pairs)} | {dead} | {len(pairs) - dead} |")
    if alive:
        lines += ["", "Alive:", ""]
        lines += [f"- `{m.name}`: {EXPLAINED.get(m.name, 'not explained')}" for m in alive]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-file", type=int, default=0, metavar="N", help="0: all of them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", metavar="WORD")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop drawing after so many")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    chosen = [path for path in FILES if arguments.only in path]
    made = {path: mutants_of(path) for path in chosen}
    draw = random.Random(arguments.seed)
    queue = {path: draw.sample(made[path], len(made[path])) for path in chosen}
    results: dict[str, list[tuple[Mutant, str]]] = {path: [] for path in chosen}
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gpt-edge-mutants-") as name:
        copied = Path(name) / "checkout"
        ignored = shutil.ignore_patterns(".git", "__pycache__", "runs", "build", ".*_cache")
        shutil.copytree(ROOT, copied, symlinks=True, ignore=ignored)
        rounds = max(map(len, queue.values()))
        for number in range(rounds if not arguments.per_file else arguments.per_file):
            for path in chosen:
                if time.monotonic() - started > 60 * arguments.minutes:
                    break
                if number < len(queue[path]):
                    mutant = queue[path][number]
                    found = outcome(mutant, copied)
                    results[path].append((mutant, found))
                    print(found, mutant.name, flush=True)
            n_made = {path: len(made[path]) for path in chosen}
            arguments.out.write_text(page(results, n_made, arguments.seed), encoding="utf-8")


if __name__ == "__main__":
    main()
