"""A file of results in JSON Lines that an interrupted run leaves in order: whole lines, each once.

What is there is compared with the input, line by line; half a last line, which a killed process
leaves, is cut off, and so is all from the first zero byte on, which a power cut leaves in place of
lines that had not reached the disk; the rest is appended.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from gpt_edge.errors import OutputError
from gpt_edge.generate.batch_lines import BatchLine
from gpt_edge.system.atomic_files import flush_folder
from gpt_edge.system.disk import output_error
from gpt_edge.system.lock import hold_lock

_CHUNK_BYTES = 1 << 16


class ResultsFile:
    """Open for appending; one writer at a time."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self.n_done = 0  # results that are there
        self.n_errors = 0  # of them, those of lines with an error

    def skip_done(self, lines: Iterator[BatchLine]) -> Iterator[BatchLine]:
        """The lines without a result. Cuts off half a last line first. Raises OutputError for a
        file of another input, model or settings, and one that is no file of results.
        """
        self._cut_lost_lines()
        self._cut_half_line()
        self._file.seek(0)
        for content in self._file:
            result = self._parse(content)
            line = next(lines, None)
            if line is None or (result["line"], result["hash"]) != (line.number, line.hash):
                raise OutputError(
                    f"{self.path} has the result of another line, model or settings as its number "
                    f"{self.n_done + 1}",
                    hint="run it as before to continue, or give another --out",
                )
            self._count(result)
        yield from lines

    def append(self, result: Mapping[str, Any]) -> None:
        """Write one line, at once. Raises OutputError."""
        data = json.dumps(result, allow_nan=False).encode("ascii") + b"\n"
        try:
            self._file.write(data)
            self._file.flush()
            if self.n_done == 0:  # by its beginning the file is known as ours after a power cut
                os.fsync(self._file.fileno())
        except OSError as error:
            raise output_error(error, self.path, len(data)) from error
        self._count(result)

    def _count(self, result: Mapping[str, Any]) -> None:
        self.n_done += 1
        self.n_errors += "error" in result

    def _parse(self, content: bytes) -> dict[str, Any]:
        try:
            result = json.loads(content)
            if isinstance(result, dict) and {"line", "hash"} <= {*result}:
                return result
        except (ValueError, RecursionError):
            pass
        raise OutputError(
            f"{self.path}, line {self.n_done + 1}, is no result of generate --batch",
            hint="give another --out: nothing that is there is overwritten",
        )

    def _cut_lost_lines(self) -> None:
        self._file.seek(0)
        place = 0
        while chunk := self._file.read(_CHUNK_BYTES):
            found = chunk.find(b"\0")
            if found >= 0:
                self._file.seek(0)
                self._check_ours(self._file.read(_CHUNK_BYTES).lstrip(b"\0")[:8])
                self._file.truncate(place + found)
                return
            place += len(chunk)

    def _cut_half_line(self) -> None:
        end = self._file.seek(0, os.SEEK_END)
        place = end
        while place:
            start = max(0, place - _CHUNK_BYTES)
            self._file.seek(start)
            found = self._file.read(place - start).rfind(b"\n")
            if found >= 0:
                place = start + found + 1
                break
            place = start
        if place < end:
            self._file.seek(place)
            self._check_ours(self._file.read(8))
            self._file.truncate(place)

    def _check_ours(self, start: bytes) -> None:
        """Something is cut off only if it can be ours: it begins as a result does."""
        if not b'{"line":'.startswith(start):
            raise OutputError(
                f"{self.path} does not end with a whole line, and it is no result that was cut off",
                hint="give another --out: nothing that is there is overwritten",
            )


@contextmanager
def open_results(path: Path) -> Iterator[ResultsFile]:
    """The file of results at `path`, new or continued. On the way out, it is on the disk. Raises
    OutputError for a place that cannot be written, or another writer.
    """
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} is not a regular file", hint="give another --out")
    with hold_lock(path):
        try:
            # "a+": what is appended is never written over what is there
            file = path.open("a+b")
            flush_folder(path.absolute().parent)
        except OSError as error:
            raise output_error(error, path) from error
        with file:
            yield ResultsFile(path, file)
            file.flush()
            os.fsync(file.fileno())
