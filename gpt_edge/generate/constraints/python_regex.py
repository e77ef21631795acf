"""Python's regular expressions as the Rust syntax that llguidance reads, where both can say it.

What differs and is translated: `\\w` and `\\s` are other sets of characters, `[` and `&&` mean more
inside a class, `{,3}` needs its 0, `^` and `$` around the whole say nothing. What Rust's syntax
lacks (lookaround, back references) stays, for the library to refuse.
Source: Python's `re`; the Rust crate `regex`, "Syntax".
"""

from __future__ import annotations

# as nested classes, which are valid inside a class too
_SETS = {
    "w": r"[\p{L}\p{N}_]",
    "W": r"[^\p{L}\p{N}_]",
    "s": r"[\s\x1c-\x1f]",
    "S": r"[^\s\x1c-\x1f]",
}


def to_rust_syntax(pattern: str) -> str:
    """The pattern that Rust matches whole where Python's `re.fullmatch` does."""
    pattern = _without_anchors(pattern)
    parts: list[str] = []
    place = 0
    while place < len(pattern):
        if pattern[place] == "[":
            text, place = _class(pattern, place)
        else:
            text, place = _outside(pattern, place)
        parts.append(text)
    return "".join(parts)


def _without_anchors(pattern: str) -> str:
    for anchor in ("^", r"\A"):
        pattern = pattern.removeprefix(anchor)
    for anchor in ("$", r"\Z"):
        body = pattern.removesuffix(anchor)
        n_backslashes = len(body) - len(body.rstrip("\\"))
        if body != pattern and n_backslashes % 2 == 0:
            return body
    return pattern


def _outside(pattern: str, place: int) -> tuple[str, int]:
    """What one element outside a class becomes, and the place after it."""
    if pattern[place] == "\\":
        return _escape(pattern, place)
    if pattern.startswith("{,", place):
        return "{0,", place + 2
    return pattern[place], place + 1


def _class(pattern: str, place: int) -> tuple[str, int]:
    """What a class becomes, from its "[" on, and the place after it."""
    opening = "[^" if pattern.startswith("[^", place) else "["
    parts = [opening]
    place += len(opening)
    is_first = True
    while place < len(pattern):
        character = pattern[place]
        if character == "]" and not is_first:
            return "".join([*parts, "]"]), place + 1
        is_first = False
        if character == "\\":
            text, place = _escape(pattern, place)
        else:
            # signs that mean something inside Rust's classes, not inside Python's
            text = f"\\{character}" if character in "[]&~" else character
            place += 1
        parts.append(text)
    return "".join(parts), place  # never closed: the library says so


def _escape(pattern: str, place: int) -> tuple[str, int]:
    letter = pattern[place + 1 : place + 2]
    return _SETS.get(letter, f"\\{letter}"), place + 2
