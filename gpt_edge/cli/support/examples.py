"""Examples that a command line gives: as arguments, on standard input or in a file. `classify` and
`embed` read them, and `finetune` names their columns by the same options.

data/examples.py reads the lines; a stream is read as it comes, so an endless standard input is
answered batch by batch.
"""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

from gpt_edge.cli.support.stdin import check_unicode, is_terminal_input
from gpt_edge.data.examples import (
    EXPECTED_TEXTS,
    OF_ONE_TEXT,
    PAIRS,
    Columns,
    Example,
    count_fault,
    default_columns,
    names_columns,
    stream_examples,
    table_examples,
)
from gpt_edge.data.tables import SkippedRows
from gpt_edge.errors import ContextLengthError, GPTEdgeError, GPTEdgeWarning, TokenizerError

T = TypeVar("T")


def columns_of(
    kind: str,
    text: Sequence[str] | None = None,
    premise: str | None = None,
    hypothesis: str | None = None,
    choice: Sequence[str] | None = None,
    label: str | None = None,
    *,
    is_score: bool = False,
) -> Columns:
    """The columns that the options name, the default ones for the rest. Raises ValueError for an
    option of another task.
    """
    default = default_columns(kind, is_score)
    texts = tuple(text or default.texts)
    if choice and kind != "multiple-choice":
        raise ValueError(f"--choice is for multiple-choice, not for {kind}")
    if kind == "entailment":
        if text:
            raise ValueError("entailment has --premise and --hypothesis, not --text")
        texts = (premise or default.texts[0], hypothesis or default.texts[1])
    elif premise or hypothesis:
        raise ValueError(f"--premise and --hypothesis are for entailment, {kind} has --text")
    elif kind in OF_ONE_TEXT:  # several columns are parts of the one text
        default = dataclasses.replace(default, is_joined=len(texts) > 1)
    elif kind != "multiple-choice" and len(texts) != len(default.texts):
        n_texts = len(default.texts)
        raise ValueError(f"{kind} expects --text {n_texts} time(s), got {len(texts)}")
    return dataclasses.replace(
        default, texts=texts, choices=tuple(choice or default.choices), label=label or default.label
    )


def pair_columns(text: Sequence[str] | None, label: str | None) -> Columns:
    """The columns of pairs of texts that belong together. Raises ValueError for another number of
    columns, or a label.
    """
    if label is not None:
        raise ValueError("embedding learns from pairs that belong together: leave out --label")
    texts = tuple(text or PAIRS.texts)
    if len(texts) != len(PAIRS.texts):
        raise ValueError(f"embedding expects --text {len(PAIRS.texts)} times, got {len(texts)}")
    return dataclasses.replace(PAIRS, texts=texts)


def with_separator(columns: Columns, separator: str) -> Columns:
    """The columns with several labels in one field. Raises ValueError for an empty separator."""
    if not separator:
        raise ValueError("--label-separator must not be empty")
    return dataclasses.replace(columns, separator=separator)


def source_name(file: Path | None) -> str:
    """How messages name where examples are read from."""
    return "standard input" if file is None else str(file)


def read_examples(
    kind: str,
    texts: Sequence[str],
    file: Path | None,
    as_jsonl: bool,
    columns: Columns,
    skipped: SkippedRows | None = None,
) -> Iterator[Example]:
    """Yield the examples of a command line, one after the other.

    texts: the arguments: one example each for tasks of one text, else together one example; none,
    or "-", reads standard input. Lines are read as `stream_examples` reads them; a CSV file, and a
    TSV file whose first line names the columns, as `table_examples` does, where `skipped` counts
    bad rows. Raises ValueError for arguments that contradict each other, and as those two do.
    """
    is_stdin = list(texts) in ([], ["-"])
    if skipped is not None and (file is None or as_jsonl):
        raise ValueError("--skip-bad-rows is for a table: --file with a .csv or .tsv name")
    if file is not None and texts:
        raise ValueError("give TEXT or --file, not both")
    if file is None and not is_stdin:
        if as_jsonl:
            raise ValueError("--jsonl is for standard input or --file, not for TEXT")
        yield from _of_arguments(kind, texts)
        return
    if file is None and not texts and is_terminal_input():
        expected = EXPECTED_TEXTS[kind]
        raise ValueError(f"give TEXT ({expected}), - to read standard input, or --file FILE")
    is_json = as_jsonl or (file is not None and file.suffix.lower() == ".jsonl")
    if file is not None and not is_json and (format := _table_format(file, columns)):
        yield from table_examples(file, columns, format, skipped)
        return
    if skipped is not None:
        raise ValueError(f"--skip-bad-rows is for a table, {file} is one text a line")
    with _opened(file) as stream:
        yield from stream_examples(stream, source_name(file), kind, columns, is_json)


def _table_format(file: Path, columns: Columns) -> str | None:
    """ "csv" or "tsv" for a file with a line of column names, None for lines of texts."""
    suffix = file.suffix.lower()
    if suffix == ".csv":
        return "csv"
    is_table = suffix == ".tsv" and file.is_file() and names_columns(file, columns)
    return "tsv" if is_table else None


@contextmanager
def errors_name_line(source: str, example: Example) -> Iterator[None]:
    """Let errors about an example's texts name its line; those of an argument are wrong usage."""
    try:
        yield
    except ContextLengthError as error:
        if not example.line:
            raise
        raise error.within(f"{source}, line {example.line}") from error
    except ValueError as error:
        if not example.line:
            raise
        raise GPTEdgeError(f"{source}, line {example.line}: {error}") from error


def tell_skipped(skipped: SkippedRows | None, source: str) -> None:
    """One warning about rows that were left out."""
    if skipped is not None and skipped.count:
        warnings.warn(f"{source}: {skipped}", GPTEdgeWarning, stacklevel=2)


def encode_chunks(
    examples: Iterator[Example], source: str, encode: Callable[[tuple[str, ...]], T], size: int
) -> Iterator[list[T]]:
    """Ids of up to `size` examples at a time. Examples before a faulty one come first, then its
    error is raised.
    """

    def encoded() -> Iterator[T]:
        for example in examples:
            with errors_name_line(source, example):
                ids = encode(example.texts)
            yield ids

    stream = encoded()
    while True:
        chunk: list[T] = []
        fault: Exception | None = None
        try:
            for ids in islice(stream, size):
                chunk.append(ids)
        except (GPTEdgeError, ValueError) as error:
            fault = error
        if chunk:
            yield chunk
        if fault is not None:
            raise fault
        if not chunk:
            return


def _of_arguments(kind: str, texts: Sequence[str]) -> Iterator[Example]:
    for text in texts:
        check_unicode(text)
    if kind in OF_ONE_TEXT:
        yield from (Example(0, (text,)) for text in texts)
        return
    if fault := count_fault(kind, len(texts)):
        raise ValueError(f"TEXT: {fault}")
    yield Example(0, tuple(texts))


@contextmanager
def _opened(file: Path | None) -> Iterator[BinaryIO]:
    if file is None:
        if sys.stdin is None or sys.stdin.closed:
            raise TokenizerError("standard input is closed", hint="give the text as an argument")
        yield sys.stdin.buffer
        return
    if file.exists() and not file.is_file():
        raise GPTEdgeError(
            f"{file} is not a regular file", hint="give a file with one example a line"
        )
    with file.open("rb") as stream:
        yield stream
