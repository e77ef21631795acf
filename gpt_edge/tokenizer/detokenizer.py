"""Streaming decoders: ids in, text out, never half a character, and together exactly what `decode`
gives.

`ByteDetokenizer` for byte-level vocabularies, `WordDetokenizer` for GPT-1's words,
`TextDetokenizer` for what a library decodes. Each holds back the few bytes or characters whose
meaning the next token may still change. Knows nothing of files or
models.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import TypeVar

END_OF_WORD = "</w>"

Entry = TypeVar("Entry", bytes, str)


def look_up(table: Sequence[Entry], id: int) -> Entry:
    """Return `table[id]`; ValueError for what is no id, and for one out of range, negative ones
    included.
    """
    try:
        if 0 <= id < len(table):
            return table[id]
    except TypeError:  # no whole number
        pass
    raise ValueError(f"a token id must be from 0 to {len(table) - 1}, got {id!r:.80}")


class ByteDetokenizer:
    """For tokens that are bytes: what may still become a character waits, at most 3 bytes."""

    def __init__(self, bytes_of: Sequence[bytes]) -> None:
        self._bytes_of = bytes_of
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, id: int) -> str:
        """Return the characters that are complete after this id, often ""."""
        return self._decoder.decode(look_up(self._bytes_of, id))

    def flush(self) -> str:
        """Return U+FFFD for a character that never was completed, else "", and start again."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


class WordDetokenizer:
    """For GPT-1's tokens: `</w>` is a space, and the text has no space at its ends.

    White space waits until a word follows it. So does the beginning of a `</w>`, which tokens such
    as "<" may spell.
    """

    def __init__(self, token_of: Sequence[str]) -> None:
        self._token_of = token_of
        self._held = ""
        self._has_begun = False

    def push(self, id: int) -> str:
        """Return the text that is certain after this id, often ""."""
        text = (self._held + look_up(self._token_of, id)).replace(END_OF_WORD, " ")
        if not self._has_begun:
            text = text.lstrip()
        certain = _without_partial_suffix(text).rstrip()
        self._held = text[len(certain) :]
        self._has_begun = self._has_begun or bool(certain)
        return certain

    def flush(self) -> str:
        """Return what was held back, the white space at its end dropped, and start again."""
        rest = self._held.rstrip()
        self._held, self._has_begun = "", False
        return rest


class TextDetokenizer:
    """For tokens whose text depends on those before them: all ids so far are decoded, and the text
    that is new is certain. A character that may still be completed waits.
    """

    def __init__(self, decode: Callable[[list[int]], str], check: Callable[[int], None]) -> None:
        """decode: the text of any ids. check: raises ValueError for an id out of range."""
        self._decode, self._check = decode, check
        self._ids: list[int] = []
        self._text = ""  # what was returned

    def push(self, id: int) -> str:
        """Return the text that is certain after this id, often ""."""
        self._check(id)
        self._ids.append(id)
        return self._new(self._decode(self._ids).rstrip("\N{REPLACEMENT CHARACTER}"))

    def flush(self) -> str:
        """Return what was held back, and start again."""
        rest = self._new(self._decode(self._ids)) if self._ids else ""
        self._ids, self._text = [], ""
        return rest

    def _new(self, text: str) -> str:
        if len(text) <= len(self._text):
            return ""
        piece = text[len(self._text) :]
        self._text = text
        return piece


def decode_words(tokens: Sequence[str]) -> str:
    """Return the text of GPT-1 `tokens`, as transformers' OpenAIGPTTokenizer decodes them."""
    return "".join(tokens).replace(END_OF_WORD, " ").strip()


def _without_partial_suffix(text: str) -> str:
    """Cut the longest end of `text` that is a beginning of `</w>`."""
    for length in range(len(END_OF_WORD) - 1, 0, -1):
        if text.endswith(END_OF_WORD[:length]):
            return text[:-length]
    return text
