"""The text files of a run as one stream of documents, split into training and validation.

`data/documents.py` reads the files; here are the rules of training: a run reads lines of JSON of at
most 4 MiB, so that it tokenizes any text in 64 MB. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt_edge.data.documents import UTF8_HINT, Piece, TextFile, TextOptions, word_end
from gpt_edge.errors import TrainingError
from gpt_edge.tokenizer.spec import END_OF_TEXT

MAX_LINE_BYTES = 4 << 20
PARTS_PER_HELD_OUT = 10
MIN_PART, MAX_PART = 1 << 8, 1 << 13  # characters


@dataclass(frozen=True, slots=True)
class TextFiles:
    """The documents of some files. Of every `held_out` documents the last is held out for
    validation; 0 holds none out.
    """

    paths: tuple[Path, ...]
    separator: str = END_OF_TEXT
    field: str = "text"  # of a line of JSON
    encoding_errors: str = "strict"  # or "replace"
    held_out: int = 0
    is_validation: bool = False  # whether these are the documents that are held out
    part_characters: int = 0  # documents are cut into parts of at most so many; 0: they are whole

    def pieces(self, progress: Callable[[int], None] = lambda n_bytes: None) -> Iterator[Piece]:
        """The pieces of these documents, file after file.

        progress: called with the number of bytes of text just read. Raises TrainingError for each
        fault of a file that `TextFile.pieces` names.
        """
        options = self._options()
        number = 0
        for path in self.paths:
            pieces = TextFile(path, options).pieces(progress)
            if self.part_characters:
                pieces = cut_into_parts(pieces, self.part_characters)
            for piece in pieces:
                is_held_out = self.held_out > 0 and number % self.held_out == self.held_out - 1
                if not self.held_out or is_held_out == self.is_validation:
                    yield piece
                number += piece.is_end

    def part_size(self) -> int:
        """The `part_characters` that these texts need: 0 where they hold `held_out` documents or
        more, so that one can be held out, else that of a book.

        There will be about PARTS_PER_HELD_OUT parts for each document that is wanted, of 256 to
        8,192 characters. Reads no further than that many documents.
        """
        n_documents = n_characters = 0
        for piece in dataclasses.replace(self, held_out=0).pieces():
            n_documents += piece.is_end
            n_characters += len(piece.text)
            if n_documents >= self.held_out:
                return 0
        if not n_characters:
            return 0
        return min(max(n_characters // (PARTS_PER_HELD_OUT * self.held_out), MIN_PART), MAX_PART)

    def _options(self) -> TextOptions:
        return TextOptions(
            separator=self.separator,
            field=self.field,
            max_line_bytes=MAX_LINE_BYTES,
            encoding_errors=self.encoding_errors,
            cleans_json=True,
            may_be_empty=True,  # another file may hold documents
            error=TrainingError,
            encoding_hint=f'{UTF8_HINT}, or set [data] encoding_errors = "replace"',
            json_hint=None,
            field_hint="name the key that holds the text: [data] field",
            line_hint="split the document",
        )


def cut_into_parts(pieces: Iterator[Piece], size: int) -> Iterator[Piece]:
    """Each document in parts of at most `size` characters, as documents of their own.

    A part ends at the last blank line within `size` characters, else at the last line break, else
    after the last word. Line breaks around a part are dropped, and so are blank parts.
    """
    for piece in pieces:
        start, n_bad = 0, piece.n_bad_bytes
        while start < len(piece.text):
            end = _part_end(piece.text, start, start + size)
            text = piece.text[start:end].strip("\r\n")
            start = end
            if text.strip():
                yield Piece(text, True, True, n_bad)
                n_bad = 0


def _part_end(text: str, start: int, stop: int) -> int:
    if stop >= len(text):
        return len(text)
    for mark in ("\n\n", "\n"):
        position = text.rfind(mark, start + 1, stop)
        if position > 0 and text[start:position].strip():
            return position + len(mark)
    return word_end(text, start, stop)


def find_texts(base: Path, patterns: Sequence[str]) -> tuple[Path, ...]:
    """The files that `patterns` name, paths or globs (`**` too) relative to `base`, each once, by
    pattern, then by name.

    Raises TrainingError for a glob that nothing matches; a plain path is not looked at.
    """
    files: dict[Path, None] = {}
    for pattern in patterns:
        path = base / pattern
        if not glob.has_magic(pattern) or path.exists():
            files[path] = None
            continue
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        matching_files = [match for match in matches if match.is_file()]
        if not matching_files:
            raise TrainingError(f"no file matches {path}")
        files |= dict.fromkeys(matching_files)
    return tuple(files)
