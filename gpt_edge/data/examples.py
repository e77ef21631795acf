"""Examples of a task: texts, and for training their labels. Every fault is reported with the name
of its source and its line number.

`read_examples` reads a file with labels: CSV or TSV under a line of column names (`tables.py`), or
JSON Lines, one object a line. `table_examples` reads such a table without labels,
`stream_examples` examples without labels as they come, one a line. Knows nothing of tokens, models
and the command line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from gpt_edge.bundle.manifest import CONTROL
from gpt_edge.data.tables import Line, SkippedRows, read_table, row_of
from gpt_edge.errors import GPTEdgeError, TokenizerError, TrainingError
from gpt_edge.tasks import MAX_LABEL_CHARACTERS, TEXT, TOKENS

FORMATS = ("csv", "tsv", "jsonl")
MAX_FILE_BYTES = 1 << 30
MAX_LINE_BYTES = 64 << 20  # of a stream
UTF8_HINT = "convert it, for example with iconv -t UTF-8"
# "embedding" is no task: any text, by itself
DEFAULT_TEXTS = {
    "embedding": ("text",),
    "classification": ("text",),
    "entailment": ("premise", "hypothesis"),
    "similarity": ("sentence1", "sentence2"),
    "multiple-choice": ("question",),
    TEXT: ("text",),
    TOKENS: ("text",),
}
EXPECTED_TEXTS = {
    "embedding": "a text",
    "classification": "a text",
    "entailment": "a premise and a hypothesis",
    "similarity": "two texts",
    "multiple-choice": "a question and at least two answers",
    TEXT: "a text",
    TOKENS: "a text",
}
# one text an example, so that several arguments are several examples, and a tab is part of a text
OF_ONE_TEXT = ("embedding", "classification", TEXT, TOKENS)


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of a table, or keys of JSON objects, and what they hold.

    texts: one for classification, two for entailment and similarity; for multiple choice those that
    make the context, joined by a space. label: not read where examples have none. choices: of
    multiple choice alone; one column that holds a list, or one column for each answer. is_joined:
    texts are the parts of one text, joined by a space; of them some may be empty. separator: of
    several labels in one field, which may be none; None: one label. In JSON they may be a list.
    has_label: False where training needs none, as of pairs that belong together.
    """

    texts: tuple[str, ...]
    label: str = "label"
    choices: tuple[str, ...] = ()
    is_joined: bool = False
    separator: str | None = None
    has_label: bool = True


@dataclass(frozen=True, slots=True)
class Example:
    """One example. label: a class, a score as written, or the number of the right answer, from 0;
    "" where none was read. labels: where there may be several.
    """

    line: int  # that it begins on; 0 for an example that is in no file
    texts: tuple[str, ...]  # for multiple choice the context, then the answers
    label: str = ""
    labels: tuple[str, ...] = ()


PAIRS = Columns(("sentence1", "sentence2"), has_label=False)

Row = tuple[Line, Callable[[], dict[str, Any]]]  # where it is, and how to read it
Check = Callable[[Line, str, Any], str]  # of a value, by its name; returns it as a text


def default_columns(kind: str, is_score: bool = False) -> Columns:
    """The columns of a task kind unless others are named."""
    if kind == "multiple-choice":
        return Columns(DEFAULT_TEXTS[kind], "gold", ("choices",))
    return Columns(DEFAULT_TEXTS[kind], "score" if is_score else "label")


def read_examples(
    path: Path,
    columns: Columns,
    format: str | None = None,
    skipped: SkippedRows | None = None,
) -> list[Example]:
    """Return the labelled examples of a file, in its order.

    format: one of FORMATS; None takes the file's suffix. skipped: counts rows with a fault, which
    are left out; None raises the first one's. Raises TrainingError, naming file and line: a file
    that cannot be read, is not UTF-8 or holds no example; a missing column; a line with too many or
    too few fields; an empty text or label, or a label that no bundle may have; of multiple choice,
    fewer than two answers or a label that is not an answer's number.
    """
    format = format or path.suffix.lower().removeprefix(".")
    if format not in FORMATS:
        raise TrainingError(
            f"{path}: cannot tell its format from its name",
            hint=f"name it with --format {'|'.join(FORMATS)}",
        )
    text = _read_text(path)
    needed = (*columns.texts, *columns.choices, *([columns.label] if columns.has_label else []))
    rows = _json_rows(path, text) if format == "jsonl" else _rows(path, text, format, needed)
    examples = list(_checked(rows, lambda line, row: _labelled(line, row, columns), skipped))
    if not examples:
        rest = f"; {skipped}" if skipped is not None and skipped.count else ""
        raise TrainingError(
            f"{path} holds no example{rest}",
            hint="expected one a line, under a line of column names",
        )
    return examples


def table_examples(
    path: Path, columns: Columns, format: str, skipped: SkippedRows | None = None
) -> Iterator[Example]:
    """Yield the examples of a CSV or TSV file, whose label, if there is one, is not read. Raises as
    `read_examples`.
    """
    rows = _rows(path, _read_text(path), format, (*columns.texts, *columns.choices))

    def example(line: Line, row: dict[str, Any]) -> Example:
        return Example(line.number, _texts(line, row, columns, _checked_text))

    return _checked(rows, example, skipped)


def names_columns(path: Path, columns: Columns) -> bool:
    """Whether the first line of a TSV file names all columns of the texts: then it is a table, and
    no list of texts.
    """
    with path.open("rb") as file:
        first = file.readline(MAX_LINE_BYTES).decode("utf-8-sig", "replace")
    return {*columns.texts, *columns.choices} <= set(first.rstrip("\r\n").split("\t"))


def _checked(
    rows: Iterator[Row],
    make: Callable[[Line, dict[str, Any]], Example],
    skipped: SkippedRows | None,
) -> Iterator[Example]:
    """What `make` makes of each row; a fault of one is counted, or raised."""
    for line, parse in rows:
        try:
            example = make(line, parse())
        except GPTEdgeError as error:
            if skipped is None:
                raise
            skipped.add(error.message.removeprefix(f"{line.source}, "))
        else:
            yield example


def stream_examples(
    stream: BinaryIO, source: str, kind: str, columns: Columns, as_json: bool
) -> Iterator[Example]:
    """Yield the examples of a stream, which may be endless, without labels.

    source: its name, for messages. A line holds the texts of an example, separated by tabs;
    as_json: an object with `columns`, a list of strings, or a string, and blank lines are skipped.
    Raises GPTEdgeError, naming the line, for one that is too long or is not a valid example,
    TokenizerError for one that is not UTF-8; OSError.
    """
    for line, content in _lines(stream, source):
        if as_json:
            if not content.strip():
                continue
            texts = _texts_of_json(line, content, columns)
        elif kind in OF_ONE_TEXT:
            texts = (content,)
        else:
            texts = tuple(content.split("\t"))
        if fault := count_fault(kind, len(texts)):
            is_short = kind == "multiple-choice" or len(texts) < 2
            hint = "separate them with a tab, or give JSON lines with --jsonl"
            raise line.fault(fault, hint=hint if is_short else None)
        yield Example(line.number, texts)


def count_fault(kind: str, n_texts: int) -> str | None:
    """What is wrong with the number of an example's texts; None if nothing is."""
    is_right = n_texts == len(DEFAULT_TEXTS[kind])
    if kind == "multiple-choice":
        is_right = n_texts >= 3
    if is_right:
        return None
    return f"{n_texts} text{'s' * (n_texts != 1)}, {kind} expects {EXPECTED_TEXTS[kind]}"


def _lines(stream: BinaryIO, source: str) -> Iterator[tuple[Line, str]]:
    """Lines without their ends."""
    number = 0
    while content := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        line = Line(source, number, GPTEdgeError)
        if len(content) > MAX_LINE_BYTES:
            raise line.fault(f"more than {MAX_LINE_BYTES >> 20} MiB")
        try:
            text = content.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            fault = Line(source, number, TokenizerError)
            raise fault.fault("not UTF-8", hint=UTF8_HINT) from error
        yield line, text.removesuffix("\n").removesuffix("\r")


def _texts_of_json(line: Line, content: str, columns: Columns) -> tuple[str, ...]:
    value = _parsed_json(line, content)
    if isinstance(value, dict):
        return _texts(line, value, columns, _checked_string)
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        raise line.fault(
            f"expected an object, a list of strings or a string, got {json.dumps(value)[:40]}"
        )
    return tuple(
        _checked_string(line, f"text {number}", text) for number, text in enumerate(value, 1)
    )


def _read_text(path: Path) -> str:
    """The text of a whole file, without a byte order mark."""
    try:
        if path.exists() and not path.is_file():  # a folder, or a pipe that may never end
            raise TrainingError(f"cannot read the examples {path}: it is not a regular file")
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = error.strerror or error
        raise TrainingError(f"cannot read the examples {path}: {reason}") from error
    if len(content) > MAX_FILE_BYTES:
        raise TrainingError(
            f"{path} is longer than {MAX_FILE_BYTES >> 20} MiB: examples must fit into memory"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = Line(str(path), content.count(b"\n", 0, error.start) + 1, TrainingError)
        raise line.fault("not UTF-8", hint=UTF8_HINT) from error


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    for number, content in enumerate(text.split("\n"), 1):
        if content.strip():
            line = Line(str(path), number, TrainingError)
            yield line, partial(_json_row, line, content)


def _json_row(line: Line, content: str) -> dict[str, Any]:
    row = _parsed_json(line, content, hint="one object a line")
    if not isinstance(row, dict):
        raise line.fault(
            f"expected a JSON object, got {type(row).__name__}",
            hint='one a line, such as {"text": "fine", "label": "good"}',
        )
    return row


def _rows(path: Path, text: str, format: str, needed: Sequence[str]) -> Iterator[Row]:
    table = read_table(str(path), text, format, needed)
    for number, fields in table.records:
        line = Line(str(path), number, TrainingError)
        yield line, partial(row_of, line, table.header, fields)


def _parsed_json(line: Line, content: str, hint: str | None = None) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise line.fault(f"not JSON: {error}", hint=hint) from error


def _labelled(line: Line, row: dict[str, Any], columns: Columns) -> Example:
    texts = _texts(line, row, columns, _checked_text)
    if not columns.has_label:
        return Example(line.number, texts)
    if columns.separator is not None:
        return Example(line.number, texts, labels=_labels(line, row, columns))
    label = _label(line, row, columns.label)
    if not columns.choices:
        return Example(line.number, texts, label)
    n_answers = len(texts) - 1
    if n_answers < 2:
        raise line.fault(
            f"{n_answers} answer, expected at least 2",
            hint="a JSON list, or --choice for each answer's column",
        )
    if not label.isascii() or not label.isdigit() or int(label) >= n_answers:
        raise line.fault(
            f"{columns.label} is {label!r:.80}, expected the number of the right answer, from 0 to "
            f"{n_answers - 1}",
            hint="the first answer is 0",
        )
    return Example(line.number, texts, str(int(label)))


def _texts(line: Line, row: dict[str, Any], columns: Columns, check: Check) -> tuple[str, ...]:
    if columns.is_joined:
        return (_joined(line, row, columns.texts),)
    texts = [check(line, name, _value(line, row, name)) for name in columns.texts]
    choices = columns.choices
    if not choices:
        return tuple(texts)
    if len(choices) == 1 and isinstance(row.get(choices[0]), list):
        name = f"an answer in {choices[0]}"
        answers = [check(line, name, answer) for answer in row[choices[0]]]
    else:
        answers = [check(line, name, _value(line, row, name)) for name in choices]
    return (" ".join(texts), *answers)


def _joined(line: Line, row: dict[str, Any], names: Sequence[str]) -> str:
    """The parts of one text that are not empty."""
    parts = [_checked_string(line, name, _value(line, row, name)).strip() for name in names]
    if not any(parts):
        raise line.fault(f"{' and '.join(names)} are empty", hint="remove the line")
    return " ".join(filter(None, parts))


def _checked_string(line: Line, name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise line.fault(f"{name} is {value!r:.80}, expected a string")
    return value


def _checked_text(line: Line, name: str, value: Any) -> str:
    text = _checked_string(line, name, value)
    if not text.strip():
        raise line.fault(f"{name} is empty", hint="remove the line, or name another column")
    return text


def _labels(line: Line, row: dict[str, Any], columns: Columns) -> tuple[str, ...]:
    """Several labels, each once, in the order given."""
    name = columns.label
    value = _value(line, row, name)
    if isinstance(value, str):
        value = [part.strip() for part in value.split(columns.separator) if part.strip()]
    if not isinstance(value, list):
        raise line.fault(
            f"{name} is {value!r:.80}, expected a list of labels",
            hint=f"or a string of labels with {columns.separator!r} between them",
        )
    return tuple(dict.fromkeys(_checked_label(line, name, label) for label in value))


def _label(line: Line, row: dict[str, Any], name: str) -> str:
    return _checked_label(line, name, _value(line, row, name))


def _checked_label(line: Line, name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise line.fault(f"{name} is {value!r:.80}, expected a string or a number")
    if isinstance(value, float):  # JSON's alone
        if not math.isfinite(value):
            raise line.fault(
                f"{name} is {value}, expected a string or a finite number", hint="is it missing?"
            )
        value = int(value) if value.is_integer() else value
    label = _checked_text(line, name, str(value)).strip()
    if len(label) > MAX_LABEL_CHARACTERS:
        raise line.fault(
            f"{name} has {len(label):,} characters, expected at most {MAX_LABEL_CHARACTERS:,}",
            hint="is --label the column of the class?",
        )
    if control := CONTROL.search(label):
        raise line.fault(f"{name} holds {control[0]!a}, which a bundle's label may not hold")
    return label


def _value(line: Line, row: dict[str, Any], name: str) -> Any:
    if name not in row:
        keys = ", ".join(row) or "nothing"
        raise line.fault(f"there is no {name!r}", hint=f"it has: {keys}"[:300])
    return row[name]
