"""Long runs of white space, unknown patterns, and what a tokenizer is asked for that is none."""

from __future__ import annotations

from typing import Any

import pytest

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer import TokenizerSource, build_tokenizer, byte_pairs, source_from_ranks
from gpt_edge.tokenizer.byte_pairs import TiktokenBytePairs, cut_long_runs
from gpt_edge.tokenizer.formats.rank_file import format_ranks, parse_ranks

BYTES = [bytes([byte]) for byte in range(256)]
CONTENT = format_ranks([*BYTES, b"  ", b"    ", b" t", b"he", b" the"])
TABLE = parse_ranks(CONTENT, "test")


@pytest.fixture
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_pairs, "LONGEST_RUN", 4)


@pytest.mark.usefixtures("short_runs")
@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a    the", ["a    the"]),  # as long as a run may be
        ("a     the", ["a    ", " the"]),
        ("a     the      the", ["a    ", " the     ", " the"]),
        ("     the", ["    ", " the"]),
        ("a     ", ["a     "]),  # the whole run at the end of a text
        ("", [""]),
    ],
)
def test_a_long_run_is_cut_before_its_last_character(text: str, parts: list[str]) -> None:
    assert list(cut_long_runs(text)) == parts
    whole = build_tokenizer(source_from_ranks(CONTENT))
    assert [id for part in parts for id in whole.encode_part(part)] == whole.encode(text)


@pytest.mark.usefixtures("short_runs")
def test_a_pattern_that_cuts_otherwise_refuses_long_runs() -> None:
    pairs = TiktokenBytePairs(TABLE, "cl100k", "test")
    ids = pairs.encode("the    the")
    assert b"".join(TABLE.tokens[id] for id in ids) == b"the    the"
    with pytest.raises(TokenizerError, match="more than 4 characters of white space in a row"):
        pairs.encode("the     the")
    assert TiktokenBytePairs(TABLE, "gpt2", "test").encode("the     the")


def test_a_pattern_that_dies_or_loses_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TokenizerError, match="leaves out part of a text"):
        TiktokenBytePairs(TABLE, "[a-z]+", "test")

    def interrupted(self: Any, text: str) -> list[int]:
        raise KeyboardInterrupt

    pairs = TiktokenBytePairs(TABLE, "gpt2", "test")
    pairs._encoding = type("Encoding", (), {"encode_ordinary": interrupted})()
    with pytest.raises(KeyboardInterrupt):
        pairs._encode_unknown("a")


@pytest.mark.parametrize("call", ["encode", "encode_part"])
def test_a_text_that_is_none_is_refused(call: str) -> None:
    tokenizer = build_tokenizer(source_from_ranks(CONTENT))
    with pytest.raises(ValueError, match="text must be a string"):
        getattr(tokenizer, call)(b"the")
    with pytest.raises(ValueError, match="ids must be"):
        tokenizer.decode("the")  # type: ignore[arg-type]


def test_gpt2s_letters_are_joined_as_their_ranks_say() -> None:
    source = source_from_ranks(CONTENT)
    assert isinstance(source, TokenizerSource)
    assert build_tokenizer(source).encode(" the  the") == [260, 32, 260]
