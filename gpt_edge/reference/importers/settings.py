"""A JSON object from a checkpoint's folder, and its typed values. A fault is reported with file and
field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt_edge.config import GPTConfig
from gpt_edge.errors import CheckpointError

MAX_CONFIG_BYTES = 1 << 20
MAX_INDEX_BYTES = 1 << 25


def read_json_object(path: Path, max_bytes: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """The object in `path`. Raises CheckpointError for a file that is missing, too long, not
    UTF-8 or not an object.
    """
    try:
        if path.stat().st_size > max_bytes:
            raise CheckpointError(
                f"{path} has {path.stat().st_size} bytes, at most {max_bytes} are read"
            )
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value


@dataclass(frozen=True, slots=True)
class CheckpointSettings:
    """The values of a checkpoint's config; `where` names it in messages."""

    where: str
    values: Mapping[str, Any]

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number; without a default the field must exist."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(name, value, "a whole number")
        return value

    def number(self, name: str, default: float) -> float:
        """A number."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, value, "a number")
        try:
            return float(value)
        except OverflowError:
            raise self._wrong(name, value, "a number that a float holds") from None

    def flag(self, name: str, default: bool) -> bool:
        """true or false."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def choice(self, name: str, default: str, meanings: Mapping[str, str]) -> str:
        """The meaning of the field's string. Raises CheckpointError for one that the reference does
        not support.
        """
        value = self._get(name, default)
        if not isinstance(value, str) or value not in meanings:
            raise self._wrong(name, value, f"one of {', '.join(meanings)}")
        return meanings[value]

    def optional_whole(self, name: str) -> int | None:
        """A whole number, or None where the field is missing or null."""
        return None if self.values.get(name) is None else self.whole(name)

    def refuse(self, name: str, reason: str) -> None:
        """Raise CheckpointError when the field is set and on."""
        if self.values.get(name):
            raise CheckpointError(f"{self.where} sets {name}, {reason}")

    def config(self, **fields: Any) -> GPTConfig:
        """A GPTConfig; its errors name the file."""
        try:
            return GPTConfig(**fields)
        except ValueError as error:
            raise CheckpointError(f"{self.where}: {error}") from error

    def _get(self, name: str, default: object) -> object:
        value = self.values.get(name, default)
        if value is None:
            raise CheckpointError(f"{self.where} has no {name}")
        return value

    def _wrong(self, name: str, value: object, expected: str) -> CheckpointError:
        return CheckpointError(f"{self.where}: {name} is {value!a:.80}, expected {expected}")


def read_settings(path: Path) -> CheckpointSettings:
    """The JSON object in `path`."""
    return CheckpointSettings(str(path), read_json_object(path))
