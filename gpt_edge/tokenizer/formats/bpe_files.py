"""GPT-2's other file pair, `vocab.json` + `merges.txt` (`encoder.json` + `vocab.bpe`), turned into
tiktoken ranks.

vocab.json maps a token to its id, merges.txt lists the pairs in the order in which they were
learned, and both spell a byte as one printable character. Source: openai/gpt-2, encoder.py. Exact
or refused: merges that joining by rank would not reproduce are an error.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer.formats.rank_file import N_BYTES, format_ranks

Merge = tuple[str, str]


def unicode_to_byte() -> dict[str, int]:
    """Return GPT-2's printable stand-ins: 256 characters to byte values."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = sorted(set(range(N_BYTES)) - set(printable))
    return {
        **{chr(value): value for value in printable},
        **{chr(N_BYTES + n): value for n, value in enumerate(others)},
    }


def byte_names() -> list[str]:
    """Return the stand-in of each byte, by value."""
    byte_of = unicode_to_byte()
    return sorted(byte_of, key=byte_of.__getitem__)


def spell(token: bytes, names: Sequence[str]) -> str:
    """Return `token` in stand-ins; names: `byte_names()`."""
    return "".join([names[byte] for byte in token])


def decode_token(token: str, byte_of: Mapping[str, int]) -> bytes:
    """Return the bytes that `token` spells; KeyError for a character that stands for no byte."""
    return bytes([byte_of[character] for character in token])


def parse_merges(text: str, where: str) -> list[Merge]:
    """Read merges.txt: two parts a line, first learned first; a first line `#version` is skipped.

    Raises TokenizerError naming the line.
    """
    merges = []
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.rstrip("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        parts = line.split(" ")
        if len(parts) != 2 or not all(parts):
            raise TokenizerError(
                f"{where}, line {number}: found {line[:60]!r}, expected two parts and one space "
                "between"
            )
        merges.append((parts[0], parts[1]))
    return merges


def check_merges(vocab: Mapping[str, int], merges: Sequence[Merge], where: str) -> None:
    """Raise TokenizerError unless both parts and the result of every merge are in `vocab`, and no
    merge comes twice.
    """
    for number, (left, right) in enumerate(merges, start=1):
        for part in (left, right, left + right):
            if part not in vocab:
                raise TokenizerError(
                    f"{where}: merge {number} is {left!r} + {right!r}, but {part!r} is not in the "
                    "vocabulary",
                    hint="the vocabulary and the merges belong to different tokenizers",
                )
    if len(set(merges)) < len(merges):
        raise TokenizerError(
            f"{where}: {len(merges) - len(set(merges))} merges come twice, each is expected once"
        )


def ranks_from_merges(
    vocab: Mapping[str, int], merges: Sequence[Merge], added: Collection[str], where: str
) -> tuple[bytes, dict[str, int]]:
    """Return a rank file's content and the special tokens: what no merge makes, decoded to its
    text.

    added: tokens that are spelled as they are, not in GPT-2's stand-ins for bytes.
    The ids of `vocab` are kept: as ranks where they follow the merges, else as a third column.
    Raises TokenizerError for a missing byte token, unknown parts, and merges that ranks cannot
    reproduce.
    """
    byte_of = unicode_to_byte()
    if missing := [character for character in byte_of if character not in vocab]:
        value = byte_of[missing[0]]
        raise TokenizerError(
            f"{where}: no token for byte 0x{value:02x} ({len(missing)} of the 256 byte tokens are "
            "missing)",
            hint="gpt-edge needs a byte-level vocabulary: each of the 256 bytes is a token",
        )
    check_merges(vocab, merges, where)
    made = [left + right for left, right in merges]
    names = [*sorted(byte_of, key=byte_of.__getitem__), *made]
    try:
        tokens = [decode_token(name, byte_of) for name in names]
    except KeyError as error:
        raise TokenizerError(
            f"{where}: a merge holds {error.args[0]!r}, which stands for no byte"
        ) from error
    _check_reproducible(
        tokens, [(decode_token(a, byte_of), decode_token(b, byte_of)) for a, b in merges], where
    )

    ids = [vocab[name] for name in names]
    merged_ids = ids[N_BYTES:]
    # single bytes are never the result of a join: their rank may be any
    if merged_ids == sorted(merged_ids):
        by_id = sorted(zip(ids, tokens, strict=True))
        content = format_ranks([token for _, token in by_id], [id for id, _ in by_id])
    else:
        content = format_ranks(tokens, range(len(tokens)), ids)
    return content, _special_tokens(vocab, set(names), added, byte_of, where)


def _special_tokens(
    vocab: Mapping[str, int],
    made: set[str],
    added: Collection[str],
    byte_of: Mapping[str, int],
    where: str,
) -> dict[str, int]:
    special_tokens: dict[str, int] = {}
    for name, id in vocab.items():
        if name in made:
            continue
        try:
            text = name if name in added else decode_token(name, byte_of).decode("utf-8")
        except KeyError:
            text = name  # added by hand, outside the byte alphabet
        except UnicodeDecodeError as error:
            raise TokenizerError(
                f"{where}: token {name!r} (id {id}) is made by no merge and is not UTF-8"
            ) from error
        if text in special_tokens:
            raise TokenizerError(
                f"{where}: the special tokens {special_tokens[text]} and {id} have one text, "
                f"{text!r:.60}"
            )
        special_tokens[text] = id
    return special_tokens


def _check_reproducible(
    tokens: Sequence[bytes], merges: Sequence[tuple[bytes, bytes]], where: str
) -> None:
    """Raise TokenizerError unless joining by rank always joins the pairs that `merges` lists.

    tiktoken joins x and y whenever x + y is a token; a merge list names the pair. The two agree on
    every text exactly when each token, spelled out in bytes and joined with the lower ranks only,
    ends as the pair of its own merge: then within a longer text, too, no other pair that makes the
    token can ever stand side by side.
    """
    if len(set(tokens)) < len(tokens):
        raise TokenizerError(
            f"{where}: two merges make the same token, which a rank file cannot express"
        )
    rank_of = {token: rank for rank, token in enumerate(tokens)}
    for token, pair in zip(tokens[N_BYTES:], merges, strict=True):
        parts = join_by_rank(token, rank_of, below=rank_of[token])
        if parts != list(pair):
            raise TokenizerError(
                f"{where}: the merge {pair[0]!r} + {pair[1]!r} is never reached, its bytes join to "
                f"{parts!r}",
                hint="the merges are not in the order in which they were learned",
            )


def join_by_rank(token: bytes, rank_of: Mapping[bytes, int], below: int) -> list[bytes]:
    """Byte-pair encode `token` with the ranks less than `below`: lowest first, then leftmost. Slow
    and obvious.
    """
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 1:
        ranks = [rank_of.get(left + right, below) for left, right in itertools.pairwise(parts)]
        lowest = min(ranks)
        if lowest >= below:
            break
        index = ranks.index(lowest)
        parts[index : index + 2] = [parts[index] + parts[index + 1]]
    return parts
