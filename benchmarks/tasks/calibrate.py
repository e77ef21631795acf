"""Temperature scaling of the built-in classifiers: on the examples that chose their best epoch, and
measured on test examples, as a Markdown table.

    python benchmarks/tasks/calibrate.py --data ../shared/data --out runs/calibrate

The held-out examples are those of `tasks.py`: the same share of the training examples by the same
seed. They are written into the output folder, and `gpt-edge calibrate` takes them from there:

    gpt-edge calibrate models/sentiment-6m-int8 runs/calibrate/sentiment/dev.jsonl

Without `--write` the built-in bundles stay as they are.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
from task_sets import SETS, TaskSet, prepare

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.data.examples import Example, read_examples
from gpt_edge.data.labels import class_numbers
from gpt_edge.evaluate.calibrate import calibrate, example_logits, measure_calibration
from gpt_edge.evaluate.temperature import CalibrationFigures
from gpt_edge.system.atomic_files import atomic_write
from gpt_edge.training.finetune.batches import split_examples

BUNDLES = {"sentiment": "sentiment-6m-int8", "banking77": "banking77-6m-int8"}
SEED = 0  # of tasks.py
HEADER = [
    "| bundle | examples | accuracy | temperature | error before | after | log loss before | "
    "after |",
    "|---|---|---|---|---|---|---|---|",
]


def main() -> None:
    """Calibrate copies of the built-in classifiers, or themselves, and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--data", type=Path, required=True, help="folder with tasks/")
    arguments.add_argument("--out", type=Path, required=True, help="folder for examples and copies")
    arguments.add_argument("--models", type=Path, default=Path("models"))
    arguments.add_argument("--write", action="store_true", help="calibrate --models themselves")
    given = arguments.parse_args()
    lines = list(HEADER)
    for name, bundle_name in BUNDLES.items():
        task_set, folder = SETS[name], given.out / name
        train, test = prepare(task_set, name, given.data / "tasks", folder)
        dev = held_out_examples(task_set, train)
        write(folder / "dev.jsonl", task_set, dev)
        source = given.models / bundle_name
        out = None if given.write else folder / bundle_name
        labels = [example.label for example in dev]
        made, figures = calibrate(
            source, [example.texts for example in dev], labels, out=out, force=out is not None
        )
        lines.append(line(made, f"{len(dev):,} held out", test, dev, figures))
        tested = read_examples(test, task_set.columns)
        figures = measure_calibration(
            made, [example.texts for example in tested], [example.label for example in tested]
        )
        lines.append(line(made, f"{len(tested):,} for testing", test, tested, figures))
    print("\n".join(lines))


def held_out_examples(task_set: TaskSet, train: Path) -> list[Example]:
    """What `finetune --hold-out` of tasks.py held out."""
    examples = read_examples(train, task_set.columns)
    return split_examples(examples, task_set.hold_out, SEED, by_label=True)[1]


def write(path: Path, task_set: TaskSet, examples: list[Example]) -> None:
    """Examples as JSON lines with the default keys."""
    rows = [{"text": example.texts[0], "label": example.label} for example in examples]
    atomic_write(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def line(
    bundle: Bundle, what: str, path: Path, examples: list[Example], figures: CalibrationFigures
) -> str:
    """One line of the table."""
    assert bundle.task is not None
    logits = example_logits(bundle, [example.texts for example in examples])
    gold = np.array(class_numbers(path, examples, bundle.task.labels))
    accuracy = float((logits.argmax(1) == gold).mean())
    assert math.isfinite(accuracy)
    cells = [
        bundle.manifest.name,
        what,
        f"{accuracy:.4f}",
        f"{figures.temperature:.4g}",
        f"{figures.ece_before:.4f}",
        f"{figures.ece_after:.4f}",
        f"{figures.log_loss_before:.4f}",
        f"{figures.log_loss_after:.4f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
