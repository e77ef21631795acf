"""A vocabulary that is a list of characters: nanoGPT's meta.pkl, read without running it, and the
JSON list that a bundle stores.

meta.pkl is {"stoi": {character: id}, "itos": {id: character}, "vocab_size": n}. Its opcodes are
read first: anything but plain dictionaries, texts and numbers is refused by name, so nothing that
is in the file can run. Source: karpathy/nanoGPT, data/shakespeare_char/prepare.py; CPython,
Lib/pickletools.py.
"""

from __future__ import annotations

import io
import json
import pickle
import pickletools
from typing import Any

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer.spec import MAX_VOCAB_SIZE, TokenizerSource, TokenizerSpec

FILE = "tokenizer.characters.json"
MAX_SHOWN = 8  # unknown characters that a message names
HINT = "expected nanoGPT's meta.pkl: a dictionary with stoi and itos"
# no tuples: one that is a key is hashed, in exponential time where it holds itself many times over
_PLAIN_OPCODES = {
    *("PROTO", "FRAME", "STOP", "MARK"),
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1"),
    *("BINFLOAT", "FLOAT", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "LIST", "APPEND", "APPENDS"),
    *("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET"),
}


def is_pickle(content: bytes) -> bool:
    """Whether a file begins as a pickle of protocol 2 or later does, or ends as an older one."""
    return content[:1] == b"\x80" or (content[:1] in b"(}" and content[-1:] == b".")


def source_from_meta(content: bytes, where: str) -> TokenizerSource:
    """Return the tokenizer of a meta.pkl. Raises TokenizerError for one that is corrupt, would run
    code, or is no list of characters.
    """
    return source_of_characters(_characters(_load(content, where), where), where)


def source_of_characters(characters: list[str], where: str) -> TokenizerSource:
    """Return the tokenizer of characters by id. Raises TokenizerError as `parse_characters`."""
    content = json.dumps(characters, ensure_ascii=True).encode("ascii") + b"\n"
    parse_characters(content, where)
    return TokenizerSource(TokenizerSpec("characters", FILE, len(characters)), content, where)


def parse_characters(content: bytes, where: str) -> list[str]:
    """Return the characters of a file of a bundle, by id. Raises TokenizerError unless they are
    single characters, each once.
    """
    try:
        values = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{where} is not readable JSON: {error!s:.120}") from error
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_VOCAB_SIZE:
        raise TokenizerError(f"{where} must hold a list of characters")
    for id, value in enumerate(values):
        if not isinstance(value, str) or len(value) != 1 or "\ud800" <= value <= "\udfff":
            raise TokenizerError(f"{where}: token {id} is {value!r:.40}, expected one character")
    if len(set(values)) < len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise TokenizerError(f"{where}: the character {twice!r} comes twice")
    return values


def _load(content: bytes, where: str) -> Any:
    """The content of a pickle of plain values."""
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name not in _PLAIN_OPCODES:
                raise TokenizerError(
                    f"{where} is a pickle that would run code or holds other than plain values: "
                    f"opcode {opcode.name} {argument!a:.60}",
                    hint=HINT,
                )
            # a place in the table of values: the unpickler makes room for as many as it says
            if opcode.name.endswith("PUT") and not 0 <= int(str(argument)) <= len(content):
                raise TokenizerError(f"{where} is a corrupt pickle: it puts a value at {argument}")
        return _PlainUnpickler(io.BytesIO(content)).load()
    except TokenizerError:
        raise
    except Exception as error:  # a parser on untrusted bytes: the file is corrupt
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TokenizerError(f"{where} is a corrupt pickle: {reason!a:.120}", hint=HINT) from error


class _PlainUnpickler(pickle.Unpickler):
    """A second gate: no name is ever looked up."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is not a plain value")


def _characters(meta: Any, where: str) -> list[str]:
    """The characters by id. Raises TokenizerError where stoi and itos do not agree."""
    if not isinstance(meta, dict):
        raise TokenizerError(f"{where} holds {type(meta).__name__}, not a dictionary", hint=HINT)
    stoi, itos = meta.get("stoi"), meta.get("itos")
    if isinstance(itos, list):
        itos = dict(enumerate(itos))
    if not isinstance(itos, dict) or not isinstance(stoi, dict):
        keys = ", ".join(ascii(key)[:20] for key in list(meta)[:8]) or "nothing"
        raise TokenizerError(f"{where} holds {keys}, expected stoi and itos", hint=HINT)
    if not itos or any(type(id) is not int for id in itos) or set(itos) != set(range(len(itos))):
        raise TokenizerError(f"{where}: the ids of itos are not 0 to {len(itos) - 1}", hint=HINT)
    if not 1 <= len(itos) <= MAX_VOCAB_SIZE:
        raise TokenizerError(f"{where}: {len(itos)} tokens, the maximum is {MAX_VOCAB_SIZE}")
    characters = [itos[id] for id in range(len(itos))]
    for id, character in enumerate(characters):
        if not isinstance(character, str) or len(character) != 1:
            shown = (
                ascii(character)[:40] if isinstance(character, str) else type(character).__name__
            )
            raise TokenizerError(
                f"{where}: token {id} is {shown}, expected one character", hint=HINT
            )
    if stoi != {character: id for id, character in enumerate(characters)}:
        raise TokenizerError(f"{where}: stoi and itos are not each other's inverse", hint=HINT)
    return characters
