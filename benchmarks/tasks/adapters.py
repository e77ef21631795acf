"""Adapters on a shared base beside models that were fine-tuned as a whole: accuracy, bytes, and
speed, as Markdown tables.

    python benchmarks/tasks/adapters.py runs/tinystories/checkpoint \\
        --data ../shared/data --out runs/adapters --sets sentiment

Each row is fine-tuned from the same checkpoint, exported in int8, and scored on the test examples
as exported; a run that was cut off goes on where it was. Texts a second are those of one thread's
CPU time, whatever else the machine does, the best of several passes over the test texts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from task_sets import SETS, prepare

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.classify.classifier import Classifier
from gpt_edge.data.examples import read_examples
from gpt_edge.evaluate.classification_metrics import wilson
from gpt_edge.export.pipeline.adapters import export_adapter, export_base
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.training.finetune.run import CHECKPOINT, METRICS, RESULTS, STATE, finetune
from gpt_edge.training.finetune.settings import FinetuneData, FinetuneSettings

PASSES = 5


@dataclass(frozen=True)
class Row:
    """rank: of LoRA; None trains every weight."""

    title: str
    rank: int | None
    rate: float
    epochs: int


ROWS = {
    "full": Row("every weight", None, 1e-3, 5),
    "lora-8": Row("LoRA, rank 8", 8, 3e-3, 6),
    "head": Row("the head and its tokens alone", 0, 3e-3, 6),
}


def main() -> None:
    """Fill in what is missing, then print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("checkpoint", type=Path)
    arguments.add_argument("--data", type=Path, required=True, help="folder with tasks/")
    arguments.add_argument("--out", type=Path, required=True, help="folder for runs and bundles")
    arguments.add_argument("--sets", default="sentiment,banking77")
    arguments.add_argument("--rows", default=",".join(ROWS))
    arguments.add_argument(
        "--as-is", action="store_true", help="score the best epoch of runs that were cut off"
    )
    given = arguments.parse_args()
    base = opened(given.out / "base-int8", lambda out: export_base(given.checkpoint, out)[0])
    lines, adapters = [], []
    for name in given.sets.split(","):
        for row_name in given.rows.split(","):
            run = tuned(name, row_name, given)
            whole = opened(
                run / "whole-int8", lambda out, run=run: export_bundle(run / CHECKPOINT, out)[0]
            )
            lines.append(line(name, row_name, "whole", whole, None, run, given))
            if ROWS[row_name].rank is not None:
                adapter = opened(
                    run / "adapter",
                    lambda out, run=run: export_adapter(run / CHECKPOINT, out, base)[0],
                )
                adapters.append(adapter)
                lines.append(line(name, row_name, "adapter", base, adapter, run, given))
    print(f"base: {base.n_bytes:,} bytes\n")
    print("| set | trained | best epoch | exported | kB | test | accuracy (95 %) | texts/s |")
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(lines))
    print()
    print("\n".join(switching(base, adapters)))


def tuned(name: str, row_name: str, given: argparse.Namespace) -> Path:
    """The folder of a finished run."""
    task_set, row = SETS[name], ROWS[row_name]
    train, test = prepare(task_set, name, given.data / "tasks", given.out / name)
    run: Path = given.out / name / row_name
    if (run / RESULTS).exists() or (given.as_is and (run / CHECKPOINT).exists()):
        return run
    settings = FinetuneSettings(
        kind=task_set.kind,
        epochs=row.epochs,
        learning_rate=row.rate,
        warmup=0.05,
        token_noise=task_set.token_noise,
        lora_rank=row.rank,
        threads=1,
    )
    data = FinetuneData(
        train=train, test=test, hold_out=task_set.hold_out, columns=task_set.columns
    )
    finetune(given.checkpoint, run, data, settings, resume=(run / STATE).exists())
    return run


def opened(path: Path, make: Callable[[Path], Bundle]) -> Bundle:
    """A bundle, made if it is not there."""
    return Bundle.open(path) if path.exists() else make(path)


def line(
    name: str,
    row_name: str,
    how: str,
    bundle: Bundle,
    adapter: Bundle | None,
    run: Path,
    given: argparse.Namespace,
) -> str:
    """One line of the table."""
    task_set, row = SETS[name], ROWS[row_name]
    _, test = prepare(task_set, name, given.data / "tasks", given.out / name)
    examples = read_examples(test, task_set.columns)
    texts = [example.texts[0] for example in examples]
    model = Classifier.load(
        bundle.path, adapter=None if adapter is None else adapter.path, threads=1
    )
    labels = model.predict(texts, truncate="right").labels
    n_right = sum(label == example.label for label, example in zip(labels, examples, strict=True))
    low, high = wilson(n_right, len(texts))
    epochs = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    best = max(epoch["epoch"] for epoch in epochs if epoch["is_best"])
    cells = [
        name,
        row.title,
        f"{best} of {len(epochs)}",
        how,
        f"{(adapter or bundle).n_bytes / 1000:,.0f}",
        f"{len(texts):,}",
        f"{n_right / len(texts):.4f} ({low:.4f} to {high:.4f})",
        f"{speed(model, texts):,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def speed(model: Classifier, texts: Sequence[str]) -> float:
    """Texts a second of one thread's CPU time."""
    best = min(cpu_seconds(lambda: model.predict(texts, truncate="right")) for _ in range(PASSES))
    return len(texts) / best


def cpu_seconds(call: Callable[[], object]) -> float:
    """CPU time of this process that a call takes."""
    started = time.process_time()
    call()
    return time.process_time() - started


def switching(base: Bundle, adapters: Sequence[Bundle]) -> list[str]:
    """What a second adapter costs: opening it, and answering with both in turns."""
    first = Classifier.load(base.path, adapter=adapters[0].path, threads=1)
    loading = min(
        cpu_seconds(lambda: Classifier.load(base.path, adapter=adapters[0].path, threads=1))
        for _ in range(PASSES)
    )
    opening = min(cpu_seconds(lambda: first.with_adapter(adapters[-1].path)) for _ in range(PASSES))
    second = first.with_adapter(adapters[-1].path)
    text = ["The food was cold."]

    def same() -> None:
        for _ in range(100):
            first.predict(text)
            first.predict(text)

    def in_turns() -> None:
        for _ in range(100):
            first.predict(text)
            second.predict(text)

    one = min(cpu_seconds(same) for _ in range(PASSES)) / 200
    both = min(cpu_seconds(in_turns) for _ in range(PASSES)) / 200
    return [
        "| step | ms of CPU time |",
        "|---|---|",
        f"| load the base and an adapter | {loading * 1e3:.1f} |",
        f"| open another adapter | {opening * 1e3:.1f} |",
        f"| answer one text, always with one adapter | {one * 1e3:.2f} |",
        f"| answer one text, with two adapters in turns | {both * 1e3:.2f} |",
    ]


if __name__ == "__main__":
    main()
