"""Classifiers from 8 to 64 examples a class, beside TF-IDF, as a Markdown table.

    python benchmarks/tasks/few_shot.py --data ../shared/data --out runs/few-shot \\
        --checkpoint runs/tinystories/checkpoint --embedder runs/embedder/trained-int8

Rows: TF-IDF with logistic regression; logistic regression on the mean hidden states of a language
model that never saw the task; the same on vectors that were trained on other sentences
(`embedder.py`); the checkpoint, fine-tuned on the few examples. Every method draws the same
examples of each class by the seed; a figure is the mean over the seeds of the accuracy on all test
examples, with the lowest and the highest. Texts a second and seconds are those of one thread's CPU
time, whatever else the machine does; MB are those of the bundle, or of the vocabulary and the
weights. Each run is kept in the output folder: a run that was cut off goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from task_sets import SETS, prepare

from gpt_edge.data.examples import Example, read_examples
from gpt_edge.integrations.sklearn_estimators import GPTEdgeClassifier, GPTEdgeEmbedder
from gpt_edge.system.atomic_files import atomic_write

METHODS = {
    "tfidf": "TF-IDF + logistic regression",
    "states": "states of the language model + logistic regression",
    "vectors": "vectors of the trained embedder + logistic regression",
    "fine-tuned": "fine-tuned",
}
STRENGTH = {"tfidf": 10.0, "states": 0.1, "vectors": 1.0}  # C, the same for every set and count
STEPS = 240  # of fine-tuning, at least; then 8 epochs
BATCH = 32


def main() -> None:
    """Fill in what is missing, then print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--data", type=Path, required=True, help="folder with tasks/")
    arguments.add_argument("--out", type=Path, required=True, help="folder for runs")
    arguments.add_argument("--checkpoint", type=Path, help="of fine-tuned")
    arguments.add_argument("--model", help="bundle of states; by default the built-in story model")
    arguments.add_argument("--embedder", help="bundle of vectors")
    arguments.add_argument("--sets", default="sentiment,banking77")
    arguments.add_argument("--methods", default=",".join(METHODS))
    arguments.add_argument("--counts", default="8,16,32,64")
    arguments.add_argument("--seeds", type=int, default=3)
    given = arguments.parse_args()
    counts = [int(count) for count in given.counts.split(",")]
    for name in given.sets.split(","):
        for method in given.methods.split(","):
            for count in counts:
                for seed in range(given.seeds):
                    path = given.out / name / f"{method}-{count}-{seed}.json"
                    if not path.exists():
                        print(path, file=sys.stderr, flush=True)
                        found = measure(name, method, count, seed, given)
                        atomic_write(path, (json.dumps(found) + "\n").encode())
    print("\n".join(table(given.out)))


def measure(
    name: str, method: str, count: int, seed: int, given: argparse.Namespace
) -> dict[str, Any]:
    """Train one classifier and measure it on the test examples."""
    task_set = SETS[name]
    train, test = prepare(task_set, name, given.data / "tasks", given.out / name)
    chosen = draw(read_examples(train, task_set.columns), count, seed)
    tested = read_examples(test, task_set.columns)
    model = classifier(method, len(chosen), seed, given)
    started = time.process_time()
    model.fit([example.texts[0] for example in chosen], [example.label for example in chosen])
    fitted = time.process_time()
    predicted = model.predict([example.texts[0] for example in tested])
    done = time.process_time()
    return {
        "accuracy": float(np.mean(predicted == np.array([example.label for example in tested]))),
        "fit_seconds": fitted - started,
        "texts_per_second": len(tested) / (done - fitted),
        "n_bytes": size_of(model),
    }


def draw(examples: list[Example], count: int, seed: int) -> list[Example]:
    """`count` examples of each class, or all that there are."""
    rng = np.random.default_rng((seed, count))
    by_label = defaultdict(list)
    for example in examples:
        by_label[example.label].append(example)
    chosen = []
    for label in sorted(by_label):
        rows = by_label[label]
        chosen += [rows[i] for i in rng.permutation(len(rows))[:count]]
    return chosen


def classifier(method: str, n: int, seed: int, given: argparse.Namespace) -> Any:
    """An estimator of scikit-learn's that was not fitted yet."""
    if method == "fine-tuned":
        if given.checkpoint is None:
            raise SystemExit("error: fine-tuned needs --checkpoint")
        return GPTEdgeClassifier(
            checkpoint=given.checkpoint,
            epochs=max(8, STEPS * BATCH // n),
            hold_out=0.2,
            precision="bfloat16",
            random_state=seed,
            threads=1,
        )
    regression = LogisticRegression(C=STRENGTH[method], max_iter=2000)
    if method == "tfidf":
        return make_pipeline(TfidfVectorizer(sublinear_tf=True), regression)
    if method == "vectors" and given.embedder is None:
        raise SystemExit("error: vectors needs --embedder")
    bundle = given.embedder if method == "vectors" else given.model
    embedder = GPTEdgeEmbedder(bundle, threads=1)
    return make_pipeline(embedder, StandardScaler(), regression)


def size_of(model: Any) -> int:
    """Bytes of what a classifier needs to predict."""
    n_bytes = len(pickle.dumps(model))  # of a fine-tuned one it holds the bundle
    for _, step in getattr(model, "steps", ()):
        if isinstance(step, GPTEdgeEmbedder):
            from gpt_edge.bundle.bundle import Bundle

            n_bytes += Bundle.open(step.bundle).n_bytes
    return n_bytes


def table(out: Path) -> list[str]:
    """A line for each method and number of examples of each set."""
    lines = [
        "| set | examples a class | method | accuracy (lowest to highest) | texts/s | MB | "
        "training, s |",
        "|---|---|---|---|---|---|---|",
    ]
    runs = defaultdict(list)
    for path in sorted(out.glob("*/*-*-*.json")):
        method, count, _ = path.stem.rsplit("-", 2)
        runs[path.parent.name, int(count), method].append(json.loads(path.read_text()))
    order = list(METHODS)
    for (name, count, method), found in sorted(
        runs.items(), key=lambda item: (item[0][0], item[0][1], order.index(item[0][2]))
    ):
        values = [run["accuracy"] for run in found]
        speed = float(np.median([run["texts_per_second"] for run in found]))
        seconds = float(np.median([run["fit_seconds"] for run in found]))
        lines.append(
            f"| {name} | {count} | {METHODS[method]} | {np.mean(values):.4f} ({min(values):.4f} "
            f"to {max(values):.4f}) | {speed:,.0f} | {found[0]['n_bytes'] / 1e6:.1f} | "
            f"{seconds:.0f} |"
        )
    return lines


if __name__ == "__main__":
    main()
