"""Any other tokenizer.json, run as it is by Hugging Face's `tokenizers` library: WordPiece of
GPT2-Chinese, Unigram, BPE with a normalizer or another split.

Needs the extra `tokenizers`. The library's errors on a corrupt file become a TokenizerError.
Source: huggingface/tokenizers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from gpt_edge.arguments import check_several, check_text
from gpt_edge.errors import TokenizerError, require
from gpt_edge.tokenizer.detokenizer import TextDetokenizer
from gpt_edge.tokenizer.formats.hf_pieces import pieces_of
from gpt_edge.tokenizer.formats.json_file import parse_json
from gpt_edge.tokenizer.spec import TokenizerSpec
from gpt_edge.tokenizer.special_tokens import SpecialTokenFinder

Result = TypeVar("Result")
EXTRA = "tokenizers"
# in place of a special token in a vocabulary: a noncharacter, which stands in no text
UNREACHABLE, LEAST_SCORE = "\U0010ffff{}\U0010ffff", -1e9


class LibraryTokenizer:
    """The `Tokenizer` of kind hf. Raises TokenizerError for a file that the library refuses or that
    is not that of `spec`, MissingDependencyError without the extra.
    """

    kind: str = "hf"
    max_token_bytes: int | None = None  # a normalizer may drop text

    def __init__(self, spec: TokenizerSpec, content: bytes, where: str) -> None:
        self.vocab_size = spec.vocab_size
        self.end_token = spec.end_token
        self.prefix = spec.prefix
        self._special = open_library(content, where)
        self._plain = open_library(_without_special(parse_json(content, where)), where)
        true_ids = self._special.get_vocab(with_added_tokens=True)
        plain_ids = self._plain.get_vocab(with_added_tokens=True)
        # the library numbers added tokens anew where others are missing
        self._true_id = {
            id: true_ids[text] for text, id in plain_ids.items() if true_ids.get(text, id) != id
        }
        self._finder = SpecialTokenFinder(dict(spec.special_tokens), spec.token_rules)
        largest = max(true_ids.values(), default=-1)
        if largest >= spec.vocab_size:
            raise TokenizerError(
                f"{where} has a token of id {largest}, expected ids below {spec.vocab_size}"
            )

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a whole text; see Tokenizer."""
        return [*self.prefix, *self.encode_part(text, special=special)]

    def encode_part(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a later part of a text; see Tokenizer."""
        check_text("text", text)
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        model = self._special if special else self._plain
        ids: list[int] = model.encode(text, add_special_tokens=False).ids
        if special or not self._true_id:
            return ids
        return [self._true_id.get(id, id) for id in ids]

    def first_spelled(self, text: str) -> str | None:
        """The first special token in `text`; see Tokenizer."""
        return self._finder.first_spelled(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; see Tokenizer."""
        check_several("ids", ids, "token ids")
        detokenizer = self.detokenizer()
        return "".join([*map(detokenizer.push, ids), detokenizer.flush()])

    def token_bytes(self, id: int) -> bytes:
        """The UTF-8 bytes of one token as a text of its own; see Tokenizer."""
        self._check(id)
        return self._decode([id]).encode("utf-8")

    def piece_bytes(self) -> list[bytes | None] | None:
        """The bytes that each id adds to a text that has begun, None for an id without a token;
        None in all where that depends on its neighbours, as with WordPiece.
        """
        document = json.loads(self._special.to_str())
        return pieces_of(document, self._special.get_vocab(), self.vocab_size)

    def detokenizer(self) -> TextDetokenizer:
        """A new streaming decoder."""
        return TextDetokenizer(self._decode, self._check)

    def _decode(self, ids: list[int]) -> str:
        text: str = self._special.decode(ids, skip_special_tokens=False)
        return text

    def _check(self, id: int) -> None:
        if not isinstance(id, int) or not 0 <= id < self.vocab_size:
            raise ValueError(f"a token id must be from 0 to {self.vocab_size - 1}, got {id!r:.80}")


def _without_special(document: Mapping[str, Any]) -> bytes:
    """The file without its special tokens: not to be found in a text, neither by the library nor,
    as Unigram would, by the model. The token for the unknown stays, which no model can do without.
    """
    added = [one for one in document.get("added_tokens") or [] if isinstance(one, dict)]
    special = {one.get("content") for one in added if one.get("special")}
    model = dict(document.get("model") or {})
    special.discard(model.get("unk_token"))
    vocab = model.get("vocab")
    if isinstance(vocab, list):
        model["vocab"] = [
            [UNREACHABLE.format(id), LEAST_SCORE] if piece[0] in special else piece
            for id, piece in enumerate(vocab)
        ]
    elif isinstance(vocab, dict):
        merged = {
            "".join(pair.split(" ") if isinstance(pair, str) else pair)
            for pair in model.get("merges") or []
        }
        hidden = special - merged
        model["vocab"] = {
            UNREACHABLE.format(id) if text in hidden else text: id for text, id in vocab.items()
        }
    kept = [one for one in added if not one.get("special")]
    plain = {**document, "added_tokens": kept, "model": model, "post_processor": None}
    return json.dumps(plain, ensure_ascii=False).encode("utf-8")


def open_library(content: bytes, where: str) -> Any:
    """Return the library's tokenizer. Raises TokenizerError for content that it refuses."""
    tokenizers = require("tokenizers", EXTRA)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{where} is not UTF-8: {error}") from error
    model = guarded(lambda: tokenizers.Tokenizer.from_str(text), where)
    guarded(lambda: model.encode("It is 3 o'clock.\n", add_special_tokens=True), where)
    model.no_truncation()
    model.no_padding()
    return model


def guarded(
    call: Callable[[], Result], where: str, library: str = "the tokenizers library"
) -> Result:
    """Return what `call` returns. Raises TokenizerError where the library fails, and where it
    panics, which is no Exception.
    """
    try:
        return call()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TokenizerError(f"{where} is refused by {library}: {reason!a:.160}") from error
