"""The text that the base model of the task table is pretrained on: the sets' own training texts, an
encyclopedia, stories.

    python benchmarks/tasks/task_text.py --data ../shared/data --out runs/task-text
    gpt-edge train models/task-mix.toml

Of each set only what `tasks.py` trains on is taken, never a test example. Writes train.txt and
valid.txt.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path

from task_sets import SETS, TaskSet, prepare

END = "<|endoftext|>"
STORIES = 6_000
HELD_OUT = 300  # documents of valid.txt
SHORTEST_PARAGRAPH = 100  # characters; below are headings
# WikiText's spaces around punctuation, which no text that a user classifies has.
SPACED = (
    (" @-@ ", "-"),
    (" @,@ ", ","),
    (" @.@ ", "."),
    (" ,", ","),
    (" .", "."),
    (" n't", "n't"),
    (" '", "'"),
    (" )", ")"),
    ("( ", "("),
    (" ;", ";"),
    (" :", ":"),
)


def main() -> None:
    """Write the two files."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument(
        "--data", type=Path, required=True, help="folder with tasks/, tinystories/ and wikitext-2/"
    )
    arguments.add_argument("--out", type=Path, required=True)
    given = arguments.parse_args()
    draw = random.Random(1)
    own = list(
        dict.fromkeys(text for name, task in SETS.items() for text in examples(task, name, given))
    )
    paragraphs = encyclopedia(given.data / "wikitext-2" / "valid.txt")
    stories = (
        gzip.decompress((given.data / "tinystories" / "train.txt.gz").read_bytes())
        .decode()
        .split(END)
    )
    documents = own + paragraphs
    draw.shuffle(documents)
    valid, train = (
        documents[:HELD_OUT],
        documents[HELD_OUT:] + [story.strip() for story in stories[:STORIES]],
    )
    draw.shuffle(train)
    given.out.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", train), ("valid", valid)):
        (given.out / f"{name}.txt").write_text(f"\n{END}\n".join(part), "utf-8")
    print(f"{len(own):,} texts of the sets, {len(paragraphs):,} paragraphs, {STORIES:,} stories")


def examples(task: TaskSet, name: str, given: argparse.Namespace) -> Iterator[str]:
    """The texts of a set's training examples: each part, and a right answer after its question."""
    path = prepare(task, name, given.data / "tasks", given.out / name)[0]
    for record in records(path):
        parts = [str(record[column]) for column in task.columns.texts]
        if task.columns.choices:
            yield " ".join([*parts, record[task.columns.choices[0]][record[task.columns.label]]])
        else:
            yield from parts


def records(path: Path) -> Iterator[dict[str, object]]:
    """The lines of a CSV, TSV or JSONL file by column."""
    with open(path, encoding="utf-8", newline="") as file:
        match path.suffix:
            case ".jsonl":
                yield from map(json.loads, file)
            case ".csv":
                yield from csv.DictReader(file)
            case _:
                yield from csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)


def encyclopedia(path: Path) -> list[str]:
    """WikiText's paragraphs as people write them."""
    text = path.read_text("utf-8")
    for spaced, plain in SPACED:
        text = text.replace(spaced, plain)
    return [line.strip() for line in text.split("\n") if len(line.strip()) >= SHORTEST_PARAGRAPH]


if __name__ == "__main__":
    main()
