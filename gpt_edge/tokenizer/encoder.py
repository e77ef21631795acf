"""What the kinds that gpt-edge encodes itself share: what comes before a text, and special tokens
that cut it. A kind says how the text between them becomes ids.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from gpt_edge.arguments import check_text
from gpt_edge.tokenizer.spec import TokenizerSpec
from gpt_edge.tokenizer.special_tokens import SpecialTokenFinder


class TextEncoder(ABC):
    """The encoding half of a `Tokenizer`."""

    def __init__(self, spec: TokenizerSpec) -> None:
        self.vocab_size = spec.vocab_size
        self.end_token = spec.end_token
        self.prefix = spec.prefix
        self._adds_space = spec.add_prefix_space
        self._special_tokens = SpecialTokenFinder(dict(spec.special_tokens), spec.token_rules)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a whole text; see Tokenizer."""
        check_text("text", text)
        return [*self.prefix, *self._encode(text, special, is_start=True)]

    def encode_part(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a later part of a text; see Tokenizer."""
        check_text("text", text)
        return self._encode(text, special, is_start=False)

    def first_spelled(self, text: str) -> str | None:
        """The first special token in `text`; see Tokenizer."""
        return self._special_tokens.first_spelled(text)

    def _encode(self, text: str, special: bool, is_start: bool) -> list[int]:
        ids: list[int] = []
        for part in self._special_tokens.split(text, special):
            if isinstance(part, int):
                ids.append(part)
                is_start = True  # the maker's tokenizer treats what follows as a text of its own
                continue
            # as the ByteLevel of Hugging Face's tokenizers: never two spaces
            if self._adds_space and is_start and not part.startswith(" "):
                part = " " + part
            ids += self._encode_plain(part)
        return ids

    @abstractmethod
    def _encode_plain(self, text: str) -> list[int]:
        """Ids of a text without special tokens."""
