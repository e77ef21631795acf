"""Token healing: the tokens at a prompt's end are chosen again, together with what follows.

A prompt that ends inside a word, such as "http:" or "The cat is ho", ends with tokens that the
model seldom saw there: its training text had "://" and " hot" as one token. The last tokens are
taken off, and the first new ones must begin with their text, as one token or several. Source:
Lundberg 2023, "The Art of Prompt Design: Prompt Boundaries and Token Healing".
"""

from __future__ import annotations

import dataclasses
import weakref
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from gpt_edge.generate.constraints.vocabulary import text_pieces
from gpt_edge.generate.logits import LogitsRow
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.prompt import Prompt
from gpt_edge.tokenizer.spec import Tokenizer

MAX_HEALED = 4  # tokens that are taken off at most


class _Pieces:
    """The bytes of a vocabulary's tokens, sorted. Special tokens are none of them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        pieces = enumerate(text_pieces(tokenizer))
        pairs = sorted((piece, id) for id, piece in pieces if piece)
        self._sorted = [piece for piece, _ in pairs]
        self._ids = [id for _, id in pairs]
        self.is_text = frozenset(self._ids).__contains__

    def beginning_with(self, text: bytes) -> list[int]:
        """Ids of the tokens that begin with `text`, the one that equals it included."""
        start = bisect_left(self._sorted, text)
        end = bisect_left(self._sorted, text + b"\xff" * 64, start)
        return self._ids[start:end]

    def has_longer(self, text: bytes) -> bool:
        """Whether a token begins with `text` and goes on."""
        start = bisect_left(self._sorted, text + b"\0")
        return start < len(self._sorted) and self._sorted[start].startswith(text)

    def fitting(self, text: bytes) -> list[int]:
        """Ids of the tokens that begin with `text` or are a beginning of it."""
        ids = self.beginning_with(text)
        for length in range(1, len(text)):
            place = bisect_left(self._sorted, text[:length])
            while place < len(self._sorted) and self._sorted[place] == text[:length]:
                ids.append(self._ids[place])
                place += 1
        return ids


_pieces: weakref.WeakKeyDictionary[Tokenizer, _Pieces] = weakref.WeakKeyDictionary()


def _pieces_of(tokenizer: Tokenizer) -> _Pieces:
    if (pieces := _pieces.get(tokenizer)) is None:
        pieces = _Pieces(tokenizer)
        _pieces[tokenizer] = pieces
    return pieces


def heal(prompt: Prompt, params: SamplingParams, tokenizer: Tokenizer) -> Prompt:
    """The prompt without the tokens that are to be chosen again, if the params ask for it: as many
    of the last as together begin a longer token, and not the first. Their text is `healed`.

    Raises ValueError for a tokenizer whose tokens are not bytes alone.
    """
    if not params.token_healing or prompt.healed:
        return prompt
    if tokenizer.kind not in ("gpt2", "characters"):
        raise ValueError(
            "token_healing needs a tokenizer of kind gpt2, whose tokens are bytes, got kind "
            f"{tokenizer.kind}"
        )
    pieces = _pieces_of(tokenizer)
    for n_healed in range(min(MAX_HEALED, len(prompt.ids) - 1), 0, -1):
        text = _text(prompt.ids[-n_healed:], tokenizer)
        if text is not None and pieces.has_longer(text.encode()):
            return dataclasses.replace(prompt, ids=prompt.ids[:-n_healed], healed=text)
    return prompt


def _text(ids: Sequence[int], tokenizer: Tokenizer) -> str | None:
    """None where the ids begin or end inside a character, or one is special."""
    pieces = [tokenizer.token_bytes(id) for id in ids]
    if not all(map(_pieces_of(tokenizer).is_text, ids)):
        return None
    try:
        return b"".join(pieces).decode("utf-8")
    except UnicodeDecodeError:
        return None


class HealingProcessor:
    """Lets the new text begin with `healed`. n_prompt: ids of the history that are the prompt's."""

    def __init__(self, healed: str, tokenizer: Tokenizer, n_prompt: int) -> None:
        self._healed = healed.encode("utf-8")
        self._tokenizer = tokenizer
        self._pieces = _pieces_of(tokenizer)
        self._n_prompt = n_prompt

    def __call__(self, history: Sequence[int], logits: LogitsRow) -> LogitsRow:
        """The row with -inf for tokens that do not fit; as it is once the text is complete."""
        n_done = 0
        for id in history[self._n_prompt :]:
            n_done += len(self._tokenizer.token_bytes(id))
            if n_done >= len(self._healed):
                return logits
        ids = self._pieces.fitting(self._healed[n_done:])
        changed: LogitsRow = np.full_like(logits, -np.inf)
        changed[ids] = logits[ids]
        return changed
