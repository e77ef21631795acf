"""Vocabulary: a tokenizer's tokens as llguidance has them, bytes that each adds to a text.

Beyond the tokenizer's ids there is one more, "the text may end here", so that models without an
end token, and with several, work alike. Some kinds add other bytes at the start of a text (a word's
space is dropped there); those tokens have a second id, after that one, for the first token alone.

Which kinds: gpt2 and characters as they are; gpt1, whose `</w>` is a space; sentencepiece; hf
where the file's decoder joins bytes (ByteLevel) or pieces with marked spaces (Metaspace). Other
decoders, such as WordPiece's, are refused by name: what a token adds depends on its neighbours.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Sequence
from typing import Any

from gpt_edge.errors import TokenizerError
from gpt_edge.generate.constraints.constraint import Constraint
from gpt_edge.generate.constraints.grammar import (
    grammar_of,
    library,
    refusal,
    repeated_classes,
)
from gpt_edge.tokenizer.spec import Tokenizer

WORD = 64  # bits of a mask that are looked at together
_MAX_MATCHERS = 32  # of the constraints that were used last
_MAX_SLICED = 8  # some megabytes each


class Vocabulary:
    """The tokens of one tokenizer, and matchers over them. Thread-safe.

    end: the id that says "the text may end here". n_mask_bytes: of a mask up to there, in whole
    words of 64 ids. first_variant_of: the second ids of tokens that
    add other bytes at the start. strips: whether white space at the text's
    ends vanishes. has_every_byte: whether a token exists for each byte by itself, so that every
    text can be continued.
    """

    def __init__(
        self,
        pieces: Sequence[bytes | None],
        starts: dict[int, bytes] | None = None,
        *,
        strips: bool = False,
    ) -> None:
        """pieces: the bytes that each id adds; None for a special token, which a constraint never
        chooses. starts: by id, the bytes that it adds at the start, where they differ.
        """
        self.size = len(pieces)
        self.end = self.size
        starts = starts or {}
        n_ids = -(-(self.size + 1) // WORD) * WORD
        self.n_mask_bytes = n_ids // 8
        self.first_variant_of = {id: n_ids + number for number, id in enumerate(starts)}
        self.strips = strips
        self.has_every_byte = {bytes([value]) for value in range(256)} <= {*pieces}
        tokens = [piece or b"" for piece in pieces]
        no_tokens = range(self.size, n_ids)  # the end, and what fills the word up
        self._tokenizer = library().LLTokenizer(
            library().TokenizerWrapper(
                _Tokens(
                    [*tokens, *(b"" for _ in no_tokens), *starts.values()],
                    self.end,
                    [*(id for id, piece in enumerate(pieces) if piece is None), *no_tokens],
                )
            ),
            eos_token=self.end,
        )
        self._fresh = functools.lru_cache(_MAX_MATCHERS)(self._compile)
        self._sliced = functools.lru_cache(_MAX_SLICED)(self._with_slices)

    def matcher(self, constraint: Constraint, before: str = "") -> Any:
        """A matcher of llguidance at the start of a text. Raises ValueError for a constraint that
        it refuses.
        """
        return self._fresh(constraint, before).deep_copy()

    def _compile(self, constraint: Constraint, before: str) -> Any:
        tokenizer = self._sliced(repeated_classes(constraint))
        matcher = library().LLMatcher(tokenizer, grammar_of(constraint, before), log_level=0)
        if matcher.is_error():
            raise refusal(constraint, matcher.get_error())
        return matcher

    def _with_slices(self, slices: tuple[str, ...]) -> Any:
        if not slices:
            return self._tokenizer
        try:
            return self._tokenizer.with_slices([*slices])
        except (ValueError, RuntimeError):  # refused, or too many characters to look through
            return self._tokenizer


class _Tokens:
    """What llguidance's TokenizerWrapper asks of a tokenizer."""

    bos_token_id = None

    def __init__(self, tokens: list[bytes], end: int, special: list[int]) -> None:
        self.tokens = tokens
        self.eos_token_id = end
        self.special_token_ids = special

    def __call__(self, text: bytes | str) -> list[int]:
        """Asked for the tokens of a text that is certain, which no grammar here wants."""
        return []


_vocabularies: weakref.WeakKeyDictionary[Tokenizer, Vocabulary] = weakref.WeakKeyDictionary()


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """The vocabulary of `tokenizer`, made once: 0.4 s for GPT-2's 50,257 tokens. Raises
    TokenizerError for a kind that cannot be constrained.
    """
    if (vocabulary := _vocabularies.get(tokenizer)) is None:
        vocabulary = _build(tokenizer)
        _vocabularies[tokenizer] = vocabulary
    return vocabulary


@functools.cache
def byte_vocabulary() -> Vocabulary:
    """Every byte a token: for texts that are there already."""
    return Vocabulary([bytes([value]) for value in range(256)])


def _build(tokenizer: Tokenizer) -> Vocabulary:
    pieces = text_pieces(tokenizer)
    if tokenizer.kind in ("gpt2", "characters"):
        return Vocabulary(pieces)
    if tokenizer.kind == "gpt1":
        starts = {
            id: piece.lstrip()
            for id, piece in enumerate(pieces)
            if piece is not None and piece != piece.lstrip()
        }
        return Vocabulary(pieces, starts, strips=True)
    return Vocabulary(pieces, _starts_by_decoding(tokenizer, pieces))


def text_pieces(tokenizer: Tokenizer) -> list[bytes | None]:
    """The bytes that each token adds to a text; None for special tokens. Raises TokenizerError
    where they depend on the tokens beside them.
    """
    pieces: list[bytes | None]
    if tokenizer.kind == "hf":
        pieces = _library_pieces(tokenizer)
    else:
        pieces = [tokenizer.token_bytes(id) for id in range(tokenizer.vocab_size)]
    for id, piece in enumerate(pieces):
        if piece is not None and _is_special(tokenizer, id, piece):
            pieces[id] = None
    return pieces


def _is_special(tokenizer: Tokenizer, id: int, piece: bytes) -> bool:
    """Whether a token is made from text on request alone."""
    if id == tokenizer.end_token:
        return True
    text = piece.decode("utf-8", "replace")
    return tokenizer.first_spelled(text) == text


def _starts_by_decoding(tokenizer: Tokenizer, pieces: list[bytes | None]) -> dict[int, bytes]:
    """Tokens whose space the decoder drops at the start of a text. A token that decodes to
    something else, such as a control token, is taken out of `pieces`.
    """
    starts = {}
    for id, piece in enumerate(pieces):
        if piece is None or not _is_text(piece):
            continue  # a byte: half a character by itself
        alone = tokenizer.decode([id]).encode("utf-8")
        if alone == piece:
            continue
        if alone == piece.removeprefix(b" "):
            starts[id] = alone
        else:
            pieces[id] = None
    return starts


def _is_text(piece: bytes) -> bool:
    try:
        piece.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _library_pieces(tokenizer: Tokenizer) -> list[bytes | None]:
    pieces: list[bytes | None] | None = tokenizer.piece_bytes()  # type: ignore[attr-defined]
    if pieces is None:
        raise TokenizerError(
            "a constraint cannot be used with this model's tokenizer (kind hf): the bytes that a "
            "token adds depend on the tokens beside it",
            hint="constraints need a tokenizer.json whose decoder is ByteLevel or Metaspace",
        )
    return pieces
