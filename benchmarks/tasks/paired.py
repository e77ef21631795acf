"""Is a built-in classifier better than TF-IDF, or is it a tie? Both on the same test examples, and
the difference of their accuracies with a 95 % interval: examples are drawn with replacement, and
each model's answers to them are compared (a paired bootstrap: what both find hard cancels out).

    python benchmarks/tasks/paired.py --data ../shared/data

Prints a Markdown table: a row for each half of the test set, drawn at random, and for all of it. A
difference whose interval holds 0 is a tie.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from task_baselines import fitted
from task_sets import SETS, prepare

from gpt_edge import Classifier
from gpt_edge.data.examples import read_examples
from gpt_edge.data.labels import class_labels, class_numbers
from gpt_edge.evaluate.calibration import expected_calibration_error
from gpt_edge.evaluate.classification_metrics import bootstrap

MODELS = {"sentiment": "sentiment-6m-int8", "banking77": "banking77-6m-int8"}
SEED = 20251128


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--data", type=Path, required=True, help="folder with tasks/")
    arguments.add_argument("--sets", default=",".join(MODELS))
    given = arguments.parse_args()
    print("| set | test examples | built-in | TF-IDF | difference (95 %) | verdict |")
    print("|---|---|---|---|---|---|")
    for name in given.sets.split(","):
        ours, theirs, ece = answers(name, given.data)
        order = np.random.default_rng(SEED).permutation(len(ours))
        halves = {"first half": order[: len(order) // 2], "second half": order[len(order) // 2 :]}
        for part, rows in {**halves, "all": order}.items():
            print(line(f"{name}, {part}", ours[rows], theirs[rows]), flush=True)
        print(f"\n{name}: expected calibration error {ece:.4f}\n", flush=True)


def answers(name: str, data: Path) -> tuple[np.ndarray, np.ndarray, float]:
    """Which test examples each model answers rightly, bool [N] twice, and the built-in model's
    expected calibration error.
    """
    task_set = SETS[name]
    with tempfile.TemporaryDirectory() as folder:
        train_path, test_path = prepare(task_set, name, data / "tasks", Path(folder))
        train = read_examples(train_path, task_set.columns)
        test = read_examples(test_path, task_set.columns)
        labels = class_labels(train_path, train)
        gold = np.array(class_numbers(test_path, test, labels))
        baseline = fitted(
            [example.texts for example in train],
            np.array(class_numbers(train_path, train, labels)),
        )
    classifier = Classifier.load(MODELS[name])
    rows = classifier.predict([example.texts[0] for example in test], truncate="right").rows
    order = [classifier.labels.index(label) for label in labels]
    shares = np.stack([row.probabilities for row in rows])[:, order]
    ece = expected_calibration_error(shares, gold)
    return shares.argmax(1) == gold, baseline.predict([e.texts for e in test]) == gold, ece


def line(name: str, ours: np.ndarray, theirs: np.ndarray) -> str:
    """One row of the table."""
    difference = ours.astype(float) - theirs
    low, high = bootstrap(lambda rows: float(difference[rows].mean()), len(difference), SEED)
    verdict = "tie" if low <= 0 <= high else ("built-in" if low > 0 else "TF-IDF")
    return (
        f"| {name} | {len(ours):,} | {ours.mean():.4f} | {theirs.mean():.4f} | "
        f"{difference.mean():+.4f} ({low:+.4f} to {high:+.4f}) | {verdict} |"
    )


if __name__ == "__main__":
    main()
