"""TokenizerSpec: what a manifest says about a tokenizer, and TokenizerSource, the spec together
with its file's content.

Also the two interfaces every kind implements. Knows no file format and imports no tokenizer
library.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gpt_edge.errors import TokenizerError

KINDS = ("gpt2", "gpt1")
END_OF_TEXT = "<|endoftext|>"
MAX_VOCAB_SIZE = 1 << 20
MAX_SPECIAL_TOKENS = 1 << 14
MAX_TOKEN_CHARACTERS = 1 << 10
# a plain name: it can never leave the folder
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}")


class Detokenizer(Protocol):
    """Turns ids into text as they come; one generation, one detokenizer.

    The pieces of `push`, then `flush`, join to exactly `decode` of all the ids, and no piece holds
    half a character.
    """

    def push(self, id: int) -> str:
        """Return the text that is certain after this id, often "". Raises ValueError for an id out
        of range.
        """

    def flush(self) -> str:
        """Return what was held back and start again."""


class Tokenizer(Protocol):
    """Text to ids and back. Thread-safe: nothing changes after it is made."""

    kind: str
    vocab_size: int  # special tokens included; ids are 0 .. vocab_size - 1
    end_token: int | None  # the id that ends a text
    # n tokens hold at most n times this; None where text can vanish (gpt1)
    max_token_bytes: int | None

    def encode(self, text: str) -> list[int]:
        """Ids of `text`. Special tokens in it are plain text; a lone surrogate counts as U+FFFD.
        Takes any string.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; bytes that are not UTF-8 become U+FFFD. Raises ValueError for an id out of
        range.
        """

    def token_bytes(self, id: int) -> bytes:
        """The UTF-8 bytes, perhaps part of a character, that `id` adds. Raises ValueError for an id
        out of range.
        """

    def detokenizer(self) -> Detokenizer:
        """A new streaming decoder."""


@dataclass(frozen=True, slots=True)
class TokenizerSpec:
    """What must be known beside the file. Raises ValueError for values that no tokenizer can have.

    special_tokens: (text, id) pairs, by id. They are never made from text, and decode to their
    text.
    """

    kind: str  # "gpt2": byte-level BPE, a rank file; "gpt1": words with </w>, a tokenizer.json
    file: str  # name inside the folder
    vocab_size: int  # special tokens included
    end_token: int | None = None
    special_tokens: tuple[tuple[str, int], ...] = ()
    pattern: str | None = None  # name of the split pattern, "gpt2" for that kind

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"tokenizer kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if not isinstance(self.file, str) or not FILE_NAME.fullmatch(self.file):
            raise ValueError(
                "tokenizer file must be a plain file name of at most 80 characters, got "
                f"{self.file!r}"
            )
        if not _is_int(self.vocab_size) or not 1 <= self.vocab_size <= MAX_VOCAB_SIZE:
            raise ValueError(
                f"tokenizer vocab_size must be from 1 to {MAX_VOCAB_SIZE}, got {self.vocab_size!r}"
            )
        if self.end_token is not None and not self._holds(self.end_token):
            raise ValueError(
                f"tokenizer end_token must be an id below {self.vocab_size}, got {self.end_token!r}"
            )
        expected_pattern = "gpt2" if self.kind == "gpt2" else None
        if self.pattern != expected_pattern:
            raise ValueError(
                f"tokenizer pattern of kind {self.kind} must be {expected_pattern!r}, got "
                f"{self.pattern!r}"
            )
        self._check_special_tokens()

    def _holds(self, id: object) -> bool:
        return _is_int(id) and 0 <= id < self.vocab_size  # type: ignore[operator]

    def _check_special_tokens(self) -> None:
        if len(self.special_tokens) > MAX_SPECIAL_TOKENS:
            raise ValueError(
                f"special tokens must be at most {MAX_SPECIAL_TOKENS}, got "
                f"{len(self.special_tokens)}"
            )
        for text, id in self.special_tokens:
            if (
                not isinstance(text, str)
                or not 0 < len(text) <= MAX_TOKEN_CHARACTERS
                or not _is_valid_text(text)
            ):
                raise ValueError(
                    f"a special token must be a short, valid, non-empty text, got {text!r:.80}"
                )
            if not self._holds(id):
                raise ValueError(
                    f"special token {text!r} must have an id below {self.vocab_size}, got {id!r}"
                )
        ids = [id for _, id in self.special_tokens]
        if len(set(ids)) < len(ids) or len(dict(self.special_tokens)) < len(ids):
            raise ValueError("special tokens must differ in text and in id")
        object.__setattr__(
            self, "special_tokens", tuple(sorted(self.special_tokens, key=lambda pair: pair[1]))
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values for a manifest; `from_dict` gives the same spec back."""
        return {
            "kind": self.kind,
            "file": self.file,
            "vocab_size": self.vocab_size,
            "end_token": self.end_token,
            "special_tokens": dict(self.special_tokens),
            "pattern": self.pattern,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TokenizerSpec:
        """Raises TokenizerError for unknown, missing or mistyped fields, naming them."""
        if not isinstance(values, Mapping):
            raise TokenizerError(
                f"the tokenizer's description must be an object, got {type(values).__name__}"
            )
        fields = tuple(cls.__dataclass_fields__)
        if unknown := sorted(str(name) for name in set(values) - set(fields)):
            raise TokenizerError(f"unknown tokenizer fields: {', '.join(unknown)}")
        if missing := [name for name in fields if name not in values]:
            raise TokenizerError(f"missing tokenizer fields: {', '.join(missing)}")
        special_tokens = values["special_tokens"]
        if not isinstance(special_tokens, Mapping):
            raise TokenizerError(
                f"tokenizer special_tokens must be an object, got {type(special_tokens).__name__}"
            )
        try:
            return cls(**{**values, "special_tokens": tuple(special_tokens.items())})
        except ValueError as error:
            raise TokenizerError(str(error)) from error


@dataclass(frozen=True, slots=True)
class TokenizerSource:
    """A tokenizer ready to be written into a folder: `content` goes into the file named
    `spec.file`, byte for byte.
    """

    spec: TokenizerSpec
    content: bytes
    origin: str = "tokenizer"  # where it was found, for messages


def check_fits(spec: TokenizerSpec, config_vocab_size: int) -> None:
    """Raise TokenizerError unless the model's embedding has a row for every id.

    More rows than ids are fine: nanoGPT pads 50257 to 50304.
    """
    if spec.vocab_size > config_vocab_size:
        raise TokenizerError(
            f"the tokenizer has {spec.vocab_size} tokens, the model's embedding has "
            f"{config_vocab_size} rows",
            hint="give the tokenizer that the model was trained with: --tokenizer FILE",
        )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_valid_text(text: str) -> bool:
    """False for a text with lone surrogates, which no UTF-8 file can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
