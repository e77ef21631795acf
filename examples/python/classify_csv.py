"""Classify one column of a CSV file and write the rows again with a label and probabilities.

python classify_csv.py reviews.csv labelled.csv --column review --bundle sentiment-6m-int8
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import gpt_edge

ROWS_AT_ONCE = 256  # bounds the memory, whatever the length of the file


def batches(rows: Iterator[dict[str, str]]) -> Iterator[list[dict[str, str]]]:
    while batch := list(islice(rows, ROWS_AT_ONCE)):
        yield batch


def main() -> None:
    parser = argparse.ArgumentParser(description="Classify one column of a CSV file.")
    parser.add_argument("source", type=Path, help="CSV file with a line of column names")
    parser.add_argument("out", type=Path, help="CSV file to write")
    parser.add_argument("--column", required=True, help="column that holds the texts")
    parser.add_argument("--bundle", default="sentiment-6m-int8", help="folder or name")
    options = parser.parse_args()

    classifier = gpt_edge.Classifier.load(options.bundle)
    with (
        options.source.open(encoding="utf-8", newline="") as source,
        options.out.open("w", encoding="utf-8", newline="") as out,
    ):
        reader = csv.DictReader(source)
        columns = list(reader.fieldnames or ())
        if options.column not in columns:
            sys.exit(f"error: {options.source} has no column {options.column!r}, only {columns}")
        writer = csv.DictWriter(out, [*columns, "label", *classifier.labels])
        writer.writeheader()
        n_rows = 0
        for batch in batches(iter(reader)):
            texts = [row[options.column] for row in batch]
            # the end of a text that is too long is cut, as in fine-tuning
            predictions = classifier.predict(texts, truncate="right")
            for row, prediction in zip(batch, predictions.rows, strict=True):
                figures = {
                    label: f"{probability:.4f}"
                    for label, probability in zip(
                        classifier.labels, prediction.probabilities, strict=True
                    )
                }
                writer.writerow({**row, "label": prediction.label, **figures})
            n_rows += len(batch)
    print(f"{n_rows} rows, labels {', '.join(classifier.labels)}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except (gpt_edge.GPTEdgeError, OSError) as error:
        sys.exit(f"error: {error}")
