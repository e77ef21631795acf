"""Slices: classes of characters of which a pattern takes many, such as `[a-z ,]{20,200}`.

Each place in such a repetition is a state of its own, and llguidance would go through every token
that begins with such a character at each of them. Told beforehand which tokens are of that class
and short, it takes these whole wherever so many characters may still come. They change no mask.
Source: guidance-ai/llguidance, docs/optimizations.md, "Slicer optimization".
"""

from __future__ import annotations

import re
from itertools import product

_LONG = 32  # at least so many characters of one class: fewer states than that are few
_MANY_GROUPS = 8  # at least so many words of a group
# tokens: most have at most 10 characters, nearly all at most 30
_FORMS = ("{}{{1,10}}", "{}{{1,30}}")
_WORD_FORMS = (" {}+", "{}+", " {}{{1,10}}", "{}{{1,10}}")
_MAX_CLASSES = 3  # each slice takes 10 to 40 ms, once
_NESTED = r"\[(?:\\.|[^\[\]\\])*\]"
_CLASS = rf"\[(?:\\.|{_NESTED}|[^\[\]\\])*\]|\\[dDpP](?:\{{\w+\}})?|(?<!\\)\."
_REPEATED = re.compile(rf"({_CLASS})\{{(?:\d*,)?(\d+)\}}", re.DOTALL)
_UNBOUNDED = re.compile(rf"({_CLASS})(?:[+*]|\{{\d+,\}})", re.DOTALL)
_GROUPS = re.compile(r"(?<!\\)\)\{(?:\d*,)?(\d+)\}")


def slices_of(rust_pattern: str) -> tuple[str, ...]:
    """Patterns of tokens for the classes that repeat often in a pattern of Rust's syntax, by
    themselves or as words of a group that does, with the space that most tokens begin with; none
    where there is no such class.
    """
    counted = [name for name, most in _REPEATED.findall(rust_pattern) if int(most) >= _LONG]
    words = []
    if any(int(most) >= _MANY_GROUPS for most in _GROUPS.findall(rust_pattern)):
        words = [*_UNBOUNDED.findall(rust_pattern), *counted]
    forms = [*product(_few(words), _WORD_FORMS), *product(_few(counted), _FORMS)]
    return tuple(dict.fromkeys(form.format(name) for name, form in forms))


def _few(names: list[str]) -> list[str]:
    """The first different classes. Of one with all of Unicode's letters, those of ASCII: the whole
    is more than llguidance looks through beforehand.
    """
    different = list(dict.fromkeys(names))[:_MAX_CLASSES]
    return [rf"[{name}&&[\x00-\x7f]]" if r"\p{L}" in name else name for name in different]
