"""tiktoken rank files: the one form in which a bundle stores a byte-level vocabulary.

A line per token, `base64(token) rank`: tokens that can be joined are joined lowest rank first, and
the rank is the id. Vocabularies whose ids do not follow the order of their merges get a third
column, `base64(token) rank id`, which tiktoken's own loader refuses rather than misreads. Source:
tiktoken/load.py.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer.spec import MAX_VOCAB_SIZE

N_BYTES = 256  # every byte is a token, so any text can be encoded
HINT = (
    "a line is base64(token), a space and the rank; make the file again from vocab.json and "
    "merges.txt"
)

_TOKEN = rb"(?! )(?:[A-Za-z0-9+/]{4})*+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?+"
_NUMBER = rb"[0-9]{1,7}"
_LINE = {
    2: re.compile(_TOKEN + b" " + _NUMBER),
    3: re.compile(_TOKEN + b" " + _NUMBER + b" " + _NUMBER),
}
_FILE = {columns: re.compile(b"(?:" + line.pattern + b"\n)*+") for columns, line in _LINE.items()}


@dataclass(frozen=True, slots=True)
class RankTable:
    """The tokens of a rank file, by line. `ids` is `ranks` itself unless the file has a third
    column.
    """

    tokens: tuple[bytes, ...]
    ranks: tuple[int, ...]
    ids: tuple[int, ...]

    def by_id(self, special_tokens: Mapping[str, int], vocab_size: int, where: str) -> list[bytes]:
        """Return the bytes of each id, special tokens included; TokenizerError unless 0 ..
        vocab_size - 1 are all there.
        """
        n_tokens = len(self.tokens)
        if n_tokens <= vocab_size and self.ids == tuple(range(n_tokens)):
            by_id = {id: text.encode("utf-8") for text, id in special_tokens.items()}
            if sorted(by_id) == list(range(n_tokens, vocab_size)):  # special tokens come last
                return [*self.tokens, *(by_id[id] for id in range(n_tokens, vocab_size))]
        bytes_of: list[bytes | None] = [None] * vocab_size
        special = [(text.encode("utf-8"), id) for text, id in special_tokens.items()]
        for token, id in [*zip(self.tokens, self.ids, strict=True), *special]:
            if id >= vocab_size:
                raise TokenizerError(
                    f"{where}: token {token!r:.60} has id {id}, the vocabulary has {vocab_size} "
                    "tokens"
                )
            if bytes_of[id] is not None:
                raise TokenizerError(
                    f"{where}: id {id} belongs to {bytes_of[id]!r:.60} and to {token!r:.60}"
                )
            bytes_of[id] = token
        if None in bytes_of:
            raise TokenizerError(
                f"{where}: no token has id {bytes_of.index(None)}, ids 0 to {vocab_size - 1} were "
                "expected",
                hint="this is not the tokenizer the description belongs to, or its special tokens "
                "are missing",
            )
        return bytes_of  # type: ignore[return-value]  # None is ruled out above


def format_ranks(
    tokens: Sequence[bytes], ranks: Sequence[int] | None = None, ids: Sequence[int] | None = None
) -> bytes:
    """Return the content of a rank file. Without `ranks` they count from 0; `ids` adds the third
    column.
    """
    ranks = range(len(tokens)) if ranks is None else ranks
    encoded = [binascii.b2a_base64(token, newline=False) for token in tokens]
    if ids is None:
        return b"".join(b"%s %d\n" % line for line in zip(encoded, ranks, strict=True))
    return b"".join(b"%s %d %d\n" % line for line in zip(encoded, ranks, ids, strict=True))


def parse_ranks(content: bytes, where: str) -> RankTable:
    """Read a rank file and check it: base64, the 256 byte tokens, no token, rank or id twice.

    Takes about 30 ms for 50,000 tokens. Raises TokenizerError naming `where`, the line, and what
    was expected.
    """
    if not content.endswith(b"\n"):
        content += b"\n"
    columns = 3 if content[: content.index(b"\n")].count(b" ") == 2 else 2
    if not _FILE[columns].fullmatch(content):
        raise _bad_line(content, columns, where)
    fields = content.split()
    if len(fields) > columns * MAX_VOCAB_SIZE:
        raise TokenizerError(
            f"{where}: {len(fields) // columns} tokens, the maximum is {MAX_VOCAB_SIZE}"
        )
    tokens = tuple(map(binascii.a2b_base64, fields[0::columns]))
    ranks = tuple(map(int, fields[1::columns]))
    ids = tuple(map(int, fields[2::columns])) if columns == 3 else ranks
    _check_once("token", tokens, where)
    _check_once("rank", ranks, where)
    if columns == 3:
        _check_once("id", ids, where)
    if missing := {bytes([value]) for value in range(N_BYTES)}.difference(tokens):
        raise TokenizerError(
            f"{where}: no token for byte 0x{min(missing)[0]:02x} ({len(missing)} of the 256 byte "
            "tokens are missing)",
            hint="gpt-edge needs a byte-level vocabulary: each of the 256 bytes is a token",
        )
    return RankTable(tokens, ranks, ids)


def _bad_line(content: bytes, columns: int, where: str) -> TokenizerError:
    """The first line that is not of the form, for the message."""
    expected = "base64(token) rank" + (" id" if columns == 3 else "")
    for number, line in enumerate(content[:-1].split(b"\n"), start=1):
        if not _LINE[columns].fullmatch(line):
            found = line[:60].decode("utf-8", "replace")
            return TokenizerError(
                f"{where}, line {number}: found {found!r}, expected {expected!r}", hint=HINT
            )
    return TokenizerError(f"{where} is not a rank file", hint=HINT)


def _check_once(noun: str, values: Sequence[object], where: str) -> None:
    if len(set(values)) == len(values):
        return
    first_line: dict[object, int] = {}
    for number, value in enumerate(values, start=1):
        if value in first_line:
            raise TokenizerError(
                f"{where}, line {number}: {noun} {value!r:.60} is also on line "
                f"{first_line[value]}, "
                "each is expected once"
            )
        first_line[value] = number
