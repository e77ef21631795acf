"""GPT-1's four task kinds on real sets: fine-tuned from a checkpoint against four baselines, as a
Markdown table.

    python benchmarks/tasks/tasks.py runs/task-base/checkpoint \\
        --data ../shared/data --out runs/tasks

Rows of each set: the majority class; TF-IDF and logistic regression (scikit-learn, its settings
chosen by three-fold cross-validation on the training examples); the same model from random weights;
fine-tuned with lambda 0 and with 0.5. Every model's best epoch is chosen on a share of the training
examples; the test examples are scored once. The last row learns from that share as well, for as
many epochs as were best without it, as TF-IDF's fit after its cross-validation does. Each row is
kept in the output folder: a run that was cut off goes on where it was. `task_sets.py` says what the
sets are.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from task_baselines import majority, tfidf
from task_sets import SETS, TaskSet, held_out, prepare

from gpt_edge.system.atomic_files import atomic_write
from gpt_edge.training.finetune.run import STATE, finetune
from gpt_edge.training.finetune.settings import FinetuneData, FinetuneSettings

RATE = 1e-3
ROWS = {
    "majority": "majority",
    "tfidf": "TF-IDF + logistic regression",
    "scratch": "same shape, random weights, λ = 0.5",
    "tuned-0": "fine-tuned, λ = 0",
    "tuned-0.5": "fine-tuned, λ = 0.5",
    "tuned-all": "fine-tuned, λ = 0.5, on the held-out examples too",
}
FORGETTING_STORIES = 60
END = "<|endoftext|>"


def main() -> None:
    """Fill in what is missing, then print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("checkpoint", type=Path)
    arguments.add_argument(
        "--data", type=Path, required=True, help="folder with tasks/ and tinystories/"
    )
    arguments.add_argument(
        "--out", type=Path, required=True, help="folder for runs, rows and splits"
    )
    arguments.add_argument("--sets", default=",".join(SETS))
    arguments.add_argument("--rows", default=",".join(ROWS))
    arguments.add_argument("--threads", type=int, default=0)
    arguments.add_argument(
        "--seed", type=int, default=0, help="of everything random, what is held out included"
    )
    arguments.add_argument(
        "--precision", default="bfloat16", help="bfloat16 is quick on CPUs with matrix units"
    )
    given = arguments.parse_args()
    names, rows = given.sets.split(","), given.rows.split(",")
    check_same(given)
    for name in names:
        for row in rows:
            path = given.out / name / f"{row}.json"
            if path.exists():
                continue
            print(f"{name}, {row}", file=sys.stderr, flush=True)
            task_set, files = (
                SETS[name],
                prepare(SETS[name], name, given.data / "tasks", given.out / name),
            )
            found = make_row(row, task_set, files, given.out / name / row, given)
            atomic_write(path, (json.dumps(found, indent=1) + "\n").encode())
    print(table(given.out, names))


def check_same(given: argparse.Namespace) -> None:
    """Rows of different makings do not belong into one table: exit where the folder's were made
    otherwise.
    """
    path, wanted = given.out / "made.json", {"seed": given.seed, "precision": given.precision}
    wanted["checkpoint"] = hashlib.sha256(
        (given.checkpoint / "model.safetensors").read_bytes()
    ).hexdigest()
    found = json.loads(path.read_text()) if path.exists() else wanted
    if found != wanted:
        raise SystemExit(
            f"error: {given.out} holds rows of {found}, not of {wanted}; give another --out"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, (json.dumps(wanted, indent=1) + "\n").encode())


def make_row(
    row: str, task_set: TaskSet, files: tuple[Path, Path], run: Path, given: argparse.Namespace
) -> dict[str, Any]:
    """The figures of one row on the test examples, by name, and what it took. run: folder of a
    fine-tuning.
    """
    if row == "majority":
        return majority(task_set, *files)
    if row == "tfidf":
        return tfidf(task_set, *files)
    chosen = run.with_name("tuned-0.5.json")
    if row == "tuned-all" and not chosen.exists():
        raise SystemExit(
            "error: tuned-all takes the number of epochs from tuned-0.5, which is not there yet"
        )
    settings = FinetuneSettings(
        kind=task_set.kind,
        score_range=task_set.score_range,
        epochs=json.loads(chosen.read_text())["best_epoch"]
        if row == "tuned-all"
        else task_set.epochs,
        learning_rate=RATE,
        warmup=0.05,
        token_noise=task_set.token_noise,
        lm_weight=0.0 if row == "tuned-0" else 0.5,
        from_scratch=row == "scratch",
        seed=given.seed,
        precision=given.precision,
        threads=given.threads,
    )
    name, folder = run.parent.name, run.parent
    train, dev = (
        (files[0], None)
        if row == "tuned-all"
        else held_out(task_set, name, files[0], folder, given.seed)
    )
    data = FinetuneData(
        train=train,
        dev=dev,
        test=files[1],
        hold_out=0.0 if row == "tuned-all" or dev else task_set.hold_out,
        columns=task_set.columns,
        forgetting_text=None if row == "scratch" else forgetting_text(given.data, given.out),
    )
    result = finetune(
        given.checkpoint, run, data, settings, resume=(run / STATE).exists()
    ).to_dict()
    about = {name: result[name] for name in ("epochs", "best_epoch", "seconds", "data")}
    return {
        "metrics": result["test"],
        "forgetting": result.get("forgetting"),
        "settings": settings.to_dict(),
        **about,
    }


def forgetting_text(data: Path, out: Path) -> Path:
    """The first stories of the validation text, which the checkpoint was not trained on."""
    path = out / "forgetting.txt"
    if not path.exists():
        text = gzip.decompress((data / "tinystories" / "valid.txt.gz").read_bytes()).decode()
        atomic_write(path, END.join(text.split(END)[:FORGETTING_STORIES]).encode())
    return path


def table(out: Path, names: list[str]) -> str:
    """Markdown, a line for each row that is there."""
    lines = [
        "| set | test | model | accuracy or Pearson (95 %) | macro F1 or Spearman | Matthews | "
        "best epoch | seconds | story perplexity |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        for row, title in ROWS.items():
            path = out / name / f"{row}.json"
            if path.exists():
                lines.append(line(name, title, json.loads(path.read_text())))
    return "\n".join(lines)


def line(name: str, title: str, found: dict[str, Any]) -> str:
    """One line of the table."""
    metrics = found["metrics"]
    first = metrics.get("accuracy") or metrics["pearson"]
    second = metrics.get("macro_f1") or metrics.get("spearman")
    kept = found.get("forgetting")
    cells = [
        name,
        f"{metrics['n_examples']:,}",
        title,
        f"{first['value']:.4f} ({first['low']:.4f} to {first['high']:.4f})",
        f"{second['value']:.4f}" if second else "",
        f"{metrics['matthews']['value']:.4f}" if "matthews" in metrics else "",
        f"{found['best_epoch']} of {found['epochs']}"
        if "epochs" in found
        else found.get("settings", ""),
        f"{found['seconds']:,.0f}" if "seconds" in found else "",
        f"{kept['perplexity_before']:.2f} → {kept['perplexity_after']:.2f}" if kept else "",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
