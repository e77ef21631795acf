"""A tokenizer with more tokens than its model's embedding has rows: tokens that were added and
never trained, as in many models of the Flax community.

Such a token is never generated, and a text that needs one is an error that names it. Source:
EuroEval/EuroEval#52; huggingface/transformers#12842.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

from gpt_edge.errors import GPTEdgeWarning, TokenizerError
from gpt_edge.tokenizer.spec import Detokenizer, Tokenizer, TokenizerSource, TokenizerSpec

# of the tokens; more are another model's vocabulary
MAX_MISSING = 0.05
N_SHOWN = 5


def check_fits(spec: TokenizerSpec, config_vocab_size: int) -> None:
    """Raise TokenizerError unless the model's embedding has a row for nearly every id.

    More rows than ids are fine: nanoGPT pads 50257 to 50304. Ids without a row are accepted where
    they are special tokens, or at most 1 in 20 of all.
    """
    n_missing = spec.vocab_size - config_vocab_size
    if n_missing <= 0:
        return
    n_special = sum(id >= config_vocab_size for _, id in spec.special_tokens)
    if n_special < n_missing and n_missing > MAX_MISSING * spec.vocab_size:
        raise TokenizerError(
            f"the tokenizer has {spec.vocab_size} tokens, the model's embedding has "
            f"{config_vocab_size} rows",
            hint="give the tokenizer that the model was trained with: --tokenizer FILE",
        )
    if missing := [id for id in spec.prefix if id >= config_vocab_size]:
        raise TokenizerError(
            f"the tokenizer puts token {missing[0]} before every text, the model's embedding has "
            f"{config_vocab_size} rows",
            hint="give the tokenizer that the model was trained with: --tokenizer FILE",
        )


def fit_source(source: TokenizerSource, n_rows: int) -> TokenizerSource:
    """Return `source` for a model of so many rows: its end token has one, or there is none.

    Warns (GPTEdgeWarning), naming them, of tokens without a row. Raises TokenizerError as
    `check_fits`.
    """
    spec = source.spec
    check_fits(spec, n_rows)
    n_missing = spec.vocab_size - n_rows
    if n_missing <= 0:
        return source
    named = [f"{text!r:.40}" for text, id in spec.special_tokens if id >= n_rows][:N_SHOWN]
    which = f", such as {', '.join(named)}" if named else ""
    warnings.warn(
        f"the tokenizer has {spec.vocab_size} tokens, the model's embedding {n_rows} rows: the "
        f"last {n_missing}{which}, can be neither read nor generated",
        GPTEdgeWarning,
        stacklevel=2,
    )
    if spec.end_token is not None and spec.end_token >= n_rows:
        spec = dataclasses.replace(spec, end_token=None)
    return dataclasses.replace(source, spec=spec)


def fit_to_rows(tokenizer: Tokenizer, n_rows: int) -> Tokenizer:
    """Return `tokenizer`, or one that keeps to the ids below `n_rows` where it has more."""
    return tokenizer if tokenizer.vocab_size <= n_rows else RowLimitedTokenizer(tokenizer, n_rows)


class RowLimitedTokenizer:
    """The `Tokenizer` of a model with fewer rows than tokens."""

    def __init__(self, tokenizer: Tokenizer, n_rows: int) -> None:
        self.kind = tokenizer.kind
        self.vocab_size = n_rows
        end = tokenizer.end_token
        self.end_token = end if end is not None and end < n_rows else None
        self.max_token_bytes = tokenizer.max_token_bytes
        self.prefix = tokenizer.prefix
        self._tokenizer = tokenizer

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a whole text. Raises TokenizerError for a token without a row; see Tokenizer."""
        return self._checked(self._tokenizer.encode(text, special=special))

    def encode_part(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a later part of a text; errors as `encode`."""
        return self._checked(self._tokenizer.encode_part(text, special=special))

    def first_spelled(self, text: str) -> str | None:
        """The first special token in `text`; see Tokenizer."""
        return self._tokenizer.first_spelled(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; see Tokenizer."""
        return self._tokenizer.decode(ids)

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token; see Tokenizer."""
        return self._tokenizer.token_bytes(id)

    def piece_bytes(self) -> list[bytes | None] | None:
        """Of kind hf, see `LibraryTokenizer.piece_bytes`."""
        pieces: list[bytes | None] | None = self._tokenizer.piece_bytes()  # type: ignore[attr-defined]
        return None if pieces is None else pieces[: self.vocab_size]

    def detokenizer(self) -> Detokenizer:
        """A new streaming decoder."""
        return self._tokenizer.detokenizer()

    def _checked(self, ids: list[int]) -> list[int]:
        if missing := [id for id in ids if id >= self.vocab_size]:
            token = self._tokenizer.token_bytes(missing[0]).decode("utf-8", "replace")
            raise TokenizerError(
                f"the text needs the token {token!r:.60} (id {missing[0]}), for which the model's "
                f"embedding of {self.vocab_size} rows has none",
                hint="leave it out of the text: the model was never trained on it",
            )
        return ids
