"""Text files as a stream of documents, in pieces small enough to encode one at a time: memory does
not grow with the text.

Plain text with a separator between documents, or JSON Lines with one document per line (.jsonl,
.ndjson); both may be gzip. Knows nothing of tokens and imports no torch.
"""

from __future__ import annotations

import codecs
import glob
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, cast

from gpt_edge.data.documents import is_json_lines
from gpt_edge.errors import TrainingError
from gpt_edge.tokenizer.spec import END_OF_TEXT

# a longer document is given out in pieces: its token ids, four a character, fill the memory
PIECE_CHARACTERS = 1 << 16
CHUNK_BYTES = 1 << 20
# of JSON Lines: a line must be read whole, and one emoji makes each byte of it four
MAX_LINE_BYTES = 4 << 20
ENCODING_ERRORS = ("strict", "replace")
# bytes that are not UTF-8, by "surrogateescape"; JSON can spell them too
_SURROGATES = re.compile("[\ud800-\udfff]")
_UTF8_HINT = (
    'convert it, for example with iconv -t UTF-8, or set [data] encoding_errors = "replace"'
)


class Piece(NamedTuple):
    """A document, or a part of a long one."""

    text: str
    is_end: bool  # False when the document goes on in the next piece
    n_bad_bytes: int = 0  # bytes read for it that were not UTF-8 and became U+FFFD


@dataclass(frozen=True, slots=True)
class TextFiles:
    """The documents of some files. Of every `held_out` documents the last is kept for validation;
    0 keeps none.
    """

    paths: tuple[Path, ...]
    separator: str = END_OF_TEXT
    field: str = "text"  # of a line of JSON
    encoding_errors: str = "strict"
    held_out: int = 0
    is_validation: bool = False

    def pieces(self, progress: Callable[[int], None] = lambda n_bytes: None) -> Iterator[Piece]:
        """The pieces of this share of the documents, file after file. progress: called with bytes
        of text just read.

        Line breaks around a document are left out, and so are blank documents. A document is cut
        where a word ends, so that the ids of the pieces are those of the whole; one without white
        space, or of white space alone, anywhere. Raises TrainingError when a file cannot be read,
        is no regular file, is damaged, not UTF-8 (unless encoding_errors is "replace"), or has a
        line that is no such JSON.
        """
        number = 0
        for path in self.paths:
            for piece in self._pieces_of(path, progress):
                is_held_out = self.held_out > 0 and number % self.held_out == self.held_out - 1
                if not self.held_out or is_held_out == self.is_validation:
                    yield piece
                number += piece.is_end

    def _pieces_of(self, path: Path, progress: Callable[[int], None]) -> Iterator[Piece]:
        try:
            with open_text(path) as file:
                if is_json_lines(path):
                    yield from _of_lines(path, file, self.field, self.encoding_errors, progress)
                else:
                    yield from _of_text(path, file, self.separator, self.encoding_errors, progress)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise TrainingError(f"{path} is a damaged gzip file: {error}") from error
        except OSError as error:
            raise TrainingError(
                f"cannot read the text {path}: {error.strerror or error}"
            ) from error


def find_texts(base: Path, patterns: Sequence[str]) -> tuple[Path, ...]:
    """The files that `patterns` name, paths or globs (`**` too) relative to `base`, each once, by
    pattern, then by name.

    Raises TrainingError for a glob that nothing matches; a plain path is not looked at.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        if not glob.has_magic(pattern) or (base / pattern).exists():
            found[base / pattern] = None
            continue
        matches = sorted(glob.glob(str(base / pattern), recursive=True))
        if not any(Path(match).is_file() for match in matches):
            raise TrainingError(f"no file matches {base / pattern}")
        found |= {Path(match): None for match in matches if Path(match).is_file()}
    return tuple(found)


def open_text(path: Path) -> IO[bytes]:
    """Open a regular file, decompressed if it is gzip. Raises TrainingError, OSError."""
    if path.exists() and not path.is_file():  # a folder, or a pipe or device that may never end
        raise TrainingError(f"cannot read the text {path}: it is not a regular file")
    file = path.open("rb")
    if file.peek(2)[:2] != b"\x1f\x8b":
        return file
    file.close()
    return cast("IO[bytes]", gzip.open(path, "rb"))


def _of_text(
    path: Path, file: IO[bytes], separator: str, errors: str, progress: Callable[[int], None]
) -> Iterator[Piece]:
    rest, is_begun, n_bad = "", False, 0
    for chunk, n_chunk_bad in _decoded(path, file, errors, progress):
        *whole, rest = (rest + chunk).split(separator)
        n_bad += n_chunk_bad
        for text in whole:
            for piece in _finish(text, is_begun):
                yield piece._replace(n_bad_bytes=n_bad)
                n_bad = 0
            is_begun = False
        start = 0
        for end in _cuts(rest):
            first, start = rest[start:end], end
            if is_begun or first.strip():
                yield Piece(first if is_begun else first.lstrip("\r\n"), False, n_bad)
                is_begun, n_bad = True, 0
        rest = rest[start:]
    for piece in _finish(rest, is_begun):
        yield piece._replace(n_bad_bytes=n_bad)
        n_bad = 0


def _of_lines(
    path: Path, file: IO[bytes], field: str, errors: str, progress: Callable[[int], None]
) -> Iterator[Piece]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        where = f"{path}, line {number}"
        if len(line) > MAX_LINE_BYTES:
            raise TrainingError(
                f"{where} is longer than {MAX_LINE_BYTES >> 20} MiB", hint="split the document"
            )
        progress(len(line))
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if not line.strip():
            continue
        try:
            text, n_bad = _readable(line.decode("utf-8", "surrogateescape"))
            if n_bad and errors == "strict":
                raise TrainingError(f"{where} is not UTF-8", hint=_UTF8_HINT)
            value = json.loads(text)
            found = value[field] if isinstance(value, dict) and field in value else None
            del line, text, value  # each may be four times the line
        except (ValueError, RecursionError) as error:
            raise TrainingError(f"{where} is not JSON: {error}") from error
        if not isinstance(found, str):
            raise TrainingError(
                f"{where} has no text under {field!r}",
                hint="name the key that holds the text: [data] field",
            )
        for piece in _finish(_readable(found)[0], False):
            yield piece._replace(n_bad_bytes=n_bad)
            n_bad = 0


def _finish(text: str, is_begun: bool) -> Iterator[Piece]:
    """The last pieces of a document; none if it is blank and nothing of it was given out."""
    if not is_begun:
        text = text.lstrip("\r\n")
    text = text.rstrip("\r\n")
    if not is_begun and not text.strip():
        return
    start = 0
    for end in _cuts(text):
        yield Piece(text[start:end], False)
        start = end
    yield Piece(text[start:], True)


def _cuts(text: str) -> Iterator[int]:
    """Where to cut, about PIECE_CHARACTERS apart, until at most two of them are left.

    Before white space that ends a word if there is any: a byte-level BPE always splits there.
    """
    start = 0
    while len(text) - start > 2 * PIECE_CHARACTERS:
        full = start + PIECE_CHARACTERS
        places = range(full, start + PIECE_CHARACTERS // 2, -1)
        start = next(
            (at for at in places if text[at] in " \n" and not text[at - 1].isspace()), full
        )
        yield start


def _decoded(
    path: Path, file: IO[bytes], errors: str, progress: Callable[[int], None]
) -> Iterator[tuple[str, int]]:
    """Chunks of text without the byte order mark, and how many bytes of each were not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")(
        "strict" if errors == "strict" else "surrogateescape"
    )
    n_read = 0
    while True:
        chunk = file.read(CHUNK_BYTES)
        progress(len(chunk))
        # the decoder keeps the bytes of a character cut in two
        start = n_read - len(decoder.getstate()[0])
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            at = start + error.start
            raise TrainingError(
                f"{path} is not UTF-8: {error.reason} at byte {at}", hint=_UTF8_HINT
            ) from error
        yield _readable(text if n_read else text.removeprefix("\ufeff"))
        n_read += len(chunk)
        if not chunk:
            return


def _readable(text: str) -> tuple[str, int]:
    """`text` with U+FFFD for what is no character, and how many there were."""
    return _SURROGATES.subn("\ufffd", text)
