"""Split patterns of byte-level vocabularies: where a text is cut before its bytes are joined.

tiktoken's spelling, which needs no backtracking where it can be avoided, and the original spelling
for the `tokenizers` library, whose regular expressions are another engine's. Both cut alike.
Source: tiktoken_ext/openai_public.py; openai/gpt-2, encoder.py.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_PATTERN_CHARACTERS = 1 << 10


@dataclass(frozen=True, slots=True)
class SplitPattern:
    """One pattern in the two spellings."""

    tiktoken: str
    tokenizers: str


_CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_O200K = "|".join(
    (
        rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}]*"
        rf"[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]+{_CONTRACTION}?",
        rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}]+"
        rf"[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]*{_CONTRACTION}?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
PATTERNS = {
    "gpt2": SplitPattern(
        r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    ),
    "cl100k": SplitPattern(
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+"
        r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
        rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "o200k": SplitPattern(_O200K, _O200K),
}


def check_pattern(pattern: object) -> None:
    """Raise ValueError unless `pattern` is a known name or may be a regular expression."""
    if isinstance(pattern, str) and (pattern in PATTERNS or is_expression(pattern)):
        return
    raise ValueError(
        f"tokenizer pattern must be one of {', '.join(PATTERNS)}, or a regular expression of at "
        f"most {MAX_PATTERN_CHARACTERS} characters, got {pattern!r:.80}"
    )


def is_expression(pattern: str) -> bool:
    """Whether a text can be a split pattern: it must hold a class or an alternative, which no name
    does.
    """
    return len(pattern) <= MAX_PATTERN_CHARACTERS and any(sign in pattern for sign in "\\[|")
