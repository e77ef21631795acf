"""A trained embedder: contrastive fine-tuning on pairs of sentences that say the same, measured by
the similarity of sentences (STS), as a Markdown table.

    python benchmarks/tasks/embedder.py runs/tinystories/checkpoint \\
        --data ../shared/data --out runs/embedder

Pairs: premise and hypothesis of SNLI's entailments, and the pairs of the STS training examples with
a score of 4 or more; none with a sentence of the test examples. A figure is the correlation of
cosines with the scores of the test examples, before and after training, and of TF-IDF's cosines,
whose words and weights come from the same pairs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from task_sets import SETS

from gpt_edge.arrays import DoubleArray
from gpt_edge.classify.embedder import Embedder
from gpt_edge.data.examples import Example, read_examples
from gpt_edge.evaluate.classification_metrics import bootstrap, pearson, spearman
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.system.atomic_files import atomic_write
from gpt_edge.training.finetune.run import STATE, finetune
from gpt_edge.training.finetune.settings import FinetuneData, FinetuneSettings

ALIKE = 4.0  # of a score from 0 to 5


def main() -> None:
    """Train, export, measure, print."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("checkpoint", type=Path)
    arguments.add_argument("--data", type=Path, required=True, help="folder with tasks/")
    arguments.add_argument("--out", type=Path, required=True, help="folder for runs and bundles")
    arguments.add_argument("--pairs", type=int, help="of SNLI, at most; by default all")
    arguments.add_argument("--epochs", type=int, default=5)
    arguments.add_argument("--batch", type=int, default=64)
    arguments.add_argument("--lr", type=float, default=1e-3)
    arguments.add_argument("--lambda", type=float, default=0.0, dest="lm_weight")
    arguments.add_argument("--precision", default="bfloat16")
    arguments.add_argument("--threads", type=int, default=1)
    given = arguments.parse_args()
    tasks = given.data / "tasks"
    test = read_examples(tasks / SETS["sts-images"].test, SETS["sts-images"].columns)
    pairs = given.out / "pairs.jsonl"
    given.out.mkdir(parents=True, exist_ok=True)
    texts = write_pairs(tasks, pairs, test, given.pairs)
    settings = FinetuneSettings(
        kind="embedding",
        epochs=given.epochs,
        batch=given.batch,
        learning_rate=given.lr,
        warmup=0.05,
        lm_weight=given.lm_weight,
        precision=given.precision,
        threads=given.threads,
    )
    run = given.out / "run"
    data = FinetuneData(train=pairs, hold_out=0.05)
    result = finetune(given.checkpoint, run, data, settings, resume=(run / STATE).exists())
    bundles = {}
    for name, source, scheme in (
        ("language model", given.checkpoint, "int8"),
        ("trained", result.checkpoint, "int8"),
    ):
        out = given.out / f"{name.replace(' ', '-')}-{scheme}"
        bundles[f"{name}, {scheme}"] = export_bundle(source, out, scheme=scheme, force=True)[0].path
    lines = [
        "| vectors | Pearson (95 %) | Spearman |",
        "|---|---|---|",
        line("TF-IDF, words and pairs", tfidf_cosines(texts, test), test),
    ]
    for name, path in bundles.items():
        with Embedder.load(path, threads=given.threads) as embedder:
            for pooling in ("mean",) if embedder.is_trained else ("mean", "last"):
                sides = [
                    embedder.embed([example.texts[side] for example in test], pooling=pooling)
                    for side in (0, 1)
                ]
                cosines = (sides[0] * sides[1]).sum(1).astype(np.float64)
                lines.append(line(f"{name}, {pooling}", cosines, test))
    print("\n".join(lines))
    values = result.to_dict()
    print(
        f"\n{values['data']['train']['n_examples']:,} pairs, {result.steps} steps in "
        f"{result.seconds:.0f} s, best epoch {result.best_epoch} of {result.epochs}, pairs that "
        f"find each other among {values['dev']['n_examples']}: "
        f"{values['dev']['retrieval']['value']:.4f}"
    )


def write_pairs(tasks: Path, path: Path, test: Sequence[Example], most: int | None) -> list[str]:
    """Write the pairs as JSON lines, at most `most` of SNLI, and return all their texts."""
    rows = []
    snli = SETS["snli"]
    for name in (snli.train, str(snli.test)):
        examples = read_examples(tasks / name, snli.columns)
        rows += [example.texts for example in examples if example.label == "entailment"]
    order = np.random.default_rng(0).permutation(len(rows))
    rows = [rows[i] for i in order[:most]]
    sts = SETS["sts-images"]
    alike = read_examples(tasks / sts.train, sts.columns)
    rows += [example.texts for example in alike if float(example.label) >= ALIKE]
    known = {text.lower() for example in test for text in example.texts}
    kept = [texts for texts in rows if not {text.lower() for text in texts} & known]
    lines = [json.dumps({"sentence1": a, "sentence2": b}) + "\n" for a, b in kept]
    atomic_write(path, "".join(lines).encode())
    return [text for texts in kept for text in texts]


def tfidf_cosines(texts: Sequence[str], test: Sequence[Example]) -> DoubleArray:
    """Cosines of the test pairs' vectors of words and pairs of words."""
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit(texts)
    sides = [vectorizer.transform([example.texts[side] for example in test]) for side in (0, 1)]
    return np.asarray(sides[0].multiply(sides[1]).sum(1), dtype=np.float64).reshape(-1)


def line(name: str, cosines: DoubleArray, test: Sequence[Example]) -> str:
    """One line of the table."""
    gold = np.array([float(example.label) for example in test])
    low, high = bootstrap(lambda rows: pearson(gold[rows], cosines[rows]), len(gold))
    value = pearson(gold, cosines)
    return f"| {name} | {value:.4f} ({low:.4f} to {high:.4f}) | {spearman(gold, cosines):.4f} |"


if __name__ == "__main__":
    main()
