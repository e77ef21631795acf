"""Does int8 name the labels that float32 names? The fine-tuned models of `tasks.py`, exported, on their sets' test examples.

    python benchmarks/task_agreement.py runs/tasks --data ../shared/data

Exports each set's model with lambda 0.5 as fp32 and int8 into the run's folder, where that was not done before.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from task_sets import SETS, prepare

from gpt_edge import Bundle, Classifier, Prediction
from gpt_edge.export.pipeline import export_bundle
from gpt_edge.training.task_data import Example, read_examples


def main() -> None:
    """Print a Markdown table, a line for each set whose model is there."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("runs", type=Path, help="the --out folder of tasks.py")
    arguments.add_argument("--data", type=Path, required=True, help="folder with tasks/")
    arguments.add_argument("--sets", default=",".join(SETS))
    given = arguments.parse_args()
    print(
        "| set | task | test | torch against fp32, largest difference of a logit | int8 says what fp32 says | fp32 | int8 |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in given.sets.split(","):
        if (given.runs / name / "tuned-0.5" / "checkpoint").is_dir():
            print(line(name, given.runs / name, given.data), flush=True)


def line(name: str, run: Path, data: Path) -> str:
    """One line of the table; of a score, how far the two are apart, and their correlations with the right ones."""
    task_set = SETS[name]
    _, test = prepare(task_set, name, data / "tasks", run)
    examples = read_examples(test, task_set.columns)
    texts = [example.texts if len(example.texts) > 1 else example.texts[0] for example in examples]
    found = {}
    for scheme in ("fp32", "int8"):
        bundle = run / scheme
        if not bundle.exists():
            print(f"{name}: {scheme}", file=sys.stderr)
            export_bundle(run / "tuned-0.5" / "checkpoint", bundle, scheme=scheme)
        found[scheme] = Classifier.load(bundle).predict(texts, truncate="right")
    exact, rounded = found["fp32"].rows, found["int8"].rows
    if task_set.score_range is not None:
        gold = np.array([float(example.label) for example in examples])
        scores = [np.array([row.score for row in rows], float) for rows in (exact, rounded)]
        far = np.abs(scores[0] - scores[1]).max()
        agreement = f"scores of 0 to 5 differ by at most {far:.3f}"
        quality = [f"r = {np.corrcoef(gold, each)[0, 1]:.4f}" for each in scores]
    else:
        same = sum(a.index == b.index for a, b in zip(exact, rounded, strict=True))
        agreement = f"{same:,} of {len(examples):,} ({same / len(examples):.2%})"
        quality = [
            f"{np.mean([is_right(task_set.kind, row, e) for row, e in zip(rows, examples, strict=True)]):.4f}"
            for rows in (exact, rounded)
        ]
    parity = Bundle.open(run / "fp32").manifest.parity["torch against fp32"]["labels"]["max_difference"]
    return (
        f"| {name} | {task_set.kind} | {len(examples):,} | {parity:.1e} | {agreement} | {quality[0]} | {quality[1]} |"
    )


def is_right(kind: str, prediction: Prediction, example: Example) -> bool:
    """Did a prediction name the label, or of multiple choice the number of the right answer?"""
    return (str(prediction.index) if kind == "multiple-choice" else prediction.label) == example.label


if __name__ == "__main__":
    main()
