"""Reading the JSON of tokenizer files: typed values or one clear error, whatever the bytes are."""

from __future__ import annotations

import json
from typing import Any

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer.formats.bpe_files import Merge
from gpt_edge.tokenizer.spec import MAX_VOCAB_SIZE


def parse_json(content: bytes, where: str) -> dict[str, Any]:
    """Return the object in `content`. Raises TokenizerError for anything else, a key that comes
    twice included.
    """
    try:
        document = json.loads(content.decode("utf-8"), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, too deep, or a key twice
        reason = "too deeply nested" if isinstance(error, RecursionError) else str(error)
        raise TokenizerError(f"{where} is not readable JSON: {reason}") from error
    if not isinstance(document, dict):
        raise TokenizerError(f"{where} holds a JSON {type(document).__name__}, expected an object")
    return document


def parse_vocab(value: object, where: str) -> dict[str, int]:
    """Return `value` as a vocabulary, token to id. Raises TokenizerError unless every id is a whole
    number, used once.
    """
    if not isinstance(value, dict) or not value:
        raise TokenizerError(
            f"{where}: the vocabulary must be an object of tokens and ids, got {_name(value)}"
        )
    try:
        "".join(value).encode("utf-8")
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"{where}: the vocabulary holds half a surrogate pair, which is no character"
        ) from error
    for token, id in value.items():
        if type(id) is not int or not 0 <= id < MAX_VOCAB_SIZE:
            raise TokenizerError(
                f"{where}: token {token!r:.60} has id {id!r:.60}, expected a number from 0"
            )
        if not token:
            raise TokenizerError(f"{where}: the empty token (id {id}) is not a token")
    if len(set(value.values())) < len(value):
        token_of: dict[int, str] = {}
        for token, id in value.items():
            if token_of.setdefault(id, token) != token:
                raise TokenizerError(
                    f"{where}: id {id} belongs to {token_of[id]!r:.60} and to {token!r:.60}"
                )
    return value


def parse_merge_list(value: object, where: str) -> list[Merge]:
    """Return `value`, a list of "left right" or ["left", "right"], as merges. Raises TokenizerError
    naming the entry.
    """
    if not isinstance(value, list):
        raise TokenizerError(f"{where}: the merges must be a list, got {_name(value)}")
    merges = []
    for number, entry in enumerate(value, start=1):
        parts = entry.split(" ") if isinstance(entry, str) else entry
        if (
            not isinstance(parts, list)
            or len(parts) != 2
            or not all(isinstance(part, str) and part for part in parts)
        ):
            raise TokenizerError(f"{where}: merge {number} is {entry!r:.60}, expected two parts")
        merges.append((parts[0], parts[1]))
    return merges


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r:.60} comes twice")
            seen.add(key)
    return result


def _name(value: object) -> str:
    return "nothing" if value is None else type(value).__name__
