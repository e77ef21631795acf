"""Examples of a task out of TSV, CSV and JSON-lines files with named columns; whatever is wrong is
told by line number.

CSV is read with quoting (RFC 4180), TSV without: a tab always parts two fields. Both begin with a
line of column names. Knows nothing of tokens and models.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt_edge.bundle.manifest import CONTROL
from gpt_edge.errors import TrainingError
from gpt_edge.tasks import MAX_LABEL_CHARACTERS, MAX_LABELS

FORMATS = ("csv", "tsv", "jsonl")
MAX_FILE_BYTES = 1 << 30
DEFAULT_TEXTS = {
    "classification": ("text",),
    "entailment": ("premise", "hypothesis"),
    "similarity": ("sentence1", "sentence2"),
    "multiple-choice": ("question",),
}


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold what.

    texts: one for classification, two for entailment and similarity; for multiple choice those that
    make the context, joined by a space. choices: of multiple choice alone; one column that holds a
    list, or one column for each answer.
    """

    texts: tuple[str, ...]
    label: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """One line of a file. label: a class, a score as it is written, or the number of the right
    answer, from 0.
    """

    line: int
    texts: tuple[str, ...]  # for multiple choice the context, then the answers
    label: str


def default_columns(kind: str, is_score: bool = False) -> Columns:
    """The columns of a task kind where nobody names them."""
    if kind == "multiple-choice":
        return Columns(DEFAULT_TEXTS[kind], "gold", ("choices",))
    return Columns(DEFAULT_TEXTS[kind], "score" if is_score else "label")


def read_examples(path: Path, columns: Columns, format: str | None = None) -> list[Example]:
    """Return the examples of a file, in its order.

    format: one of FORMATS; None takes the file's suffix. Raises TrainingError, naming file and
    line: a file that cannot be read, is not UTF-8 or holds no example; a missing column; a line
    with too many or too few fields; an empty text or label, or a label that no bundle may have; of
    multiple choice, fewer than two answers or a label that is no answer's number.
    """
    format = format or path.suffix.lower().removeprefix(".")
    if format not in FORMATS:
        raise TrainingError(
            f"{path}: cannot tell its format from its name",
            hint=f"name it with --format {'|'.join(FORMATS)}",
        )
    text = _read_text(path)
    rows = _json_rows(path, text) if format == "jsonl" else _table_rows(path, text, columns, format)
    examples = [_example(path, line, row, columns) for line, row in rows]
    if not examples:
        raise TrainingError(
            f"{path} holds no example",
            hint="wanted one line for each, under a line of column names",
        )
    return examples


def class_labels(path: Path, examples: Sequence[Example]) -> tuple[str, ...]:
    """The classes that occur, in the order of their numbers if all are whole numbers, else of their
    letters.

    Raises TrainingError for fewer than two or too many.
    """
    found = {example.label for example in examples}
    if len(found) == 1:
        raise TrainingError(
            f"{path}: every example has the label {found.pop()!r:.80}, wanted at least two classes"
        )
    if len(found) > MAX_LABELS:
        raise TrainingError(
            f"{path}: {len(found):,} different labels, wanted at most {MAX_LABELS:,}",
            hint="is --label the column of the class?",
        )
    try:
        return tuple(sorted(found, key=lambda label: (int(label), label)))
    except ValueError:
        return tuple(sorted(found))


def class_numbers(path: Path, examples: Sequence[Example], labels: Sequence[str]) -> list[int]:
    """The number of each example's class in `labels`. Raises TrainingError, by line, for a label
    that is not there.
    """
    number = {label: i for i, label in enumerate(labels)}
    for example in examples:
        if example.label not in number:
            shown = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
            raise TrainingError(
                f"{path}, line {example.line}: label {example.label!r:.80} does not occur in the "
                "training data",
                hint=f"its labels: {shown}",
            )
    return [number[example.label] for example in examples]


def scores(
    path: Path, examples: Sequence[Example], score_range: tuple[float, float]
) -> list[float]:
    """The examples' scores. Raises TrainingError, by line, for one that is no number or lies
    outside of the range.
    """
    found = []
    for example in examples:
        try:
            score = float(example.label)
        except ValueError:
            score = math.nan
        if not score_range[0] <= score <= score_range[1]:
            raise TrainingError(
                f"{path}, line {example.line}: score {example.label!r:.80}, wanted a number from "
                f"{score_range[0]:g} to {score_range[1]:g}",
                hint="without --score-range, labels are classes",
            )
        found.append(score)
    return found


def balance(examples: Sequence[Example]) -> dict[str, int]:
    """How often each label occurs, the most frequent first."""
    return dict(Counter(example.label for example in examples).most_common())


def _read_text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():  # a folder, or a pipe that may never end
            raise TrainingError(f"cannot read the examples {path}: it is not a regular file")
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise TrainingError(
            f"cannot read the examples {path}: {error.strerror or error}"
        ) from error
    if len(content) > MAX_FILE_BYTES:
        raise TrainingError(
            f"{path} is longer than {MAX_FILE_BYTES >> 20} MiB: examples must fit into memory"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TrainingError(
            f"{path}, line {line}: not UTF-8", hint="convert it, for example with iconv -t UTF-8"
        ) from error


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise TrainingError(
                f"{path}, line {line}: not JSON: {error}", hint="one object a line"
            ) from error
        if not isinstance(row, dict):
            raise TrainingError(
                f"{path}, line {line}: wanted a JSON object, found {type(row).__name__}",
                hint='one a line, such as {"text": "fine", "label": "good"}',
            )
        yield line, row


def _table_rows(
    path: Path, text: str, columns: Columns, format: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    records = _csv_records(path, text) if format == "csv" else _tsv_records(text)
    _, header = next(records, (1, []))
    wanted = (*columns.texts, *columns.choices, columns.label)
    if missing := [name for name in wanted if name not in header]:
        raise TrainingError(
            f"{path}, line 1: there is no column {missing[0]!r}",
            hint=f"its columns: {', '.join(header) or 'none'}"[:300],
        )
    if twice := [name for name in wanted if header.count(name) > 1]:
        raise TrainingError(
            f"{path}, line 1: there are two columns {twice[0]!r}", hint="rename one of them"
        )
    for line, fields in records:
        if len(fields) != len(header):
            raise TrainingError(
                f"{path}, line {line}: {len(fields)} fields, the first line names {len(header)} "
                "columns",
                hint="a text that holds the separator belongs into CSV, between quotes",
            )
        yield line, dict(zip(header, fields, strict=True))


def _csv_records(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Records with the number of the line that each begins on; a quoted field may span lines, and
    be as long as a file.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    first, limit = 1, csv.field_size_limit(MAX_FILE_BYTES)  # of the whole process
    try:
        for fields in reader:
            if fields:  # not an empty line
                yield first, fields
            first = reader.line_num + 1
    except csv.Error as error:
        raise TrainingError(
            f"{path}, line {first}: not CSV: {error}", hint='a quote inside a field is ""'
        ) from error
    finally:
        csv.field_size_limit(limit)


def _tsv_records(text: str) -> Iterator[tuple[int, list[str]]]:
    for line, content in enumerate(text.split("\n"), 1):
        if content.strip("\r"):
            yield line, content.removesuffix("\r").split("\t")


def _example(path: Path, line: int, row: dict[str, Any], columns: Columns) -> Example:
    where = f"{path}, line {line}"
    texts = [_text(where, row, name) for name in columns.texts]
    label = _label(where, row, columns.label)
    if not columns.choices:
        return Example(line, tuple(texts), label)
    answers = _answers(where, row, columns.choices)
    if not label.isascii() or not label.isdigit() or int(label) >= len(answers):
        raise TrainingError(
            f"{where}: {columns.label} is {label!r:.80}, wanted the number of the right answer, "
            f"from 0 to {len(answers) - 1}",
            hint="the first answer is 0",
        )
    return Example(line, (" ".join(texts), *answers), str(int(label)))


def _answers(where: str, row: dict[str, Any], choices: Sequence[str]) -> list[str]:
    if len(choices) == 1 and isinstance(row.get(choices[0]), list):
        found = row[choices[0]]
        if not all(isinstance(answer, str) and answer.strip() for answer in found):
            raise TrainingError(f"{where}: {choices[0]} must be a list of texts that are not empty")
        answers = list(found)
    else:
        answers = [_text(where, row, name) for name in choices]
    if len(answers) < 2:
        raise TrainingError(
            f"{where}: {len(answers)} answer, wanted at least 2",
            hint="a JSON list, or --choice for each answer's column",
        )
    return answers


def _text(where: str, row: dict[str, Any], name: str) -> str:
    value = _value(where, row, name)
    if not isinstance(value, str):
        raise TrainingError(f"{where}: {name} is {value!r:.80}, wanted a text")
    if not value.strip():
        raise TrainingError(
            f"{where}: {name} is empty", hint="remove the line, or name another column"
        )
    return value


def _label(where: str, row: dict[str, Any], name: str) -> str:
    value = _value(where, row, name)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TrainingError(f"{where}: {name} is {value!r:.80}, wanted a text or a number")
    if isinstance(value, float):  # JSON's alone
        if not math.isfinite(value):
            raise TrainingError(
                f"{where}: {name} is {value}, wanted a text or a finite number",
                hint="is it missing?",
            )
        value = int(value) if value.is_integer() else value
    label = str(value).strip()
    if not label:
        raise TrainingError(
            f"{where}: {name} is empty", hint="remove the line, or name another column"
        )
    if len(label) > MAX_LABEL_CHARACTERS:
        raise TrainingError(
            f"{where}: {name} has {len(label):,} characters, wanted at most "
            f"{MAX_LABEL_CHARACTERS:,}",
            hint="is --label the column of the class?",
        )
    if found := CONTROL.search(label):
        raise TrainingError(f"{where}: {name} holds {found[0]!a}, which no bundle's label may")
    return label


def _value(where: str, row: dict[str, Any], name: str) -> Any:
    if name not in row:
        raise TrainingError(
            f"{where}: there is no {name!r}", hint=f"it has: {', '.join(row) or 'nothing'}"[:300]
        )
    return row[name]
