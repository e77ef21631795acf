"""Text files as a stream of documents, in pieces small enough to tokenize one at a time.

A file is plain text with a separator between documents, or JSON Lines with one document a line
(.jsonl, .ndjson); either may be gzip. A document is stripped of the line breaks around it, and
blank documents are skipped. A long document comes in pieces that end where white space follows a
word: every tokenizer of gpt-edge splits there too, so the ids of the pieces, joined, are the ids of
the document. Only a run of PIECE_CHARACTERS without white space is cut inside a word.

Memory: a few MiB, whatever the size of the file; for JSON Lines a few times the longest line.
Knows nothing of tokens.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any, Literal

from gpt_edge.errors import EvaluationError, GPTEdgeError
from gpt_edge.tokenizer.spec import END_OF_TEXT

CHUNK_BYTES = 1 << 16  # read at once: small, so that progress moves
PIECE_CHARACTERS = 1 << 16  # the token ids of a piece, up to four a character, stay small
UTF8_HINT = "convert it, for example with iconv -t UTF-8"
JSON_LINES = (".jsonl", ".ndjson")
# JSON can spell them; "surrogateescape" decodes bytes that are not UTF-8 to them
_SURROGATES = re.compile("[\ud800-\udfff]")

TextFormat = Literal["auto", "text", "jsonl"]
ENCODING_ERRORS = ("strict", "replace")


@dataclass(frozen=True, slots=True)
class Piece:
    """A document, or a part of a long one."""

    text: str
    is_start: bool  # of the document
    is_end: bool
    n_bad_bytes: int = 0  # bytes read for it that were not UTF-8 and became U+FFFD


@dataclass(frozen=True, slots=True)
class TextOptions:
    """How a file becomes documents, and how faults are reported. Raises ValueError for an empty
    separator.

    cleans_json: treat a text of JSON Lines as plain text is treated: strip the line breaks around
    it, and replace half a surrogate pair by U+FFFD, which else is a fault. max_line_bytes: JSON
    Lines are read into memory line by line, and one emoji makes each character of it four bytes.
    """

    separator: str = END_OF_TEXT  # between documents of plain text
    format: TextFormat = "auto"  # by the name, see `is_json_lines`
    field: str = "text"  # the key of the document in a line of JSON
    max_line_bytes: int = 64 << 20
    encoding_errors: str = "strict"  # "replace" reads bytes that are not UTF-8 as U+FFFD
    cleans_json: bool = False
    may_be_empty: bool = False  # else a file without a document is a fault
    error: type[GPTEdgeError] = EvaluationError  # raised for a fault of the file
    encoding_hint: str = UTF8_HINT
    json_hint: str | None = "for plain text, --format text"
    field_hint: str | None = None
    line_hint: str | None = None

    def __post_init__(self) -> None:
        if not self.separator:
            raise ValueError("the separator of documents must not be empty")
        if self.encoding_errors not in ENCODING_ERRORS:
            known = ", ".join(ENCODING_ERRORS)
            raise ValueError(f"encoding_errors must be one of {known}, got {self.encoding_errors}")


class TextFile:
    """One file of documents. Raises `options.error` for a path that is missing or is not a regular
    file.
    """

    def __init__(self, path: Path, options: TextOptions | None = None) -> None:
        self.path = Path(path)
        self._options = options or TextOptions()
        if not self.path.is_file():  # a pipe or a device may never end
            fault = "it is not a regular file" if self.path.exists() else "no such file"
            raise self._error(f"cannot read the text {self.path}: {fault}")
        named = self._options.format
        self.is_json = is_json_lines(self.path) if named == "auto" else named == "jsonl"
        self._size = max(1, self.path.stat().st_size)
        self._raw: IO[bytes] | None = None
        self._n_bad_bytes = 0  # of plain text, since the last piece

    @property
    def fraction(self) -> float:
        """How much of the file has been read, from 0 to 1."""
        if self._raw is None:
            return 0.0
        return 1.0 if self._raw.closed else min(1.0, self._raw.tell() / self._size)

    def pieces(self, progress: Callable[[int], None] = lambda n_bytes: None) -> Iterator[Piece]:
        """Yield every document in one or more pieces.

        progress: called with the number of bytes of text just read. Raises `options.error`, naming
        the line or the byte: a file that cannot be read, corrupt gzip, text that is not UTF-8, a
        line that is too long, is not JSON or has no text under `field`, a file without a document.
        """
        is_empty = True
        for piece in self._read(progress):
            is_empty = False
            yield piece
        if is_empty and not self._options.may_be_empty:
            expected = f"documents separated by {self._options.separator!r}"
            if self.is_json:
                expected = "JSON lines"
            raise self._error(f"{self.path} holds no text, expected {expected}")

    def _read(self, progress: Callable[[int], None]) -> Iterator[Piece]:
        try:
            with self.path.open("rb") as raw:
                self._raw = raw
                is_gzip = raw.peek(2)[:2] == b"\x1f\x8b"
                stream: BufferedIOBase = gzip.GzipFile(fileobj=raw) if is_gzip else raw
                if self.is_json:
                    yield from self._pieces_of_lines(stream, progress)
                else:
                    yield from self._pieces_of_text(stream, progress)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self._error(f"{self.path} is a corrupt gzip file: {error}") from error
        except OSError as error:
            reason = error.strerror or error
            raise self._error(f"cannot read the text {self.path}: {reason}") from error

    def _pieces_of_text(
        self, stream: BufferedIOBase, progress: Callable[[int], None]
    ) -> Iterator[Piece]:
        for piece in split(self._decoded(stream, progress), self._options.separator):
            yield replace(piece, n_bad_bytes=self._n_bad_bytes)
            self._n_bad_bytes = 0

    def _decoded(self, stream: BufferedIOBase, progress: Callable[[int], None]) -> Iterator[str]:
        """Chunks of text, without a byte order mark."""
        is_strict = self._options.encoding_errors == "strict"
        errors = "strict" if is_strict else "surrogateescape"
        decoder = codecs.getincrementaldecoder("utf-8")(errors)
        n_read = 0
        is_first = True
        while True:
            chunk = stream.read(CHUNK_BYTES)
            progress(len(chunk))
            # the decoder keeps the bytes of a character that the chunks cut in two
            start = n_read - len(decoder.getstate()[0])
            n_read += len(chunk)
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                raise self._error(
                    f"{self.path} is not UTF-8: byte {start + error.start} is "
                    f"0x{error.object[error.start]:02x}",
                    hint=self._options.encoding_hint,
                ) from error
            if text and is_first:
                text = text.removeprefix("\ufeff")
                is_first = False
            text, n_bad = _without_surrogates(text)
            self._n_bad_bytes += n_bad
            yield text
            if not chunk:
                return

    def _pieces_of_lines(
        self, stream: BufferedIOBase, progress: Callable[[int], None]
    ) -> Iterator[Piece]:
        limit = self._options.max_line_bytes
        number = 0
        while line := stream.readline(limit + 1):
            number += 1
            if len(line) > limit:
                raise self._error(
                    f"{self.path}, line {number} is longer than {limit >> 20} MiB",
                    hint=self._options.line_hint,
                )
            progress(len(line))
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if not line.strip():
                continue
            text, n_bad = self._document_of(line, f"{self.path}, line {number}")
            line = b""  # up to a quarter of the memory, while the pieces are used
            if not text.strip():
                continue
            is_cleaned = self._options.cleans_json
            for piece in _last_pieces(text, False) if is_cleaned else cut(text):
                yield replace(piece, n_bad_bytes=n_bad)
                n_bad = 0

    def _document_of(self, line: bytes, where: str) -> tuple[str, int]:
        """The text of a line of JSON, and how many bytes of the line were not UTF-8."""
        options = self._options
        errors = "strict" if options.encoding_errors == "strict" else "surrogateescape"
        try:
            content, n_bad = _without_surrogates(line.decode("utf-8", errors))
            value = json.loads(content)
        except UnicodeDecodeError as error:
            raise self._error(f"{where} is not UTF-8", hint=options.encoding_hint) from error
        except (ValueError, RecursionError) as error:
            raise self._error(f"{where} is not JSON: {error}", hint=options.json_hint) from error
        field = options.field
        text = value.get(field) if isinstance(value, dict) else None
        if not isinstance(text, str):
            raise self._error(
                f"{where} has no text under {field!r}: {_description(value, field)}",
                hint=options.field_hint,
            )
        cleaned, n_halves = _without_surrogates(text)
        if n_halves and not options.cleans_json:
            raise self._error(f"{where} holds half a surrogate pair, which is not a character")
        return cleaned, n_bad

    def _error(self, message: str, hint: str | None = None) -> GPTEdgeError:
        return self._options.error(message, hint=hint)


def is_json_lines(path: Path) -> bool:
    """By the name: .jsonl or .ndjson, perhaps with .gz after it."""
    return path.name.lower().removesuffix(".gz").endswith(JSON_LINES)


def split(chunks: Iterator[str], separator: str) -> Iterator[Piece]:
    """The documents of a text that comes in chunks of any size, without the line breaks around
    each; blank ones are skipped.
    """
    rest = ""
    is_begun = False  # whether a piece of the current document was yielded
    for chunk in chunks:
        *finished, rest = (rest + chunk).split(separator)
        for text in finished:
            yield from _last_pieces(text, is_begun)
            is_begun = False
        start = 0
        # the end of `rest` may be half a separator
        while len(rest) - start > PIECE_CHARACTERS + len(separator):
            end = word_end(rest, start, start + PIECE_CHARACTERS)
            text = rest[start:end]
            start = end
            if is_begun:
                yield Piece(text, False, False)
            elif text.strip():
                yield Piece(text.lstrip("\r\n"), True, False)
                is_begun = True
        rest = rest[start:]
    yield from _last_pieces(rest, is_begun)


def cut(text: str, is_begun: bool = False) -> Iterator[Piece]:
    """A document, or the rest of one that is begun, in pieces."""
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        end = word_end(text, start, start + PIECE_CHARACTERS)
        yield Piece(text[start:end], not is_begun, False)
        start = end
        is_begun = True
    yield Piece(text[start:], not is_begun, True)


def word_end(text: str, start: int, stop: int) -> int:
    """The last position in start + 1 .. stop where a space follows a word; else the last where a
    line break does; else `stop`.

    GPT-2's pattern and GPT-1's words both split before the white space after a word.
    """
    for character in " \n":
        position = text.rfind(character, start + 1, stop + 1)
        while position > 0:
            if not text[position - 1].isspace():
                return position
            position = text.rfind(character, start + 1, position)
    return stop


def _last_pieces(text: str, is_begun: bool) -> Iterator[Piece]:
    """The rest of a document; nothing for a blank one of which no piece was yielded."""
    text = text.rstrip("\r\n")
    if not is_begun:
        text = text.lstrip("\r\n")
        if not text.strip():
            return
    yield from cut(text, is_begun)


def _without_surrogates(text: str) -> tuple[str, int]:
    """`text` with U+FFFD for each half of a surrogate pair, and how many there were."""
    return _SURROGATES.subn("\ufffd", text)


def _description(value: Any, field: str) -> str:
    """What a line of JSON holds instead of a text under `field`."""
    if not isinstance(value, dict):
        return f"expected an object, got {type(value).__name__}"
    if field in value:
        return f"expected a string, got {type(value[field]).__name__}"
    keys = ", ".join(map(ascii, value))[:100]
    return f"the object has {keys or 'no key'}"
