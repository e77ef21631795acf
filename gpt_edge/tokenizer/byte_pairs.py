"""Text to the ranks of a byte-level vocabulary, through one of two libraries with equal results.

Knows no special token and no third column of a rank file: ids are the caller's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Protocol

from gpt_edge.errors import MissingDependencyError, TokenizerError
from gpt_edge.tokenizer.formats.bpe_files import byte_names, join_by_rank, spell
from gpt_edge.tokenizer.formats.rank_file import RankTable
from gpt_edge.tokenizer.patterns import PATTERNS

# The pattern's `\s+(?!\S)` remembers every character it may give back, and tiktoken dies (a panic,
# no exception) where these reach a million: openai/tiktoken 0.14.0. Longer runs of white space are
# cut before the pattern sees them.
LONGEST_RUN = 1 << 16  # characters
_WHITE_SPACE = re.compile(
    "[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]++"
)  # Unicode's White_Space
# texts that show whether a regular expression runs at all
_TRIALS = ("", "It's 3 o'clock,\n\n  né? ", "\u4f60\u597d " * 8, "a" * 64 + "  \n")


class BytePairs(Protocol):
    """Text to ranks. Thread-safe."""

    def encode(self, text: str) -> list[int]:
        """The ranks of any text; a lone surrogate counts as U+FFFD."""


class TiktokenBytePairs:
    """Through tiktoken. Raises ModuleNotFoundError without it, TokenizerError for ranks or a
    pattern that it refuses.
    """

    def __init__(self, table: RankTable, pattern: str, where: str) -> None:
        import tiktoken  # 30 ms: only when text is needed

        self._cuts_alike = pattern == "gpt2"
        self._where = where
        known = PATTERNS.get(pattern)
        try:
            self._encoding = tiktoken.Encoding(
                "gpt-edge",
                pat_str=pattern if known is None else known.tiktoken,
                mergeable_ranks=dict(zip(table.tokens, table.ranks, strict=True)),
                special_tokens={},
            )
        except (ValueError, OverflowError) as error:
            raise TokenizerError(f"{where}: tiktoken refuses the ranks: {error}") from error
        if known is None:
            for trial in _TRIALS:
                self._encode_unknown(trial)

    def encode(self, text: str) -> list[int]:
        """The ranks of `text`; see BytePairs."""
        if len(text) > LONGEST_RUN:
            return [rank for part in self._parts(text) for rank in self._encode_part(part)]
        return self._encode_part(text)

    def _encode_part(self, text: str) -> list[int]:
        return self._encoding.encode_ordinary(text)

    def _parts(self, text: str) -> Iterator[str]:
        if self._cuts_alike:
            return cut_long_runs(text)
        if any(run.end() - run.start() > LONGEST_RUN for run in _WHITE_SPACE.finditer(text)):
            raise TokenizerError(
                f"the text has more than {LONGEST_RUN} characters of white space in a row, too "
                "many for this split pattern"
            )
        return iter((text,))

    def _encode_unknown(self, text: str) -> None:
        """Raise TokenizerError where the pattern of a manifest dies in tiktoken, which panics."""
        try:
            ranks = self._encoding.encode_ordinary(text)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise TokenizerError(
                f"{self._where}: the split pattern fails: {str(error).splitlines()[0]:.120}"
            ) from error
        if self._encoding.decode(ranks) != text:
            raise TokenizerError(
                f"{self._where}: the split pattern leaves out part of a text, such as {text!r:.40}",
                hint="a pattern must match every character of a text",
            )


class TokenizersBytePairs:
    """Through Hugging Face's `tokenizers`, for machines that tiktoken has no wheel for.

    It wants the merges, which are recovered from the ranks: the two parts of a token are what the
    lower ranks alone leave of it. A token of which they leave more is made by no merge, and is
    found where it is a whole piece of the text, as tiktoken finds it.
    """

    def __init__(self, table: RankTable, pattern: str, where: str) -> None:
        import tokenizers
        from tokenizers import models, pre_tokenizers

        if (known := PATTERNS.get(pattern)) is None:
            raise MissingDependencyError(
                f"{where}: the split pattern {pattern!r:.60} needs the package 'tiktoken'",
                hint="pip install tiktoken",
            )
        names = byte_names()
        vocab = {
            spell(token, names): rank for token, rank in zip(table.tokens, table.ranks, strict=True)
        }
        self._model: Any = tokenizers.Tokenizer(
            models.BPE(vocab=vocab, merges=_merges(table, names), ignore_merges=True)
        )
        splitter = pre_tokenizers.Split(
            tokenizers.Regex(known.tokenizers), behavior="isolated", invert=False
        )
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        self._model.pre_tokenizer = pre_tokenizers.Sequence([splitter, byte_level])

    def encode(self, text: str) -> list[int]:
        """The ranks of `text`; see BytePairs."""
        # the library refuses lone surrogates; tiktoken pairs those that can be paired first
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        ids: list[int] = self._model.encode(text, add_special_tokens=False).ids
        return ids


def _merges(table: RankTable, names: list[str]) -> list[tuple[str, str]]:
    rank_of = dict(zip(table.tokens, table.ranks, strict=True))
    merges = []
    for rank, token in sorted(zip(table.ranks, table.tokens, strict=True)):
        if len(token) > 1:
            parts = join_by_rank(token, rank_of, below=rank)
            if len(parts) == 2:
                merges.append((spell(parts[0], names), spell(parts[1], names)))
    return merges


def cut_long_runs(text: str) -> Iterator[str]:
    """Cut `text` where GPT-2's pattern does: before the last character of a long run of white space
    that a word follows.

    The pattern takes all of such a run but its last character as one piece, and at the end of a
    text it takes the whole run, so the parts, encoded one by one, have the ids of the text.
    """
    start = 0
    for run in _WHITE_SPACE.finditer(text):
        if run.end() - run.start() > LONGEST_RUN and run.end() < len(text):
            yield text[start : run.end() - 1]
            start = run.end() - 1
    yield text[start:]
