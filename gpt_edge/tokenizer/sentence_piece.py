"""SentencePiece's own model file as a tokenizer, as rinna's Japanese GPT-2 has one.

Needs the extra `sentencepiece`. Source: google/sentencepiece; transformers, T5Tokenizer, which
those models name.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from gpt_edge.arguments import check_several
from gpt_edge.errors import TokenizerError, require
from gpt_edge.tokenizer.detokenizer import TextDetokenizer, look_up
from gpt_edge.tokenizer.encoder import TextEncoder
from gpt_edge.tokenizer.hf_library import guarded
from gpt_edge.tokenizer.spec import TokenizerSpec

EXTRA = "sentencepiece"
SPACE = "\u2581"  # how a piece spells a space


class SentencePieceTokenizer(TextEncoder):
    """The `Tokenizer` of kind sentencepiece. Raises TokenizerError for a file that the library
    refuses or that is not that of `spec`, MissingDependencyError without the extra.
    """

    kind: str = "sentencepiece"
    max_token_bytes: int | None = None  # the model's normalizer may drop text

    def __init__(self, spec: TokenizerSpec, content: bytes, where: str) -> None:
        super().__init__(spec)
        self._model = open_model(content, where)
        self._lowercase = spec.lowercase
        self._special_text = {id: text for text, id in spec.special_tokens}
        n_pieces: int = self._model.get_piece_size()
        beyond = {id for id in self._special_text if id >= n_pieces}
        is_whole = n_pieces <= spec.vocab_size and beyond == {*range(n_pieces, spec.vocab_size)}
        if not is_whole:
            raise TokenizerError(
                f"{where} has {n_pieces} pieces and {len(beyond)} tokens beyond them, expected "
                f"{spec.vocab_size} in all"
            )
        self._bytes_of = [self._bytes(id, n_pieces) for id in range(spec.vocab_size)]

    def _bytes(self, id: int, n_pieces: int) -> bytes:
        if id in self._special_text or id >= n_pieces:
            return self._special_text[id].encode("utf-8")
        piece: str = self._model.id_to_piece(id)
        if self._model.is_byte(id):  # <0xE3>
            return bytes([int(piece[1:-1], 16)])
        return piece.replace(SPACE, " ").encode("utf-8")

    def _encode_plain(self, text: str) -> list[int]:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        ids: list[int] = self._model.encode(text.lower() if self._lowercase else text)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; see Tokenizer."""
        check_several("ids", ids, "token ids")
        detokenizer = self.detokenizer()
        return "".join([*map(detokenizer.push, ids), detokenizer.flush()])

    def token_bytes(self, id: int) -> bytes:
        """The UTF-8 bytes of one token; see Tokenizer."""
        return look_up(self._bytes_of, id)

    def detokenizer(self) -> TextDetokenizer:
        """A new streaming decoder."""
        return TextDetokenizer(self._decode, self._check)

    def _decode(self, ids: list[int]) -> str:
        """Special tokens by their text, and the library's decoding of what lies between."""
        parts = []
        for is_special, run in groupby(ids, key=self._special_text.__contains__):
            some = list(run)
            if is_special:
                parts += [self._special_text[id] for id in some]
            else:
                parts.append(str(self._model.decode(some)))
        return "".join(parts)

    def _check(self, id: int) -> None:
        look_up(self._bytes_of, id)


def open_model(content: bytes, where: str) -> Any:
    """Return the library's model. Raises TokenizerError for content that it refuses."""
    library = require("sentencepiece", EXTRA)
    model = library.SentencePieceProcessor()
    guarded(lambda: model.LoadFromSerializedProto(content), where, "the sentencepiece library")
    if model.get_piece_size() < 1:
        raise TokenizerError(f"{where} holds no piece")
    return model
