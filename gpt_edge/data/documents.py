"""Reading a corpus of any size, piece by piece: plain text with separators, or JSON lines, either
of them gzip or not.

The documents are those of training (`training/corpus.py`): what lies between separators, without
the line breaks around it, blank ones left out. A long one comes in pieces that end where a single
space follows a word: there every tokenizer of gpt-edge cuts too, so the ids of the pieces are those
of the whole. Only a run of PIECE characters without such a place is cut where it is. Memory: a few
MiB, or the longest line of a JSON-lines file, which may have MAX_LINE bytes.
"""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Literal

from gpt_edge.errors import EvaluationError
from gpt_edge.tokenizer.spec import END_OF_TEXT

CHUNK = 1 << 16  # bytes read at once: small, so that progress moves
PIECE = 1 << 16  # characters
MAX_LINE = 64 << 20
JSON_LINES = (".jsonl", ".ndjson")

TextFormat = Literal["auto", "text", "jsonl"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a document, and whether it is its first and its last."""

    text: str
    starts: bool
    ends: bool


class TextFile:
    """A corpus on the disk. Raises EvaluationError for a path that is not there or is no regular
    file.
    """

    def __init__(
        self, path: Path, separator: str = END_OF_TEXT, format: TextFormat = "auto"
    ) -> None:
        """format: "auto" takes .jsonl and .ndjson, perhaps with .gz after it, for JSON lines, all
        else for text.
        """
        if not separator:
            raise ValueError("the separator of documents must not be empty")
        self.path, self._separator = Path(path), separator
        if not self.path.is_file():  # a pipe or device may never end
            what = "it is not a regular file" if self.path.exists() else "no such file"
            raise EvaluationError(f"cannot read the text {self.path}: {what}")
        self.is_json = format == "jsonl" or (format == "auto" and is_json_lines(self.path))
        self._size = max(1, self.path.stat().st_size)
        self._raw: IO[bytes] | None = None

    @property
    def fraction(self) -> float:
        """How much of the file has been read, from 0 to 1."""
        if self._raw is None:
            return 0.0
        return 1.0 if self._raw.closed else min(1.0, self._raw.tell() / self._size)

    def pieces(self) -> Iterator[Piece]:
        """Every document, in one or more pieces. Raises EvaluationError saying where the file is
        not what it should be.
        """
        n_documents = 0
        try:
            with self.path.open("rb") as raw:
                self._raw = raw
                is_gzip = raw.peek(2)[:2] == b"\x1f\x8b"
                stream: BufferedIOBase = gzip.GzipFile(fileobj=raw) if is_gzip else raw
                for piece in (
                    self._lines(stream)
                    if self.is_json
                    else split(self._decoded(stream), self._separator)
                ):
                    n_documents += piece.starts
                    yield piece
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise EvaluationError(f"{self.path} is a damaged gzip file: {error}") from error
        except OSError as error:
            raise EvaluationError(
                f"cannot read the text {self.path}: {error.strerror or error}"
            ) from error
        if not n_documents:
            wanted = "JSON lines" if self.is_json else f"documents separated by {self._separator!r}"
            raise EvaluationError(f"{self.path} holds no text, wanted {wanted}")

    def _decoded(self, stream: BufferedIOBase) -> Iterator[str]:
        decoder, n_read = codecs.getincrementaldecoder("utf-8")(), 0
        while True:
            chunk = stream.read(CHUNK)
            n_before = n_read - len(decoder.getstate()[0])
            n_read += len(chunk)
            try:
                yield decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                raise EvaluationError(
                    f"{self.path} is not UTF-8: byte {n_before + error.start} is "
                    f"0x{error.object[error.start]:02x}",
                    hint="convert it, for example with iconv -t UTF-8",
                ) from error
            if not chunk:
                return

    def _lines(self, stream: BufferedIOBase) -> Iterator[Piece]:
        number = 0
        while line := stream.readline(MAX_LINE + 1):
            number += 1
            where = f"line {number} of {self.path}"
            if len(line) > MAX_LINE:
                raise EvaluationError(f"{where} has more than {MAX_LINE >> 20} MiB")
            if line.strip() and (text := _text_of(line, where)).strip():
                yield from cut(text)


def is_json_lines(path: Path) -> bool:
    """By the name: .jsonl or .ndjson, perhaps with .gz after it."""
    return path.name.lower().removesuffix(".gz").endswith(JSON_LINES)


def _text_of(line: bytes, where: str) -> str:
    """The value of "text" in a line of JSON."""
    try:
        value = json.loads(line)
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{where} is not UTF-8: {error.reason}") from error
    except (ValueError, RecursionError) as error:
        raise EvaluationError(
            f"{where} is not JSON: {error}", hint="for plain text, --format text"
        ) from error
    text = value.get("text") if isinstance(value, dict) else None
    if not isinstance(text, str):
        found = (
            f"an object with {', '.join(map(ascii, value))[:100] or 'nothing'}"
            if isinstance(value, dict)
            else None
        )
        raise EvaluationError(
            f'{where} has no "text": wanted {{"text": "..."}}, found {found or type(value).__name__}'
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise EvaluationError(
            f"{where} holds half a surrogate pair, which is no character"
        ) from error
    return text


def split(chunks: Iterator[str], separator: str) -> Iterator[Piece]:
    """Cut a text that comes in chunks at each separator, and what is long within a document."""
    held, at, starts = "", 0, True
    for chunk in chunks:
        held, at = held[at:] + chunk, 0
        while (found := held.find(separator, at)) >= 0:
            yield from _trimmed(Piece(held[at:found], starts, True))
            at, starts = found + len(separator), True
        while len(held) - at > PIECE + len(separator):  # the end may hold half a separator
            place = safe_place(held, at, at + PIECE)
            yield from _trimmed(Piece(held[at:place], starts, False))
            at, starts = place, False
    yield from _trimmed(Piece(held[at:], starts, True))


def cut(text: str) -> Iterator[Piece]:
    """One document in pieces."""
    at = 0
    while len(text) - at > PIECE:
        place = safe_place(text, at, at + PIECE)
        yield Piece(text[at:place], at == 0, False)
        at = place
    yield Piece(text[at:], at == 0, True)


def safe_place(text: str, start: int, stop: int) -> int:
    """The last place in start + 1 .. stop where a single space stands between two words; `stop` if
    there is none.

    GPT-2's pattern begins a piece with such a space; GPT-1 drops it.
    """
    place = stop + 1
    while (place := text.rfind(" ", start + 1, place)) > 0:
        if not text[place - 1].isspace() and not text[place + 1 : place + 2].isspace():
            return place
    return stop


def _trimmed(piece: Piece) -> Iterator[Piece]:
    """Without the line breaks around a document; nothing for a blank one."""
    text = piece.text.lstrip("\r\n") if piece.starts else piece.text
    text = text.rstrip("\r\n") if piece.ends else text
    if not (piece.starts and piece.ends) or text.strip():
        yield Piece(text, piece.starts, piece.ends)
