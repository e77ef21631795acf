"""Plant faults in bundles and see whether the verifier finds and places them; or verify random
models that are right and see whether it stays silent.

`python scripts/faults.py` plants every fault of tests/support/graph_faults.py in every bundle that
it fits, a language model with 640 positions and a model with each kind of head, and writes a table
to benchmarks/results/faults.md: a spread of graphs and schemes, or with `--all` both graphs and all
schemes of each. `--sound N` exports N random models of random shapes and weights instead, compares
them with their checkpoints, and writes false-alarms.md. `--only WORD` keeps bundles whose name
holds the word. Minutes on a quiet machine; `--all` takes an hour.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]
RESULTS = ROOT / "benchmarks" / "results"

import numpy as np  # noqa: E402

from gpt_edge.bundle.bundle import Bundle  # noqa: E402
from gpt_edge.config import GPTConfig  # noqa: E402
from gpt_edge.errors import GPTEdgeError  # noqa: E402
from gpt_edge.export.pipeline.export import export_bundle  # noqa: E402
from gpt_edge.export.verify import localize as localize_module  # noqa: E402
from gpt_edge.export.verify.localize import localize  # noqa: E402
from gpt_edge.reference.checkpoint import load_task_model  # noqa: E402
from gpt_edge.reference.heads import TaskModel  # noqa: E402
from gpt_edge.reference.importers import open_checkpoint  # noqa: E402
from gpt_edge.reference.model import GPT  # noqa: E402
from gpt_edge.runtime import open_graph  # noqa: E402
from tests.support.faults import plant  # noqa: E402
from tests.support.graph_faults import FAULTS, Planted  # noqa: E402
from tests.support.models import TINY, save_random  # noqa: E402
from tests.support.task_models import save_task  # noqa: E402
from tests.support.traces import FOLDER, share_traces  # noqa: E402

LM = GPTConfig(
    n_layer=3,
    n_head=4,
    n_embd=64,
    n_ctx=640,
    vocab_size=307,
    attention=("dense", "banded"),
    window=100,
)
HEADS = ("classification", "entailment", "similarity", "multiple-choice")
GRAPHS = ("edge", "portable")
SCHEMES = ("fp32", "int8", "int8-block", "int4")
SPREAD = (
    "lm edge fp32",
    "lm edge int8",
    "lm portable int8",
    "lm edge int4",
    "classification edge int8",
    "entailment portable int8",
    "similarity edge int4",
    "multiple-choice portable fp32",
)
# of random models that are right: shapes that torch traces once, whatever their weights
SHAPES = {
    **TINY,
    "odd": GPTConfig(n_layer=2, n_head=3, n_embd=51, n_ctx=70, vocab_size=93, n_inner=77),
    "relu": GPTConfig(n_layer=2, n_head=2, n_embd=48, n_ctx=200, vocab_size=501, activation="relu"),
    "exact, untied": GPTConfig(
        n_layer=4,
        n_head=4,
        n_embd=32,
        n_ctx=48,
        vocab_size=64,
        activation="gelu",
        tied_embeddings=False,
        scale_attention=False,
    ),
    "long": LM,
}
STDS = (0.02, 0.05, 0.1, 0.15, 0.25)
TASK_KINDS = ("gpt1", "gpt2", "gpt3")


@dataclasses.dataclass(frozen=True)
class Subject:
    """A bundle that is right, with its reference."""

    name: str
    bundle: Bundle
    model: GPT | TaskModel


def subjects(folder: Path, only: str, *, is_all: bool) -> Iterator[Subject]:
    """The bundles to plant faults in."""
    for kind in ("lm", *HEADS):
        source = folder / kind
        is_lm = kind == "lm"
        save_random(source, LM) if is_lm else save_task(source, TINY["gpt2"], kind)
        for graph in GRAPHS:
            for scheme in SCHEMES:
                name = f"{kind} {graph} {scheme}"
                if only not in name or not (is_all or name in SPREAD):
                    continue
                out = folder / name.replace(" ", "-")
                bundle, _ = export_bundle(source, out, graph=graph, scheme=scheme, tokenizer="none")
                model = open_checkpoint(source).load_model() if is_lm else load_task_model(source)
                yield Subject(name, bundle, model)


def set_gate_aside() -> None:
    """The gate of bundles would refuse many of the faults before the verifier sees them."""
    for module in (open_graph, localize_module):
        module.checked_model = lambda bundle: bundle.model_path  # type: ignore[assignment]


def outcome(subject: Subject, fault: Planted, folder: Path) -> str:
    """What the verifier makes of a fault: "placed", "caught" (elsewhere) or "missed"."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        planted = plant(subject.bundle, Path(name) / "faulty", fault.edit)
        first = localize(planted, subject.model).first
    if first is None:
        return "missed"
    is_placed = str(first.operator) in fault.places_in(subject.bundle.config)
    return "placed" if is_placed else f"caught at {first.operator}"


def plant_all(folder: Path, only: str, *, is_all: bool) -> str:
    """Plant every fault, and return the page."""
    marks: dict[str, dict[str, str]] = {}
    names = []
    for subject in subjects(folder, only, is_all=is_all):
        names.append(subject.name)
        alarms = localize(subject.bundle, subject.model).faults
        print(subject.name, "false alarms:", len(alarms), flush=True)
        for fault in FAULTS:
            found = "-"
            if fault.fits(subject.bundle):
                found = outcome(subject, fault, folder)
                if found != "placed":
                    print(f"  {fault.name}: {found}", flush=True)
            marks.setdefault(fault.name, {})[subject.name] = found
    return faults_page(names, marks)


def faults_page(names: list[str], marks: dict[str, dict[str, str]]) -> str:
    """A row for each fault, a column for each bundle."""
    every = [mark for row in marks.values() for mark in row.values() if mark != "-"]
    n_placed = sum(mark == "placed" for mark in every)
    n_missed = sum(mark == "missed" for mark in every)
    signs = {"placed": "✓", "missed": "**missed**", "-": "·"}
    numbered = [f"{number}: {name}" for number, name in enumerate(names, 1)]
    lines = [
        "# Planted faults",
        "",
        f"`python scripts/faults.py` planted {len(marks)} faults in {len(names)} bundles, "
        f"{len(every)} plantings. The verifier caught {len(every) - n_missed} and named the place "
        f"of {n_placed}. ✓ caught and placed, · does not fit the bundle, else where it was caught. "
        "Faults of the tokenizer, the labels and the manifest are in "
        "`tests/parity/test_check_settings.py`. " + machine(),
        "",
        "Columns: " + "; ".join(numbered) + ".",
        "",
        "| fault | " + " | ".join(str(number) for number in range(1, len(names) + 1)) + " |",
        "|---|" + "---|" * len(names),
    ]
    for fault, row in marks.items():
        cells = [signs.get(row[name], row[name]) for name in names]
        lines.append(f"| {fault} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def verify_sound(folder: Path, count: int) -> Iterator[str]:
    """Export random models, which compares logits and execution paths, then compare weights and
    operators; yield the page after each of them.
    """
    rng = np.random.default_rng(20251128)
    alarms: list[str] = []
    largest: dict[str, float] = {}
    seconds = time.perf_counter()
    for number in range(count):
        source, out = folder / f"source-{number}", folder / f"out-{number}"
        task = str(rng.choice(HEADS)) if number % 4 == 3 else ""
        kind = str(rng.choice(TASK_KINDS if task else list(SHAPES)))
        graph, scheme = str(rng.choice(GRAPHS)), str(rng.choice(SCHEMES))
        std = float(rng.choice(STDS))
        if task:
            save_task(source, SHAPES[kind], task)
        else:
            save_random(source, SHAPES[kind], seed=number, std=std)
        name = f"{number}: {task or 'lm'} {kind} {graph} {scheme} std {std}"
        try:
            bundle, _ = export_bundle(source, out, graph=graph, scheme=scheme, tokenizer="none")
            model = load_task_model(source) if task else open_checkpoint(source).load_model()
            found = localize(bundle, model)
        except GPTEdgeError as error:
            alarms.append(f"{name}: {error.message}")
        else:
            alarms += [f"{name}: {fault}" for fault in found.faults]
            for operator, values in found.operators.items():
                largest[operator] = max(largest.get(operator, 0.0), values["share"])
        print(name, "alarms so far:", len(alarms), flush=True)
        yield sound_page(number + 1, alarms, largest, time.perf_counter() - seconds)


def sound_page(count: int, alarms: list[str], largest: dict[str, float], seconds: float) -> str:
    """How many alarms there were, and how near the operators came to their limits."""
    lines = [
        "# False alarms",
        "",
        f"`python scripts/faults.py --sound {count}` exported {count} random models, which "
        "compares logits and execution paths with torch, and compared every weight and operator. "
        f"All were right: {len(SHAPES)} shapes, both graphs, {len(SCHEMES)} schemes, weights of "
        f"standard deviation {STDS[0]} to {STDS[-1]}, a quarter of them classifiers of "
        f"{len(HEADS)} kinds. False alarms: {len(alarms)}, in {seconds / 60:.0f} minutes. "
        + machine(),
        "",
        "| operator | largest difference, as a fraction of its limit |",
        "|---|---|",
        *(f"| {operator} | {share:.0%} |" for operator, share in largest.items()),
        *(["", *(f"- {alarm}" for alarm in alarms)] if alarms else []),
    ]
    return "\n".join(lines) + "\n"


def machine() -> str:
    """The CPU that figures come from."""
    path = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in _lines(path) if "model name" in line]
    return f"CPU: {names[0] if names else platform.machine()}."


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sound", type=int, metavar="N", help="verify N right models instead")
    parser.add_argument("--all", action="store_true", help="both graphs and all schemes of each")
    parser.add_argument("--only", default="", metavar="WORD", help="bundles with this in the name")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the table goes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpt-edge-faults-") as name:
        folder = Path(name)
        os.environ.setdefault(FOLDER, name)
        share_traces()
        if arguments.sound:
            out = arguments.out or RESULTS / "false-alarms.md"
            pages = verify_sound(folder, arguments.sound)
        else:
            set_gate_aside()
            out = arguments.out or RESULTS / "faults.md"
            pages = iter([plant_all(folder, arguments.only, is_all=arguments.all)])
        for page in pages:
            out.write_text(page, encoding="utf-8")
    print(page.splitlines()[2])


if __name__ == "__main__":
    main()
