"""Slices: classes of characters of which a pattern takes many, such as `[a-z ,]{20,200}`.

Each place in such a repetition is a state of its own, and llguidance would go through every token
that begins with such a character at each of them. Told beforehand which tokens are of that class
and short, it takes these whole wherever so many characters may still come. They change no mask.
Source: guidance-ai/llguidance, docs/optimizations.md, "Slicer optimization".
"""

from __future__ import annotations

import re

_LONG = 32  # at least so many characters of one class: fewer states than that are few
_LENGTHS = (30, 10)  # of a token: nearly all have at most 30 characters, most at most 10
_MAX_CLASSES = 3  # each length of a class takes 20 ms, once
_NESTED = r"\[(?:\\.|[^\[\]\\])*\]"
_CLASS = rf"\[(?:\\.|{_NESTED}|[^\[\]\\])*\]|\\[dDpP](?:\{{\w+\}})?|(?<!\\)\."
_REPEATED = re.compile(rf"({_CLASS})\{{(?:\d*,)?(\d+)\}}", re.DOTALL)


def slices_of(rust_pattern: str) -> tuple[str, ...]:
    """Patterns of tokens, the shortest first, for the classes that repeat often in a pattern of
    Rust's syntax; none where there is no such class.
    """
    found = _REPEATED.findall(rust_pattern)
    classes = dict.fromkeys(name for name, most in found if int(most) >= _LONG)
    return tuple(
        f"{name}{{1,{length}}}"
        for name in list(classes)[:_MAX_CLASSES]
        for length in reversed(_LENGTHS)
    )
