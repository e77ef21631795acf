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
        plain = _without_special(parse_json(content, where))
        continued = _without_prefix_space(plain)
        self._plain = open_library(_json(plain), where)
        self._continued = None if continued == plain else open_library(_json(continued), where)
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
        check_text("text", text)
        return [*self.prefix, *self._encode(text, special)]

    def encode_part(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a later part of a text; see Tokenizer."""
        check_text("text", text)
        if self._continued is None:
            return self._encode(text, special)
        # behind an added token a text begins anew, as in its maker's tokenizer
        first = next(self._finder.split(text, special), 0)
        if isinstance(first, int):
            return self._encode(text, special)
        return [
            *self._plain_ids(self._continued, _sound(first)),
            *self._encode(text[len(first) :], special),
        ]

    def _encode(self, text: str, special: bool) -> list[int]:
        if not special:
            return self._plain_ids(self._plain, _sound(text))
        ids: list[int] = self._special.encode(_sound(text), add_special_tokens=False).ids
        return ids

    def _plain_ids(self, model: Any, text: str) -> list[int]:
        ids: list[int] = model.encode(text, add_special_tokens=False).ids
        return [self._true_id.get(id, id) for id in ids] if self._true_id else ids

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


def _sound(text: str) -> str:
    """The library refuses lone surrogates; those that can be paired are paired first."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode("utf-8")


def _without_prefix_space(document: dict[str, Any]) -> dict[str, Any]:
    """The file for what continues a text: nothing is put before it."""
    steps = _steps(document.get("normalizer"), "normalizers")
    kept = [one for one in steps if one.get("type") != "Prepend"]
    changed = {**document}
    if len(kept) < len(steps):
        changed["normalizer"] = {"type": "Sequence", "normalizers": kept}
    # behind the first of several, every piece of a text gets its space
    first, *others = _steps(document.get("pre_tokenizer"), "pretokenizers") or [{}]
    if first.get("add_prefix_space"):
        first = {**first, "add_prefix_space": False}
    if "prepend_scheme" in first:
        first = {**first, "prepend_scheme": "never"}
    if others:
        changed["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [first, *others]}
    elif first:
        changed["pre_tokenizer"] = first
    return changed


def _steps(part: Any, key: str) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre_tokenizer; a Sequence has several."""
    if not isinstance(part, dict):
        return []
    if part.get("type") != "Sequence":
        return [part]
    inner = part.get(key)
    return [step for one in inner for step in _steps(one, key)] if isinstance(inner, list) else []


def _without_special(document: Mapping[str, Any]) -> dict[str, Any]:
    """The file without its special tokens: not to be found in a text, neither by the library nor,
    as Unigram would, by the model. The token for the unknown stays, which no model can do without,
    and so do tokens of bytes, which a model falls back to.
    """
    added = [one for one in document.get("added_tokens") or [] if isinstance(one, dict)]
    special = {one.get("content") for one in added if one.get("special")}
    model = dict(document.get("model") or {})
    special.discard(model.get("unk_token"))
    if model.get("byte_fallback"):
        special -= {f"<0x{byte:02X}>" for byte in range(256)}
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
    return {**document, "added_tokens": kept, "model": model, "post_processor": None}


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
