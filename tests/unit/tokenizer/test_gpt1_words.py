"""GPT-1's words beside BERT's steps written out one after the other, and the ids of a tiny file."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_edge.tokenizer import TokenizerSource, TokenizerSpec, build_tokenizer, gpt1
from gpt_edge.tokenizer.formats.gpt1_file import format_gpt1_file
from gpt_edge.tokenizer.gpt1 import CHINESE, GPT1Tokenizer, spaced_words

ODD = "\t\n\r\x00\x0b\x1c\x7f\x85\xa0\xad\u1680\u200b\u2028\u3000\ufeff\ufffd\ud800\u0378\ue000"
SIGNS = '!"$+/09:<=>@AZ[^_`az{|}~\u00a1\u00b4\u2019\u2014\u20ac\u3001'
ACCENTS = "\u00e9\u0301\u0323\u0130\u03a3\u03c2\ufb01\u212b\uac00\u1100\u1161\u0903\u20dd"
EDGES = "".join(chr(code + by) for pair in CHINESE for code in map(ord, pair) for by in (-1, 0, 1))


def cleaned(text: str) -> Iterator[str]:
    for character in text:
        category = unicodedata.category(character)
        if character in "\t\n\r" or category == "Zs":
            yield " "
        elif category[0] != "C" and character != "\ufffd":
            is_chinese = any(ord(first) <= ord(character) <= ord(last) for first, last in CHINESE)
            yield from (" ", character, " ") if is_chinese else (character,)


def split_apart(text: str) -> Iterator[str]:
    for character in text:
        category = unicodedata.category(character)
        is_ascii_sign = 33 <= ord(character) <= 126 and not character.isalnum()
        if is_ascii_sign or category[0] == "P":
            yield from (" ", character, " ")
        elif category != "Mn":
            yield character


def words(text: str) -> list[str]:
    """BERT's BasicTokenizer, step by step."""
    text = unicodedata.normalize("NFC", "".join(cleaned(text))).lower()
    return "".join(split_apart(unicodedata.normalize("NFD", text))).split()


@given(st.text(st.sampled_from(ODD + SIGNS + ACCENTS + EDGES + "abc ") | st.characters()))
def test_words_are_those_of_the_steps(text: str) -> None:
    assert spaced_words(text).split() == words(text)


@pytest.mark.parametrize("characters", [ODD, SIGNS, ACCENTS, EDGES], ids=ascii)
def test_each_odd_character_is_treated_as_the_steps_say(characters: str) -> None:
    for character in characters:
        assert spaced_words(f"x{character}y").split() == words(f"x{character}y"), ascii(character)


def test_tables_remember_the_common_plane_alone() -> None:
    table = gpt1._Table(str.upper)
    assert "a\uffff\U00010000\U0001f600".translate(table) == "A\uffff\U00010000\U0001f600"
    assert set(table) == {ord("a"), 0xFFFF}


def tiny() -> GPT1Tokenizer:
    """The letters a, b and e, alone and at a word's end, and two merges."""
    merges = [("a", "b</w>"), ("b", "ab</w>")]
    tokens = ["<unk>", *"abe", "a</w>", "b</w>", "e</w>", *map("".join, merges)]
    vocab = {token: id for id, token in enumerate(tokens)}
    special = {"<end>": 9, "<s>": 10}
    spec = TokenizerSpec(
        "gpt1", "tokenizer.json", 11, end_token=9, special_tokens=tuple(special.items())
    )
    content = format_gpt1_file(vocab, merges, special)
    found = build_tokenizer(TokenizerSource(spec, content))
    assert isinstance(found, GPT1Tokenizer)
    return found


def test_a_literal_unk_and_what_the_vocabulary_lacks_are_unk() -> None:
    pytest.importorskip("tokenizers")
    tokenizer = tiny()
    assert tokenizer.encode("ab BAB\u00e9 a") == [7, 2, 1, 2, 6, 4]
    assert tokenizer.encode("bab") == [8]
    assert tokenizer.encode("a<unk>b<UNK>") == [4, 0, 5, 0]
    assert tokenizer.encode("<unk>a") == [0, 4]
    assert tokenizer.encode("azb") == [1, 0, 5]
    assert tokenizer.encode("a<end>b", special=True) == [4, 9, 5]
    assert 9 not in tokenizer.encode("a<end>b")
    assert tokenizer.first_spelled("a<unk>b<s>") == "<s>"
    assert tokenizer.first_spelled("a<unk>b") is None
    assert tokenizer.decode([7, 0, 9, 4]) == "ab <unk><end>a"
    assert [tokenizer.token_bytes(id) for id in (1, 4, 10)] == [b"a", b"a ", b"<s>"]
    detokenizer = tokenizer.detokenizer()
    assert "".join([*map(detokenizer.push, [7, 0, 9, 4]), detokenizer.flush()]) == "ab <unk><end>a"
    with pytest.raises(ValueError, match="from 0 to 10"):
        tokenizer.decode([11])
    with pytest.raises(ValueError, match="got one string"):
        tokenizer.decode("7")  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [7, 1000, 50_000])
def test_a_long_text_has_the_ids_of_its_words(n: int) -> None:
    pytest.importorskip("tokenizers")
    text = ("ab bab z a\n" * n)[:n]
    tokenizer = tiny()
    assert tokenizer.encode(text) == [id for word in text.split() for id in tokenizer.encode(word)]
