"""The progress of an evaluation in a file, from which `--resume` continues. JSON, replaced by one
rename, never a pickle.

Floats are written so that they read back as the same bits. The file names what it belongs to
(models, texts, settings); another evaluation refuses it, as figures of two evaluations must not be
mixed.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gpt_edge.errors import EvaluationError
from gpt_edge.system.atomic_files import atomic_write, sha256_file

FORMAT, VERSION = "gpt-edge evaluation", 1
SAVE_SECONDS = 15.0


class EvaluationState:
    """Sections of progress, each with what it belongs to. Without a path nothing is saved."""

    def __init__(self, path: Path | None = None, *, seconds: float | None = None) -> None:
        """seconds: between two savings; None is SAVE_SECONDS. Raises EvaluationError if there is a
        file at `path` that is not such a state.
        """
        self._path = path
        self._saved = time.monotonic()
        self._seconds = SAVE_SECONDS if seconds is None else seconds
        self._sections: dict[str, Any] = {}
        if path is not None:
            try:
                self._sections = _read(path)
            except FileNotFoundError:
                # fails at once, not after minutes, where the file cannot be written
                atomic_write(path, self._content())

    @property
    def is_saved(self) -> bool:
        """Whether there is a file."""
        return self._path is not None

    def begin(self, section: str, owner: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was saved for this section, None if nothing was.

        owner: plain JSON values that describe what is evaluated, and how. Raises EvaluationError
        if the section belongs to another evaluation.
        """
        saved = self._sections.setdefault(section, {"owner": dict(owner), "done": None})
        for name, value in owner.items():
            other = saved["owner"].get(name)
            if other != value:
                raise EvaluationError(
                    f"{self._path} belongs to another evaluation: its {name} is {_shown(other)}, "
                    f"here it is {_shown(value)}",
                    hint=f"choose another file, or remove {self._path}",
                )
        return saved["done"] if saved["done"] is None else dict(saved["done"])

    def save(
        self, section: str, done: Callable[[], Mapping[str, Any]], *, now: bool = False
    ) -> None:
        """Save what `done` returns if it is time to, or `now`. Raises OutputError; the old file
        then stays.
        """
        if self._path is None or not (now or time.monotonic() - self._saved >= self._seconds):
            return
        self._sections[section]["done"] = dict(done())
        atomic_write(self._path, self._content())
        self._saved = time.monotonic()

    def corrupt(self, section: str, error: Exception) -> EvaluationError:
        """The error for a section that could not be restored."""
        return EvaluationError(
            f"{self._path} is corrupt in {section}: {error}",
            hint=f"remove {self._path} and start again",
        )

    def _content(self) -> bytes:
        return json.dumps(
            {"format": FORMAT, "version": VERSION, "sections": self._sections}, allow_nan=False
        ).encode()


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
        sections = values["sections"]
        if values["format"] != FORMAT or not all(
            set(section) == {"owner", "done"} for section in sections.values()
        ):
            raise ValueError("it is another kind of file")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise EvaluationError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EvaluationError(
            f"{path} is not the state of an evaluation, or corrupt: {error}"
        ) from error
    if values["version"] != VERSION:
        raise EvaluationError(
            f"{path} has format version {values['version']!r}, this gpt-edge reads version "
            f"{VERSION}"
        )
    return dict(sections)


def fingerprint(path: Path) -> str:
    """SHA-256 over a file, or over the names and files of a folder. Raises EvaluationError if one
    cannot be read.
    """
    try:
        if path.is_file():
            return sha256_file(path)
        total = hashlib.sha256()
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            total.update(f"{file.relative_to(path)}\0{sha256_file(file)}\n".encode())
    except OSError as error:
        raise EvaluationError(
            f"{error.filename or path} cannot be read: {error.strerror or error}"
        ) from error
    return total.hexdigest()


def _shown(value: object) -> str:
    return json.dumps(value)[:120]
