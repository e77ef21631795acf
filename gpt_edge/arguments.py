"""Checks of arguments that several methods take: a wrong one is a ValueError that names it, what
was given and what is expected. Knows no numpy: its whole numbers are found by `__index__`.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable

TYPE_CHECKING = False  # as in typing
if TYPE_CHECKING:
    from typing import Any


def is_whole(value: object, low: float, high: int | None) -> bool:
    """Whether it is an int, not a bool, from `low` to `high`; None sets no limit."""
    return (
        isinstance(value, int)
        and not isinstance(value, bool)
        and value >= low
        and (high is None or value <= high)
    )


def check_whole(name: str, value: object, low: int, high: int | None = None) -> None:
    """Raise ValueError unless it is a whole number within the limits."""
    if not is_whole(value, low, high):
        bounds = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be a whole number {bounds}, got {value!r:.80}")


def check_count(name: str, value: object) -> None:
    """Raise ValueError unless it is a whole number of at least 1."""
    if not is_whole(value, 1, None):
        what = "at least 1" if is_whole(value, -math.inf, None) else "a whole number of at least 1"
        raise ValueError(f"{name} must be {what}, got {value!r:.80}")


def check_text(name: str, value: object) -> None:
    """Raise ValueError unless it is a string."""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a string, got {type(value).__name__}")


def check_path(name: str, value: object) -> None:
    """Raise ValueError unless it is a path."""
    if not isinstance(value, str | os.PathLike):
        raise ValueError(f"{name} must be a path, got {type(value).__name__}")


def check_several(name: str, values: object, what: str = "strings") -> None:
    """Raise ValueError unless it is a sequence of several things: one string is none."""
    if isinstance(values, str):
        raise ValueError(f"{name} must be a sequence of {what}, got one string")
    if isinstance(values, bytes) or not isinstance(values, Iterable):
        raise ValueError(f"{name} must be a sequence of {what}, got {type(values).__name__}")


def check_callable(name: str, value: object) -> None:
    """Raise ValueError unless it can be called."""
    if not callable(value):
        raise ValueError(f"{name} must be a function, got {type(value).__name__}")


def check_is_a(name: str, value: object, kind: type) -> None:
    """Raise ValueError unless it is None or of that class."""
    if value is not None and not isinstance(value, kind):
        raise ValueError(f"{name} must be a {kind.__name__}, got {value!r:.60}")


def check_hooks(cancel: object, processors: object) -> None:
    """Raise ValueError unless `cancel` is an event or None, and `processors` are functions."""
    if cancel is not None and not callable(getattr(cancel, "is_set", None)):
        raise ValueError(f"cancel must be a threading.Event, got {type(cancel).__name__}")
    if not isinstance(processors, list | tuple):
        raise ValueError(f"processors must be a list of functions, got {type(processors).__name__}")
    for processor in processors:
        check_callable("a logits processor", processor)


def checked_ids(ids: Any, vocab_size: int) -> list[int]:
    """Token ids as a list of int, from a sequence of whole numbers of Python or numpy.

    Raises ValueError, which names the first wrong one, for anything else, for none and for those
    out of range.
    """
    expected = f"ids must be one or more token ids from 0 to {vocab_size - 1}"
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise ValueError(f"{expected}, got {type(ids).__name__}")
    checked = []
    for id in ids:
        try:
            number = operator.index(id)
        except TypeError:
            raise ValueError(f"{expected}, got {id!r:.80} ({type(id).__name__})") from None
        if not 0 <= number < vocab_size:
            raise ValueError(f"{expected}, got {number}")
        checked.append(number)
    if not checked:
        raise ValueError(f"{expected}, got none")
    return checked
