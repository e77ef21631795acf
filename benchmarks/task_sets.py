"""The real sets of `tasks.py`: where they lie, how they are split, and the settings found on held-out training examples.

Two sets come as one file; it is split here, a fifth for testing, so that what belongs together stays together: the pairs
of one premise (MED), the two mirrored items of a pair (balanced COPA). So it does where training examples are held out: who
has learned one item of a mirrored pair by heart gets the other one wrong. Labels that are numbers get their names.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gpt_edge.training.task_data import Columns

TEST_SHARE = 5  # one group in so many is for testing


@dataclass(frozen=True)
class TaskSet:
    """A set, its columns, and how models of a few million weights are tuned on it."""

    kind: str
    train: str
    test: str | None  # None: split `train` by the column `group`
    columns: Columns
    epochs: int
    score_range: tuple[float, float] | None = None
    group: str = ""
    hold_out: float = 0.1
    rate: float = 1e-3
    scratch_rate: float = 1e-3
    token_noise: float = 0.0
    label_names: Mapping[str, str] = field(default_factory=dict)


SETS = {
    "banking77": TaskSet(
        "classification",
        "classification/banking77/train.csv",
        "classification/banking77/test.part.csv",
        Columns(("text",), "category"),
        epochs=14,
        token_noise=0.1,
    ),
    "sentiment": TaskSet(
        "classification",
        "classification/sentiment-sentences/train.tsv",
        "classification/sentiment-sentences/dev.tsv",
        Columns(("text",), "label"),
        epochs=8,
        hold_out=0.15,
        label_names={"0": "negative", "1": "positive"},
    ),
    "snli": TaskSet(
        "entailment",
        "entailment/snli/dev.tsv",
        "entailment/snli/test.part.tsv",
        Columns(("premise", "hypothesis"), "label"),
        epochs=3,
    ),
    "med": TaskSet(
        "entailment",
        "entailment/med/med.part.tsv",
        None,
        Columns(("premise", "hypothesis"), "label"),
        epochs=6,
        group="premise",
    ),
    "sts-images": TaskSet(
        "similarity",
        "similarity/sts-images/train.tsv",
        "similarity/sts-images/dev.tsv",
        Columns(("sentence1", "sentence2"), "score"),
        epochs=10,
        score_range=(0.0, 5.0),
        hold_out=0.15,
    ),
    "arc-easy": TaskSet(
        "multiple-choice",
        "multiple-choice/arc-easy/train.jsonl",
        "multiple-choice/arc-easy/test.part.jsonl",
        Columns(("question",), "gold", ("choices",)),
        epochs=4,
    ),
    "balanced-copa": TaskSet(
        "multiple-choice",
        "multiple-choice/balanced-copa/part.jsonl",
        None,
        Columns(("premise", "asks_for"), "gold", ("choices",)),
        epochs=10,
        group="pair",
        hold_out=0.15,
    ),
}


def prepare(task_set: TaskSet, name: str, tasks: Path, out: Path) -> tuple[Path, Path]:
    """Return the files of training and test examples; split or renamed ones are written into `out` first."""
    out.mkdir(parents=True, exist_ok=True)
    source = tasks / task_set.train
    if task_set.test is not None:
        pair = source, tasks / task_set.test
        return _named(task_set, out, pair) if task_set.label_names else pair
    train, test = out / f"train{source.suffix}", out / f"test{source.suffix}"
    if not test.exists():
        _split(source, task_set.group, name, TEST_SHARE, train, test)
    return train, test


def held_out(task_set: TaskSet, name: str, train: Path, out: Path) -> tuple[Path, Path | None]:
    """The files to learn from and to choose the best epoch on; None where it may be any share of the first."""
    if not task_set.group:
        return train, None
    rest, dev = out / f"learn{train.suffix}", out / f"dev{train.suffix}"
    if not dev.exists():
        _split(train, task_set.group, f"{name} dev", round(1 / task_set.hold_out), rest, dev)
    return rest, dev


def _split(source: Path, column: str, salt: str, n: int, most: Path, rest: Path) -> None:
    """Groups of lines, by a column, to two files: one of n, by their hash, to the second."""
    lines = _lines(source)
    header = [] if source.suffix == ".jsonl" else [lines.pop(0)]
    place = header[0].split("\t").index(column) if header else 0

    def is_taken(line: str) -> bool:
        group = line.split("\t")[place] if header else json.loads(line)[column]
        return zlib.crc32(f"{salt} {group}".encode()) % n == 0

    for path, wanted in ((most, False), (rest, True)):
        path.write_text("\n".join([*header, *(line for line in lines if is_taken(line) == wanted)]) + "\n", "utf-8")


def _named(task_set: TaskSet, out: Path, pair: tuple[Path, Path]) -> tuple[Path, Path]:
    """Copies of two TSV files in `out`, their labels by name."""
    copies = out / "train.tsv", out / "test.tsv"
    for path, copy in zip(pair, copies, strict=True):
        header, *lines = (line.split("\t") for line in _lines(path))
        place = header.index(task_set.columns.label)
        for line in lines:
            line[place] = task_set.label_names[line[place]]
        copy.write_text("".join("\t".join(line) + "\n" for line in (header, *lines)), "utf-8")
    return copies


def _lines(path: Path) -> list[str]:
    """Not str.splitlines, which also cuts at characters that belong to texts."""
    return path.read_text("utf-8").removesuffix("\n").split("\n")
