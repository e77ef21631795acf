"""The streaming decoders: pieces join to the whole decode, for any tokens and ids, and hold no half
character.
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_edge.tokenizer.detokenizer import (
    ByteDetokenizer,
    TextDetokenizer,
    WordDetokenizer,
    decode_words,
)
from gpt_edge.tokenizer.spec import Detokenizer

HARD_BYTES = [
    b"a",
    b" ",
    b"\xf0",
    b"\x9f",
    b"\x98\x80",
    b"\xe2\x82",
    b"\xac",
    b"\xed\xa0\x80",
    b"\xff",
    b"\xc0\xaf",
    b"\xef\xbb\xbf",
]
HARD_WORDS = [
    "a",
    "b</w>",
    "</w>",
    "<",
    "/",
    "</",
    "w",
    ">",
    "/w>",
    "\n</w>",
    " ",
    "<unk>",
    "é</w>",
    "　",
    "\x1c",
    "<</w>",
]


def stream(detokenizer: Detokenizer, ids: list[int]) -> list[str]:
    return [*(detokenizer.push(id) for id in ids), detokenizer.flush()]


@given(st.lists(st.one_of(st.sampled_from(HARD_BYTES), st.binary(max_size=5)), max_size=24))
def test_byte_pieces_join_to_the_whole_decode(tokens: list[bytes]) -> None:
    pieces = stream(ByteDetokenizer(tokens), list(range(len(tokens))))
    assert "".join(pieces) == b"".join(tokens).decode("utf-8", "replace")


@given(st.text(), st.lists(st.integers(0, 80)))
def test_pieces_of_valid_text_hold_whole_characters_only(text: str, cuts: list[int]) -> None:
    data = text.encode("utf-8", "replace")
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    tokens = [data[start:stop] for start, stop in itertools.pairwise(edges)]
    detokenizer = ByteDetokenizer(tokens)
    seen = ""
    for id, stop in enumerate(edges[1:]):
        seen += detokenizer.push(id)
        # every character as soon as its last byte is there
        assert seen == data[:stop].decode("utf-8", "ignore")
    assert detokenizer.flush() == ""


@given(st.lists(st.sampled_from(HARD_WORDS), max_size=24))
def test_word_pieces_join_to_the_whole_decode(tokens: list[str]) -> None:
    pieces = stream(WordDetokenizer(tokens), list(range(len(tokens))))
    assert "".join(pieces) == decode_words(tokens)


def test_a_word_comes_as_soon_as_it_is_certain() -> None:
    detokenizer = WordDetokenizer(["hel", "lo</w>", "world</w>"])
    assert [detokenizer.push(0), detokenizer.push(1), detokenizer.push(2), detokenizer.flush()] == [
        "hel",
        "lo",
        " world",
        "",
    ]


def test_an_unfinished_character_comes_with_flush_as_one_replacement() -> None:
    detokenizer = ByteDetokenizer([b"\xf0\x9f", b"\x98", b"\x80"])
    assert (detokenizer.push(0), detokenizer.push(1), detokenizer.flush()) == ("", "", "\ufffd")


@pytest.mark.parametrize(
    "detokenizer", [ByteDetokenizer([b"\xe2", b"a"]), WordDetokenizer(["x</w>", "a</w>"])]
)
def test_flush_starts_anew(detokenizer: Detokenizer) -> None:
    stream(detokenizer, [0])
    assert "".join(stream(detokenizer, [1])) == "a"


@pytest.mark.parametrize("id", [-1, 2, 10**9])
@pytest.mark.parametrize(
    "detokenizer", [ByteDetokenizer([b"a", b"b"]), WordDetokenizer(["a", "b"])]
)
def test_an_id_out_of_range_is_a_value_error(detokenizer: Detokenizer, id: int) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        detokenizer.push(id)


def test_a_word_detokenizer_starts_again_after_its_end() -> None:
    """The next text's white space at its beginning is no more than the first one's."""
    detokenizer = WordDetokenizer(["one</w>", "</w>", "<", "two"])
    for _ in range(2):
        assert [detokenizer.push(id) for id in (1, 0, 1, 3, 2)] == ["", "one", "", "  two", ""]
        assert detokenizer.flush() == "<"
    assert detokenizer.flush() == ""


@pytest.mark.parametrize("id", [-1, 2, 2**63, "0", None, 0.5])
def test_what_is_no_id_is_refused(id: object) -> None:
    for detokenizer in (ByteDetokenizer([b"a", b"b"]), WordDetokenizer(["a", "b"])):
        assert detokenizer.push(1) == "b"
        with pytest.raises(ValueError, match="must be from 0 to 1, got"):
            detokenizer.push(id)  # type: ignore[arg-type]


def test_a_text_detokenizer_says_what_is_new_and_starts_again() -> None:
    """Its library's text of some ids may be shorter than that of fewer."""
    texts = {(): "", (1,): "a\ufffd", (1, 2): "a\u00e9", (1, 2, 3): "a", (1, 2, 3, 4): "a\u00e9!"}
    checked: list[int] = []
    detokenizer = TextDetokenizer(lambda ids: texts[tuple(ids)], checked.append)
    for _ in range(2):
        assert [detokenizer.push(id) for id in (1, 2, 3, 4)] == ["a", "\u00e9", "", "!"]
        assert detokenizer.flush() == ""
    assert checked == [1, 2, 3, 4] * 2
    assert detokenizer.push(1) == "a"
    assert detokenizer.flush() == "\ufffd"
    assert detokenizer.flush() == ""


@pytest.mark.parametrize(
    ("tokens", "pieces"),
    [
        (["a", "<", "/w>", "b"], ["a", "", "", " b", ""]),
        (["a<", "/", "w", ">b"], ["a", "", "", " b", ""]),
        (["a</w", "x"], ["a", "</wx", ""]),
        (["a</", "w", "<"], ["a", "", "</w", "<"]),
        (["</w>", "a", "</w>"], ["", "a", "", ""]),
        (["a>", "w"], ["a>", "w", ""]),
    ],
)
def test_what_may_begin_a_space_waits_and_nothing_else(
    tokens: list[str], pieces: list[str]
) -> None:
    assert stream(WordDetokenizer(tokens), list(range(len(tokens)))) == pieces
