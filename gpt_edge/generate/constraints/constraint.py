"""Constraint: what a generated text must be. A value: it knows no model, and imports no library."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

ConstraintKind = Literal["json_schema", "regex", "choice", "grammar"]
KINDS: tuple[ConstraintKind, ...] = ("json_schema", "regex", "choice", "grammar")
MAX_CHARACTERS = 1 << 20
MAX_CHOICES = 1 << 14


@dataclass(frozen=True, slots=True)
class Constraint:
    """What a text must be, whole: make one with `json_schema`, `regex`, `choice` or `grammar`.

    Hashable; `to_dict` and `from_dict` go to plain JSON values and back. Raises ValueError for a
    value of the wrong type; whether a schema, expression or grammar is valid is known when it is
    first used, which needs the extra `constraints`.
    """

    kind: ConstraintKind
    # of a schema its JSON text, of choices all of them, else the text as given
    value: str | tuple[str, ...]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"a constraint is one of {', '.join(KINDS)}, got {self.kind!r:.60}")
        if self.kind == "choice":
            object.__setattr__(self, "value", _checked_options(self.value))
            return
        if not isinstance(self.value, str) or not self.value:
            raise ValueError(f"{self.kind} must be a text with something in it, got {self.value!r}")
        _check_text(self.kind, self.value)

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | str) -> Constraint:
        """JSON that is valid by this schema, given as an object or as its JSON text.

        Properties come in the order of the schema, and white space is at most one space in a place,
        so that a small model cannot fill its length with it; `"x-guidance"` in the schema changes
        that, see llguidance. `{"type": "object"}` is any object.
        """
        value = _parsed(schema) if isinstance(schema, str) else schema
        if not isinstance(value, Mapping):
            raise ValueError(f"json_schema must be an object, got {value!r:.80}")
        try:
            text = json.dumps(dict(value), ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"json_schema must be plain JSON values: {error}") from error
        return cls("json_schema", text)

    @classmethod
    def regex(cls, pattern: str) -> Constraint:
        """A text that `re.fullmatch` finds by this pattern: Python's syntax, without lookaround,
        back references and word boundaries.
        """
        return cls("regex", pattern)

    @classmethod
    def choice(cls, options: Sequence[str]) -> Constraint:
        """One of these texts."""
        return cls("choice", options)  # type: ignore[arg-type]  # made a tuple when it is checked

    @classmethod
    def grammar(cls, lark: str) -> Constraint:
        """A text of this grammar, in llguidance's variant of Lark; its first rule is `start`."""
        return cls("grammar", lark)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Constraint:
        """Of one pair, such as `{"regex": "[a-z]+"}`."""
        if len(values) != 1 or next(iter(values)) not in KINDS:
            named = ", ".join(map(repr, values)) or "nothing"
            raise ValueError(f"a constraint is one of {', '.join(KINDS)}, got {named:.80}")
        ((kind, value),) = values.items()
        if kind == "json_schema":
            return cls.json_schema(value)
        return cls(kind, value)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` gives the same constraint back."""
        if self.kind == "json_schema":
            assert isinstance(self.value, str)
            return {self.kind: json.loads(self.value)}
        return {self.kind: list(self.value) if self.kind == "choice" else self.value}


def checked_constraint(value: object) -> Constraint | None:
    """A constraint, whether it came as one or as its mapping; None for None. Raises ValueError."""
    if value is None or isinstance(value, Constraint):
        return value
    if isinstance(value, Mapping):
        return Constraint.from_dict(value)
    raise ValueError(
        "constraint must be a Constraint, or a mapping such as {'regex': '[a-z]+'}, got "
        f"{value!r:.80}"
    )


def _parsed(text: str) -> object:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"json_schema is not JSON: {error}") from error
    return value


def _checked_options(options: object) -> tuple[str, ...]:
    if isinstance(options, str) or not isinstance(options, Sequence):
        raise ValueError(f"choice must be a list of texts, got {options!r:.80}")
    if not 1 <= len(options) <= MAX_CHOICES:
        raise ValueError(f"choice must have 1 to {MAX_CHOICES} options, got {len(options)}")
    for option in options:
        if not isinstance(option, str) or not option:
            raise ValueError(f"an option of choice must be a text that is not empty: {option!r}")
        _check_text("choice", option)
    return tuple(dict.fromkeys(options))


def _check_text(kind: str, text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{kind} must have at most {MAX_CHARACTERS} characters, got {len(text)}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{kind} has a lone surrogate at character {error.start}") from error
