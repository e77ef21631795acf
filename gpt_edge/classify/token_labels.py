"""Labels of tokens, each with the characters of the text that it covers.

Offsets are those of transformers' fast tokenizers: a token of byte-level BPE includes the space
before it, and each token of a character of several bytes covers the whole character.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from gpt_edge.arrays import FloatArray
from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer.spec import Tokenizer

Span = tuple[int, int]  # characters of a text, the end excluded
NOWHERE = (0, 0)  # of a token that its maker's tokenizer puts before every text


@dataclass(frozen=True, slots=True)
class TokenLabel:
    """The label of one token. start, end: its characters in the text, the end excluded."""

    text: str
    start: int
    end: int
    label: str
    probability: float


def token_spans(tokenizer: Tokenizer, text: str, *, special: bool = False) -> list[Span]:
    """The characters of each token of `text`; NOWHERE for those that are before every text.

    special: as of `Tokenizer.encode`. A token that is nothing but the space that the tokenizer sets
    before a text has the first character's place, as in transformers.

    Raises TokenizerError where the tokens' bytes do not join to the text, as of a tokenizer that
    lower-cases it.
    """
    n_prefix = len(tokenizer.prefix)
    pieces = [
        tokenizer.token_bytes(id) for id in tokenizer.encode(text, special=special)[n_prefix:]
    ]
    characters = [_bytes(character) for character in text]
    joined = b"".join(pieces)
    n_before = len(joined) - sum(map(len, characters))  # a space that the tokenizer sets before
    if joined != b" " * n_before + b"".join(characters):
        raise TokenizerError(
            f"the tokens of a {tokenizer.kind} tokenizer are no parts of the text, so they have no "
            "places in it"
        )
    begins = [0, *accumulate(map(len, characters))]  # the byte that each character begins at
    spans = [NOWHERE] * n_prefix
    end = -n_before
    for piece in pieces:
        start, end = end, end + len(piece)
        first = bisect_right(begins, max(start, 0)) - 1
        last = bisect_right(begins, max(start, end - 1, 0)) - 1
        spans.append((first, last + 1))
    return spans


def _bytes(character: str) -> bytes:
    """A lone surrogate counts as U+FFFD, see Tokenizer."""
    return ("\ufffd" if "\ud800" <= character <= "\udfff" else character).encode()


def label_tokens(
    labels: Sequence[str], text: str, spans: Sequence[Span], logits: FloatArray
) -> tuple[TokenLabel, ...]:
    """logits: [T, n_label] of the tokens that `spans` lists; those NOWHERE get no label."""
    values = logits.astype(np.float64)
    shares = np.exp(values - values.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    best = values.argmax(axis=1)
    return tuple(
        TokenLabel(text[start:end], start, end, labels[index], float(row[index]))
        for (start, end), index, row in zip(spans, best, shares, strict=True)
        if (start, end) != NOWHERE
    )
