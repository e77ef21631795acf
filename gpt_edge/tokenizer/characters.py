"""A list of characters as a tokenizer: nanoGPT's first tutorial. A character is its place in the
list; one that is not in the list is an error that names it.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpt_edge.arguments import check_several
from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer.detokenizer import look_up
from gpt_edge.tokenizer.encoder import TextEncoder
from gpt_edge.tokenizer.formats.character_file import MAX_SHOWN, parse_characters
from gpt_edge.tokenizer.spec import TokenizerSpec


class CharacterTokenizer(TextEncoder):
    """The `Tokenizer` of kind characters. Raises TokenizerError for a corrupt file."""

    kind: str = "characters"
    max_token_bytes: int | None = 4  # of one character in UTF-8

    def __init__(self, spec: TokenizerSpec, content: bytes, where: str) -> None:
        super().__init__(spec)
        self._characters = parse_characters(content, where)
        if len(self._characters) != spec.vocab_size or spec.special_tokens:
            raise TokenizerError(
                f"{where} has {len(self._characters)} characters, expected {spec.vocab_size} and "
                "no special token"
            )
        self._id_of = {character: id for id, character in enumerate(self._characters)}

    def _encode_plain(self, text: str) -> list[int]:
        try:
            return [self._id_of[character] for character in text]
        except KeyError:
            raise self._unknown(text) from None

    def _unknown(self, text: str) -> TokenizerError:
        unknown = list(dict.fromkeys(one for one in text if one not in self._id_of))
        named = [f"{one!a} (U+{ord(one):04X})" for one in unknown[:MAX_SHOWN]]
        more = f" and {len(unknown) - MAX_SHOWN} more" if len(unknown) > MAX_SHOWN else ""
        return TokenizerError(
            f"the text holds {', '.join(named)}{more}: not in the model's vocabulary of "
            f"{self.vocab_size} characters",
            hint="write the text with the characters that the model was trained on",
        )

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; see Tokenizer."""
        check_several("ids", ids, "token ids")
        return "".join([look_up(self._characters, id) for id in ids])

    def token_bytes(self, id: int) -> bytes:
        """The UTF-8 bytes of one character; see Tokenizer."""
        return look_up(self._characters, id).encode("utf-8")

    def detokenizer(self) -> CharacterDetokenizer:
        """A new streaming decoder."""
        return CharacterDetokenizer(self._characters)


class CharacterDetokenizer:
    """For tokens that are characters: each is certain at once."""

    def __init__(self, characters: Sequence[str]) -> None:
        self._characters = characters

    def push(self, id: int) -> str:
        """Return the character of this id."""
        return look_up(self._characters, id)

    def flush(self) -> str:
        """Return "": nothing is held back."""
        return ""
