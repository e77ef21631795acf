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
from gpt_edge.tokenizer.patterns import check_pattern
from gpt_edge.tokenizer.special_tokens import TokenRules, check_rules

# gpt2: byte-level BPE, a rank file; gpt1: words with </w>, a tokenizer.json; characters: a list of
# them; hf: any tokenizer.json, through the `tokenizers` library; sentencepiece: its own model file
KINDS = ("gpt2", "gpt1", "characters", "hf", "sentencepiece")
END_OF_TEXT = "<|endoftext|>"
MAX_VOCAB_SIZE = 1 << 20
MAX_SPECIAL_TOKENS = 1 << 14
MAX_TOKEN_CHARACTERS = 1 << 10
MAX_PREFIX_TOKENS = 8
# a plain name: it can never leave the folder
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}")
ROLE = re.compile(r"[a-z][a-z_]{0,39}")
OPTIONAL_FIELDS = ("add_prefix_space", "prefix", "token_rules", "roles")


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
    prefix: tuple[int, ...]  # ids that the maker's tokenizer puts before every text

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a whole text, as its maker's tokenizer gives them: `prefix` before it, and a space
        where the vocabulary wants one.

        special: whether special tokens in it become their ids; else they are plain text. A lone
        surrogate counts as U+FFFD. Takes any string, but raises TokenizerError, which names it, for
        a character or a special token that the model does not have.
        """

    def encode_part(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a later part of a text: nothing is put before it."""

    def first_spelled(self, text: str) -> str | None:
        """The first special token that `text` spells and that `special` would count; None where
        there is none.
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

    special_tokens: (text, id) pairs, by id. They are made from text on request alone, and decode
    to their text. token_rules: of special tokens that differ in that, see `special_tokens.RULES`.
    """

    kind: str  # one of KINDS
    file: str  # name inside the folder
    vocab_size: int  # special tokens included
    end_token: int | None = None
    special_tokens: tuple[tuple[str, int], ...] = ()
    # of kind gpt2: the name of the split pattern, or a regular expression
    pattern: str | None = None
    # the rest is in a manifest only where it differs from these
    add_prefix_space: bool = False  # a text that begins with no space gets one
    prefix: tuple[int, ...] = ()  # ids before every text
    token_rules: TokenRules = ()
    roles: tuple[tuple[str, str], ...] = ()  # ("bos_token", text) ..., for a chat template

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
        self._check_pattern()
        self._check_special_tokens()
        self._check_settings()

    def _holds(self, id: object) -> bool:
        return _is_int(id) and 0 <= id < self.vocab_size  # type: ignore[operator]

    def _check_pattern(self) -> None:
        if self.kind == "gpt2":
            check_pattern(self.pattern)
        elif self.pattern is not None:
            raise ValueError(
                f"tokenizer pattern of kind {self.kind} must be None, got {self.pattern!r}"
            )

    def _check_settings(self) -> None:
        if not isinstance(self.add_prefix_space, bool):
            raise ValueError(
                f"tokenizer add_prefix_space must be true or false, got {self.add_prefix_space!r}"
            )
        prefix = self.prefix
        is_list = isinstance(prefix, list | tuple) and len(prefix) <= MAX_PREFIX_TOKENS
        if not is_list or not all(map(self._holds, prefix)):
            raise ValueError(
                f"tokenizer prefix must be up to {MAX_PREFIX_TOKENS} ids below {self.vocab_size}, "
                f"got {prefix!r:.80}"
            )
        object.__setattr__(self, "prefix", tuple(prefix))
        special_tokens = dict(self.special_tokens)
        object.__setattr__(self, "token_rules", check_rules(self.token_rules, special_tokens))
        for role, text in self.roles:
            if not ROLE.fullmatch(role) or not isinstance(text, str) or text not in special_tokens:
                raise ValueError(
                    f"tokenizer roles must name special tokens, got {role!r:.40}: {text!r:.80}"
                )

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
        values: dict[str, Any] = {
            "kind": self.kind,
            "file": self.file,
            "vocab_size": self.vocab_size,
            "end_token": self.end_token,
            "special_tokens": dict(self.special_tokens),
            "pattern": self.pattern,
        }
        if self.add_prefix_space:
            values["add_prefix_space"] = True
        if self.prefix:
            values["prefix"] = list(self.prefix)
        if self.token_rules:
            values["token_rules"] = {text: list(words) for text, words in self.token_rules}
        if self.roles:
            values["roles"] = dict(self.roles)
        return values

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
        if missing := [name for name in fields if name not in {*values, *OPTIONAL_FIELDS}]:
            raise TokenizerError(f"missing tokenizer fields: {', '.join(missing)}")
        tables = {}
        for name in ("special_tokens", "token_rules", "roles"):
            table = values.get(name, {})
            if not isinstance(table, Mapping):
                raise TokenizerError(
                    f"tokenizer {name} must be an object, got {type(table).__name__}"
                )
            tables[name] = tuple(table.items())
        try:
            return cls(**{**values, **tables})
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


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_valid_text(text: str) -> bool:
    """False for a text with lone surrogates, which no UTF-8 file can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
