"""Do the exported classifiers say what torch says? The fine-tuned models of `tasks.py`, exported,
on their sets' test examples.

    python benchmarks/tasks/task_agreement.py runs/tasks --data ../shared/data

Exports each set's model as fp32 and int8, both graphs, into the run's folder, where that was not
done before.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from task_sets import SETS, prepare

from gpt_edge import Classifier
from gpt_edge.data.examples import Example, read_examples
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.export.verify.reference import classifier_logits
from gpt_edge.reference.checkpoint import task_model_of
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.verify.classifiers import TaskProbes

GRAPHS = ("edge", "portable")


def main() -> None:
    """Print a Markdown table, a line for each set whose model is there and each graph."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("runs", type=Path, help="the --out folder of tasks.py")
    arguments.add_argument("--data", type=Path, required=True, help="folder with tasks/")
    arguments.add_argument("--sets", default=",".join(SETS))
    arguments.add_argument("--row", default="tuned-0.5", help="which of the rows of tasks.py")
    given = arguments.parse_args()
    print(
        "| set | test | graph | torch against fp32, a logit | int8 says what fp32 says | torch | "
        "fp32 | int8 |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in given.sets.split(","):
        checkpoint = given.runs / name / given.row / "checkpoint"
        if checkpoint.is_dir():
            for graph in GRAPHS:
                print(line(name, checkpoint, graph, given.data), flush=True)


def line(name: str, checkpoint: Path, graph: str, data: Path) -> str:
    """One line of the table: the largest difference of a logit, the share of the same labels, and
    how good each is.
    """
    task_set, run = SETS[name], checkpoint.parent.parent
    examples = read_examples(prepare(task_set, name, data / "tasks", run)[1], task_set.columns)
    classifiers = {
        scheme: Classifier.load(
            exported(checkpoint, run / f"{checkpoint.parent.name}-{graph}-{scheme}", graph, scheme)
        )
        for scheme in ("fp32", "int8")
    }
    encoded = [classifiers["fp32"].encode(example.texts, "right") for example in examples]
    asked = TaskProbes(
        [ids for example in encoded for ids in example.sequences],
        [len(example.answers) or 1 for example in encoded],
    )
    logits = {name: each.encoder.logits(asked.sequences) for name, each in classifiers.items()}
    logits["torch"] = classifier_logits(task_model_of(open_checkpoint(checkpoint)), asked)
    far = float(np.abs(logits["torch"] - logits["fp32"]).max())
    rows = {name: asked.by_example(found) for name, found in logits.items()}
    task = classifiers["fp32"].task
    if task.is_score:
        scores = {
            name: np.array([task.score(float(row[0, 0])) for row in found])
            for name, found in rows.items()
        }
        gold = np.array([float(example.label) for example in examples])
        agreement = f"scores differ by at most {np.abs(scores['fp32'] - scores['int8']).max():.3f}"
        quality = {
            name: f"r = {np.corrcoef(gold, found)[0, 1]:.4f}" for name, found in scores.items()
        }
    else:
        chosen = {name: [int(row.argmax()) for row in found] for name, found in rows.items()}
        same = sum(a == b for a, b in zip(chosen["fp32"], chosen["int8"], strict=True))
        agreement = f"{same:,} of {len(examples):,} ({same / len(examples):.2%})"
        quality = {
            name: f"{accuracy(found, examples, task.labels):.4f}" for name, found in chosen.items()
        }
    cells = [name, f"{len(examples):,}", graph, f"{far:.1e}", agreement]
    return f"| {' | '.join([*cells, *(quality[name] for name in ('torch', 'fp32', 'int8'))])} |"


def exported(checkpoint: Path, bundle: Path, graph: str, scheme: str) -> Path:
    """The bundle's path; it is made unless it is there."""
    if not bundle.exists():
        print(bundle, file=sys.stderr)
        export_bundle(checkpoint, bundle, graph=graph, scheme=scheme)
    return bundle


def accuracy(chosen: list[int], examples: list[Example], labels: tuple[str, ...]) -> float:
    """Share of right labels; of multiple choice, which has no labels, of right numbers."""
    named = [labels[index] if labels else str(index) for index in chosen]
    return float(
        np.mean([name == example.label for name, example in zip(named, examples, strict=True)])
    )


if __name__ == "__main__":
    main()
