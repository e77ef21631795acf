"""Reading the fields of a request: each is of the right type and within its bounds, or an ApiError
400 names it; a field that nobody read is refused at the end, as OpenAI does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpt_edge.serve.api_error import ApiError


class Fields:
    """The fields of one JSON object. null counts as not given, as for OpenAI."""

    def __init__(self, values: Mapping[str, Any], where: str = "") -> None:
        """where: before each name in messages, such as "messages[0]."."""
        self._values = {name: value for name, value in values.items() if value is not None}
        self._where = where
        self._read: set[str] = set()

    def raw(self, name: str) -> Any:
        """Any value; None where it is not given."""
        self._read.add(name)
        return self._values.get(name)

    def whole(self, name: str, low: int, high: int, default: int | None = None) -> int | None:
        """A whole number from `low` to `high`."""
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(name, f"a whole number from {low} to {high}", value)
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        """A finite number from `low` to `high`."""
        value = self.raw(name)
        if value is None:
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:
            raise self.wrong(name, f"a number from {low:g} to {high:g}", value)
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """true or false."""
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false", value)
        return value

    def text(self, name: str) -> str | None:
        """A string that is valid Unicode."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, str) or not is_unicode(value):
            raise self.wrong(name, "a string", value)
        return value

    def nested(self, name: str) -> Fields | None:
        """A JSON object, as Fields of its own."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong(name, "an object", value)
        return Fields(value, f"{self._where}{name}.")

    def refuse(self, names: Mapping[str, str]) -> None:
        """Refuse fields that are known and not supported, with the reason."""
        for name, reason in names.items():
            if self.raw(name) is not None:
                raise ApiError(400, f"{name} is not supported: {reason}", param=name)

    def finish(self) -> None:
        """Refuse a field that nobody read."""
        for name in self._values:
            if name not in self._read:
                raise ApiError(
                    400,
                    f"Unrecognized request argument supplied: {self._where}{name[:80]}",
                    param=name[:80],
                )

    def wrong(self, name: str, expected: str, value: object) -> ApiError:
        """The error of one field."""
        return ApiError(
            400, f"{self._where}{name} must be {expected}, got {value!r:.80}", param=name
        )


def is_unicode(text: str) -> bool:
    """Whether `text` has no lone surrogate, which JSON can spell."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
