"""The bytes of a tokenizer.json's tokens, where its decoder joins them without regard to what is
beside them: ByteLevel, or pieces with marked spaces and bytes.

Source: huggingface/tokenizers, `decoders`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from gpt_edge.tokenizer.formats.bpe_files import decode_token, unicode_to_byte

_SPACE = "\u2581"
_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")
# Strip takes the first space of a text, Fuse joins
_JOINING = {"Metaspace", "Replace", "ByteFallback", "Fuse", "Strip"}


def pieces_of(
    document: Mapping[str, Any], vocab: Mapping[str, int], vocab_size: int
) -> list[bytes | None] | None:
    """The bytes of each id below `vocab_size`, None for one without a token. document: the parsed
    file. vocab: with added tokens. None in all for other decoders.
    """
    added = {one["id"]: one["content"] for one in document.get("added_tokens") or []}
    as_bytes = _reader(document.get("decoder"))
    if as_bytes is None:
        return None
    pieces: list[bytes | None] = [None] * vocab_size
    for text, id in vocab.items():
        pieces[id] = text.encode("utf-8") if id in added else as_bytes(text)
    return pieces


def _reader(decoder: Mapping[str, Any] | None) -> Callable[[str], bytes | None] | None:
    """What reads a token's bytes from its text."""
    parts = [] if decoder is None else decoder.get("decoders", [decoder])
    names = {part["type"] for part in parts}
    if names == {"ByteLevel"}:
        byte_of = unicode_to_byte()
        return lambda text: _stand_ins(text, byte_of)
    if not names or not names <= _JOINING or not _marks_spaces(parts):
        return None
    return _marked_with_bytes if "ByteFallback" in names else _marked


def _marks_spaces(parts: list[Mapping[str, Any]]) -> bool:
    """Whether the mark of a space is the usual one, and nothing else is replaced."""
    for part in parts:
        if part["type"] == "Metaspace" and part["replacement"] != _SPACE:
            return False
        is_mark = (part.get("pattern"), part.get("content")) == ({"String": _SPACE}, " ")
        if part["type"] == "Replace" and not is_mark:
            return False
    return True


def _stand_ins(text: str, byte_of: Mapping[str, int]) -> bytes | None:
    try:
        return decode_token(text, byte_of)
    except KeyError:
        return None


def _marked(text: str) -> bytes:
    return text.replace(_SPACE, " ").encode("utf-8")


def _marked_with_bytes(text: str) -> bytes:
    match = _BYTE.fullmatch(text)
    return bytes.fromhex(match[1]) if match else _marked(text)
