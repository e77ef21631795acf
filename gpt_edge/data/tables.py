"""Tables as lines with fields: CSV with quotes (RFC 4180), its fields separated by commas,
semicolons or tabs, and TSV without quotes. The first line names the columns. Knows nothing of
examples.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from gpt_edge.errors import GPTEdgeError, TrainingError

MAX_FIELD_BYTES = 1 << 30
MAX_REPORTED = 3  # faults of skipped rows that are told
# of CSV; spreadsheets write the second where a comma is a decimal point, and tabs as "text"
SEPARATORS = (",", ";", "\t")


Records = Iterator[tuple[int, list[str]]]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a source, for messages."""

    source: str
    number: int
    error: type[GPTEdgeError]

    def fault(self, message: str, hint: str | None = None) -> GPTEdgeError:
        return self.error(f"{self.source}, line {self.number}: {message}", hint=hint)


@dataclass(slots=True)
class SkippedRows:
    """Rows that were left out because something is wrong with them, and the first faults."""

    count: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, fault: str) -> None:
        """Count one row."""
        self.count += 1
        if len(self.faults) < MAX_REPORTED:
            self.faults.append(fault)

    def __str__(self) -> str:
        rest = "; ..." if self.count > len(self.faults) else ""
        plural = "s" * (self.count != 1)
        return f"skipped {self.count:,} bad row{plural}: {'; '.join(self.faults)}{rest}"


@dataclass(frozen=True, slots=True)
class Table:
    """The names of the columns, and the fields of each further line; too many or too few stay as
    they are.
    """

    header: list[str]
    records: Iterator[tuple[int, list[str]]]  # with the number of the line that each begins on


def read_table(source: str, text: str, format: str, needed: Sequence[str]) -> Table:
    """The table in `text`. format: "csv" or "tsv"; needed: names of columns.

    CSV is separated by the first of SEPARATORS whose header names every needed column. Raises
    TrainingError for a needed column that is missing or there twice; the records raise it for
    quotes that do not match.
    """
    if format == "tsv":
        table = Table(*_header(_tsv_records(text)))
    else:
        table = _read_csv(source, text, set(needed))
    first = Line(source, 1, TrainingError)
    if missing := [name for name in needed if name not in table.header]:
        raise first.fault(
            f"there is no column {missing[0]!r}",
            hint=f"its columns: {', '.join(table.header) or 'none'}"[:300],
        )
    if twice := [name for name in needed if table.header.count(name) > 1]:
        raise first.fault(f"there are two columns {twice[0]!r}", hint="rename one of them")
    return table


def row_of(line: Line, header: Sequence[str], fields: Sequence[str]) -> dict[str, str]:
    """Column to field. Raises Line's error for another number of fields than columns."""
    if len(fields) != len(header):
        raise line.fault(
            f"{len(fields)} fields, the first line names {len(header)} columns",
            hint="write a text that holds the separator as CSV, between quotes",
        )
    return dict(zip(header, fields, strict=True))


def _read_csv(source: str, text: str, needed: set[str]) -> Table:
    """By the first separator whose header names every needed column, else by the one that finds
    most columns. A header in quotes is no CSV by the other separators.
    """
    tables, faults = [], []
    for separator in SEPARATORS:
        try:
            table = Table(*_header(_csv_records(source, text, separator)))
        except TrainingError as fault:
            faults.append(fault)
            continue
        if needed <= set(table.header):
            return table
        tables.append(table)
    if not tables:
        raise faults[0]
    return max(tables, key=lambda table: len(table.header))


def _header(records: Records) -> tuple[list[str], Records]:
    _, header = next(records, (1, []))
    return header, records


def _csv_records(source: str, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """A quoted field may span lines, and be as long as a file."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    number = 1
    limit = csv.field_size_limit(MAX_FIELD_BYTES)  # of the whole process
    try:
        for fields in reader:
            if fields:  # not an empty line
                yield number, fields
            number = reader.line_num + 1
    except csv.Error as error:
        line = Line(source, number, TrainingError)
        raise line.fault(f"not CSV: {error}", hint='a quote inside a field is ""') from error
    finally:
        csv.field_size_limit(limit)


def _tsv_records(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, content in enumerate(text.split("\n"), 1):
        if content.strip("\r"):
            yield number, content.removesuffix("\r").split("\t")
