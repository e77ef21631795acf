"""Plant faults in bundles and see whether the verifier finds and places them; or verify random
models that are right and see whether it stays silent.

`python scripts/faults.py` plants every fault of tests/support/graph_faults.py and quiet_faults.py
in every bundle that it fits, a language model with 640 positions and a model with each kind of
head, and writes a table to benchmarks/results/faults.md: a spread of graphs and schemes, or with
`--all` both graphs and all schemes of each. `--sound N` exports N random models instead, whose
shapes, weights, graphs, schemes and tasks are drawn, compares them with their checkpoints, and
writes false-alarms.md. `--results FILE` keeps what was found, and a later run goes on from there.
`--only WORD` keeps bundles whose name holds the word. Minutes on a quiet machine; `--all` takes
half an hour.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]
RESULTS = ROOT / "benchmarks" / "results"

import numpy as np  # noqa: E402
import torch  # noqa: E402

from gpt_edge.bundle.bundle import Bundle  # noqa: E402
from gpt_edge.config import GPTConfig  # noqa: E402
from gpt_edge.errors import GPTEdgeError  # noqa: E402
from gpt_edge.export.pipeline.export import export_bundle  # noqa: E402
from gpt_edge.export.verify import localize as localize_module  # noqa: E402
from gpt_edge.export.verify.localize import localize  # noqa: E402
from gpt_edge.reference.checkpoint import load_task_model, save_checkpoint  # noqa: E402
from gpt_edge.reference.heads import TaskModel  # noqa: E402
from gpt_edge.reference.importers import open_checkpoint  # noqa: E402
from gpt_edge.reference.model import GPT  # noqa: E402
from gpt_edge.runtime import open_graph  # noqa: E402
from tests.support.faults import plant  # noqa: E402
from tests.support.graph_faults import FAULTS as LOUD  # noqa: E402
from tests.support.graph_faults import Planted  # noqa: E402
from tests.support.models import TINY, save_random  # noqa: E402
from tests.support.quiet_faults import FAULTS as QUIET  # noqa: E402
from tests.support.task_models import TASKS, save_task  # noqa: E402
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
FAULTS = (*LOUD, *QUIET)
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
STDS = 0.015, 1.5  # of weights: a tenth and ten times that of the tests' models
OUTLIERS = 0.01, 8.0  # so many columns of half of the models are so many times as large
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


def plant_all(folder: Path, only: str, kept: Path, *, is_all: bool) -> Iterator[str]:
    """Plant every fault, keep what was found, and yield the page after each bundle."""
    lines = kept.read_text().splitlines() if kept.exists() else []
    known = {tuple(names): found for *names, found in map(json.loads, lines)}
    marks: dict[str, dict[str, str]] = {}
    names = []
    for subject in subjects(folder, only, is_all=is_all):
        names.append(subject.name)
        alarms = localize(subject.bundle, subject.model).faults
        print(subject.name, "false alarms:", len(alarms), flush=True)
        for fault in FAULTS:
            found = "-"
            if fault.fits(subject.bundle):
                found = known.get((subject.name, fault.name), "")
                if not found:
                    found = outcome(subject, fault, folder)
                    with open(kept, "a") as file:
                        file.write(json.dumps([subject.name, fault.name, found]) + "\n")
                if found != "placed":
                    print(f"  {fault.name}: {found}", flush=True)
            marks.setdefault(fault.name, {})[subject.name] = found
        yield faults_page(names, marks)


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


@dataclasses.dataclass(frozen=True)
class Sound:
    """A random model that is right."""

    number: int
    task: str  # "" of a language model
    kind: str  # of SHAPES
    graph: str
    scheme: str
    std: float
    has_outliers: bool

    @property
    def name(self) -> str:
        outliers = ", outliers" if self.has_outliers else ""
        what = self.task or "lm"
        return (
            f"{self.number}: {what} {self.kind} {self.graph} {self.scheme} std {self.std}{outliers}"
        )


def drawn(number: int) -> Sound:
    """The number-th model: a quarter have a head."""
    rng = np.random.default_rng([20251128, number])
    task = str(rng.choice(list(TASKS))) if number % 4 == 3 else ""
    low, high = np.log(STDS)
    return Sound(
        number=number,
        task=task,
        kind=str(rng.choice(TASK_KINDS if task else list(SHAPES))),
        graph=str(rng.choice(GRAPHS)),
        scheme=str(rng.choice(SCHEMES)),
        std=round(float(np.exp(rng.uniform(low, high))), 4),
        has_outliers=bool(rng.integers(2)),
    )


def save_sound(sound: Sound, source: Path) -> None:
    """Its checkpoint: normal weights, and in half of them columns that are far larger."""
    if sound.task:
        save_task(source, SHAPES[sound.kind], sound.task, seed=sound.number, std=sound.std)
    else:
        save_random(source, SHAPES[sound.kind], seed=sound.number, std=sound.std)
    if not sound.has_outliers:
        return
    checkpoint = open_checkpoint(source)
    model = load_task_model(source) if sound.task else checkpoint.load_model()
    share, factor = OUTLIERS
    generator = torch.Generator().manual_seed(sound.number)
    with torch.no_grad():
        for _, weight in model.named_parameters():
            if weight.ndim == 2:
                is_large = torch.rand(weight.shape[1], generator=generator) < share
                weight[:, is_large] *= factor
    tensors = model.tensors() if isinstance(model, TaskModel) else model.state_dict()
    save_checkpoint(source, checkpoint.config, tensors, None, {}, checkpoint.task)


def verify_sound(folder: Path, count: int, kept: Path) -> Iterator[str]:
    """Export random models, which compares logits and execution paths, then compare weights and
    operators; keep what was found, and yield the page after each of them.
    """
    lines = kept.read_text().splitlines() if kept.exists() else []
    rows = {row["name"]: row for row in map(json.loads, lines)}
    for sound in map(drawn, range(count)):
        if sound.name not in rows:
            began = time.process_time()
            row = {"name": sound.name, **alarms_of(sound, folder)}
            row["seconds"] = time.process_time() - began
            rows[sound.name] = row
            print(sound.name, *row["alarms"], flush=True)
            with open(kept, "a") as file:
                file.write(json.dumps(row) + "\n")
            yield sound_page(list(rows.values()))
    yield sound_page(list(rows.values()))


def alarms_of(sound: Sound, folder: Path) -> dict[str, Any]:
    """What is wrongly found, and how near each operator came to its limit."""
    source, out = folder / f"source-{sound.number}", folder / f"out-{sound.number}"
    save_sound(sound, source)
    graph, scheme = sound.graph, sound.scheme
    try:
        bundle, _ = export_bundle(source, out, graph=graph, scheme=scheme, tokenizer="none")
        model = load_task_model(source) if sound.task else open_checkpoint(source).load_model()
        found = localize(bundle, model)
    except GPTEdgeError as error:
        return {"alarms": [error.message], "shares": {}}
    finally:
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(source, ignore_errors=True)
    shares = {operator: values["share"] for operator, values in found.operators.items()}
    return {"alarms": [str(fault) for fault in found.faults], "shares": shares}


def sound_page(rows: list[dict[str, Any]]) -> str:
    """How many alarms there were, and how near the operators came to their limits."""
    alarms = [f"- {row['name']}: {alarm}" for row in rows for alarm in row["alarms"]]
    largest: dict[str, float] = {}
    for row in rows:
        for operator, share in row["shares"].items():
            largest[operator] = max(largest.get(operator, 0.0), share)
    seconds = sum(row["seconds"] for row in rows)
    lines = [
        "# False alarms",
        "",
        f"`python scripts/faults.py --sound {len(rows)}` exported {len(rows)} random models, which "
        "compares logits and execution paths with torch, and compared every weight and operator. "
        f"All were right. Drawn were one of {len(SHAPES)} shapes, the graph, one of "
        f"{len(SCHEMES)} schemes, the standard deviation of the weights ({STDS[0]} to {STDS[1]}, "
        "evenly in its logarithm), every weight, and for half of them columns of weights that are "
        f"{OUTLIERS[1]:g} times as large (one in {1 / OUTLIERS[0]:g}); a quarter have one of "
        f"{len(TASKS)} heads. torch traces a shape once. False alarms: {len(alarms)}, in "
        f"{seconds / 60:.0f} minutes of processor time. " + machine(),
        "",
        "| operator | largest difference, as a fraction of its limit |",
        "|---|---|",
        *(f"| {operator} | {share:.0%} |" for operator, share in largest.items()),
        *(["", *alarms] if alarms else []),
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
    parser.add_argument("--results", type=Path, metavar="FILE", help="what was found so far")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpt-edge-faults-") as name:
        folder = Path(name)
        os.environ.setdefault(FOLDER, name)
        share_traces()
        if arguments.sound:
            out = arguments.out or RESULTS / "false-alarms.md"
            pages = verify_sound(folder, arguments.sound, arguments.results or folder / "found")
        else:
            set_gate_aside()
            out = arguments.out or RESULTS / "faults.md"
            kept = arguments.results or folder / "found"
            pages = plant_all(folder, arguments.only, kept, is_all=arguments.all)
        for page in pages:
            out.write_text(page, encoding="utf-8")
    print(page.splitlines()[2])


if __name__ == "__main__":
    main()
