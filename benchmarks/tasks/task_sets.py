"""The real sets of `tasks.py`: where they lie, how they are split, and the settings found on
held-out training examples.

Two sets come as one file; it is split here, a fifth for testing, so that what belongs together
stays together: pairs that share a sentence, on whichever side and over however many others (MED),
the two mirrored items of a pair (balanced COPA). So it does where training examples are held out:
who has learned one item of a mirrored pair by heart gets the other one wrong. Labels that are
numbers get their names.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gpt_edge.data.examples import Columns
from gpt_edge.system.atomic_files import atomic_write

TEST_SHARE = 5  # one group in so many is for testing


@dataclass(frozen=True)
class TaskSet:
    """A set, its columns, and how models of a few million weights are tuned on it."""

    kind: str
    train: str
    test: str | None  # None: split `train` by the columns `group`
    columns: Columns
    epochs: int
    score_range: tuple[float, float] | None = None
    # lines with the same value in any two of these columns belong together
    group: tuple[str, ...] = ()
    hold_out: float = 0.1
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
        group=("premise", "hypothesis"),
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
        group=("pair",),
        hold_out=0.15,
    ),
}


def prepare(task_set: TaskSet, name: str, tasks: Path, out: Path) -> tuple[Path, Path]:
    """Return the files of training and test examples; split or renamed ones are written into `out`
    first.
    """
    out.mkdir(parents=True, exist_ok=True)
    source = tasks / task_set.train
    if task_set.test is not None:
        pair = source, tasks / task_set.test
        return _named(task_set, out, pair) if task_set.label_names else pair
    train, test = out / f"train{source.suffix}", out / f"test{source.suffix}"
    _split(source, task_set.group, name, TEST_SHARE, train, test)
    return train, test


def held_out(
    task_set: TaskSet, name: str, train: Path, out: Path, seed: int
) -> tuple[Path, Path | None]:
    """The files to learn from and to choose the best epoch on; None where it may be any share of
    the first.
    """
    if not task_set.group:
        return train, None
    rest, dev = out / f"learn{train.suffix}", out / f"dev{train.suffix}"
    _split(
        train, task_set.group, f"{name} dev{seed or ''}", round(1 / task_set.hold_out), rest, dev
    )
    return rest, dev


def _split(
    source: Path, columns: tuple[str, ...], salt: str, n: int, most: Path, rest: Path
) -> None:
    """Groups of lines to two files: one group of n, by the hash of its first value, to the
    second.
    """
    lines = _lines(source)
    header = [] if source.suffix == ".jsonl" else [lines.pop(0)]
    names = header[0].split("\t") if header else []
    read = (lambda line: dict(zip(names, line.split("\t"), strict=True))) if header else json.loads
    records = [read(line) for line in lines]
    first = _first_values([[str(record[column]) for column in columns] for record in records])
    taken = [zlib.crc32(f"{salt} {value}".encode()) % n == 0 for value in first]
    for path, wanted in ((most, False), (rest, True)):
        kept = [line for line, is_taken in zip(lines, taken, strict=True) if is_taken == wanted]
        atomic_write(path, ("\n".join([*header, *kept]) + "\n").encode())


def _first_values(rows: list[list[str]]) -> list[str]:
    """Of each row, the least value of all that it is connected with: rows of one group get the
    same.
    """
    leader: dict[str, str] = {}

    def find(value: str) -> str:
        while (above := leader.setdefault(value, value)) != value:
            value = above
        return value

    for row in rows:
        found = sorted(find(value) for value in row)
        leader.update(dict.fromkeys(found, found[0]))
    return [find(row[0]) for row in rows]


def _named(task_set: TaskSet, out: Path, pair: tuple[Path, Path]) -> tuple[Path, Path]:
    """Copies of two TSV files in `out`, their labels by name."""
    copies = out / "train.tsv", out / "test.tsv"
    for path, copy in zip(pair, copies, strict=True):
        header, *lines = (line.split("\t") for line in _lines(path))
        place = header.index(task_set.columns.label)
        for line in lines:
            line[place] = task_set.label_names[line[place]]
        atomic_write(copy, "".join("\t".join(line) + "\n" for line in (header, *lines)).encode())
    return copies


def _lines(path: Path) -> list[str]:
    """Not str.splitlines, which also cuts at characters that belong to texts."""
    return path.read_text("utf-8").removesuffix("\n").split("\n")
