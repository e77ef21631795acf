"""The gpt2 kind on small vocabularies: rank files and what is refused, special tokens, odd text,
every byte.
"""

from __future__ import annotations

import random
import socket
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer import (
    Tokenizer,
    TokenizerSpec,
    build_tokenizer,
    load_tokenizer,
    source_from_ranks,
)
from gpt_edge.tokenizer.formats.rank_file import format_ranks, parse_ranks
from gpt_edge.tokenizer.load import MAX_FILE_BYTES

BYTES = [bytes([value]) for value in range(256)]
MERGED = [b"he", b"ll", b"hell", b"hello", b" w", b"\xc3\xa9", b"\xf0\x9f", b"  "]
RANKS = format_ranks([*BYTES, *MERGED])
END = 256 + len(MERGED)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build_tokenizer(source_from_ranks(RANKS))


def line(token: bytes, *numbers: int) -> bytes:
    return b" ".join([b64encode(token), *(b"%d" % number for number in numbers)]) + b"\n"


def test_a_rank_file_alone_is_a_tokenizer_with_an_end_token(tokenizer: Tokenizer) -> None:
    assert (tokenizer.kind, tokenizer.vocab_size, tokenizer.end_token) == ("gpt2", END + 1, END)
    assert tokenizer.encode("hello wé") == [259, 260, 261]
    assert tokenizer.decode([259, 260, 261, END]) == "hello wé<|endoftext|>"
    assert tokenizer.max_token_bytes == 5


def test_a_special_token_in_text_is_plain_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a<|endoftext|>b")
    assert END not in ids
    assert ids == list(b"a<|endoftext|>b")
    assert tokenizer.decode(ids) == "a<|endoftext|>b"


def test_a_lone_surrogate_is_encoded_as_the_replacement_character(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("a\ud800b") == tokenizer.encode("a\ufffdb")
    # a pair of halves is the character
    assert tokenizer.encode("\ud83d\ude00") == tokenizer.encode("😀")


@given(text=st.text(st.characters(codec="utf-8")))
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(data=st.data())
def test_any_ids_stream_to_their_decode(tokenizer: Tokenizer, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, END)))
    detokenizer = tokenizer.detokenizer()
    assert "".join([*map(detokenizer.push, ids), detokenizer.flush()]) == tokenizer.decode(ids)
    assert b"".join(map(tokenizer.token_bytes, ids)).decode("utf-8", "replace") == tokenizer.decode(
        ids
    )


@pytest.mark.parametrize("id", [-1, END + 1])
def test_an_id_out_of_range_is_a_value_error(tokenizer: Tokenizer, id: int) -> None:
    for call in (
        lambda: tokenizer.decode([0, id]),
        lambda: tokenizer.token_bytes(id),
        lambda: tokenizer.detokenizer().push(id),
    ):
        with pytest.raises(ValueError, match=f"from 0 to {END}, got {id}"):
            call()


def test_loading_opens_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("a tokenizer tried to reach the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "no-cache"))
    (tmp_path / "tokenizer.tiktoken").write_bytes(RANKS)
    assert load_tokenizer(tmp_path, source_from_ranks(RANKS).spec).encode("hello") == [259]


def test_ranks_need_not_follow_the_ids(tokenizer: Tokenizer) -> None:
    order = list(range(END))
    random.Random(1).shuffle(order)
    content = format_ranks([*BYTES, *MERGED], range(END), order)
    shuffled = build_tokenizer(source_from_ranks(content))
    text = "hello  wé 😀\ud800<|endoftext|>"
    assert shuffled.encode(text) == [order[id] for id in tokenizer.encode(text)]
    assert shuffled.decode(shuffled.encode(text)) == tokenizer.decode(tokenizer.encode(text))
    assert shuffled.end_token == END


def test_special_tokens_may_come_first() -> None:
    spec = TokenizerSpec("gpt2", "t.tiktoken", 258, 0, (("<s>", 0), ("</s>", 1)), "gpt2")
    source = source_from_ranks(RANKS)
    shifted = build_tokenizer(type(source)(spec, format_ranks(BYTES, range(2, 258))))
    assert shifted.encode("<s>") == [value + 2 for value in b"<s>"]
    assert shifted.decode([0, 2 + ord("x"), 1]) == "<s>x</s>"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: found '', expected 'base64"),
        (b"\x00\xff\xfe", "line 1"),
        (b"version https://git-lfs.github.com/spec/v1\n", "line 1: found 'version https://git-lfs"),
        (RANKS + b"\n", f"line {END + 1}: found ''"),
        (RANKS + b"AAAA\n", f"line {END + 1}: found 'AAAA', expected 'base64\\(token\\) rank'"),
        (RANKS + b" 264\n", f"line {END + 1}: found ' 264'"),
        (RANKS + b"AAA 264\n", f"line {END + 1}: found 'AAA 264'"),
        (RANKS + b"A?== 264\n", f"line {END + 1}"),
        (RANKS + b"AAAA -1\n", f"line {END + 1}: found 'AAAA -1'"),
        (RANKS + b"AAAA 1.5\n", f"line {END + 1}"),
        (RANKS + b"AAAA 99999999999999999999\n", f"line {END + 1}"),
        (RANKS + line(b"new", 264, 3), f"line {END + 1}"),
        (RANKS + line(b"hello", 264), f"line {END + 1}: token b'hello' is also on line 260"),
        (RANKS + line(b"new", 259), f"line {END + 1}: rank 259 is also on line 260"),
        (RANKS[:-4], f"line {END}: found"),
        (format_ranks(BYTES[1:]), "no token for byte 0x00 \\(1 of the 256"),
        (format_ranks([b"a", b"b"]), "254 of the 256 byte tokens are missing"),
        (RANKS + line(b"new", 270), "id 270, the vocabulary has 266 tokens"),
        (RANKS + line(b"new", 265), "id 265 belongs to b'new' and to b'<|endoftext|>'"),
        (
            b"".join(line(token, rank, rank // 2) for rank, token in enumerate(BYTES)),
            "line 2: id 0 is also on line 1",
        ),
    ],
)
def test_a_corrupt_rank_file_is_refused_by_line(content: bytes, message: str) -> None:
    with pytest.raises(TokenizerError, match=message.replace("|", r"\|")):
        source_from_ranks(content, "t.tiktoken")


def test_a_missing_last_newline_is_no_damage() -> None:
    assert parse_ranks(RANKS[:-1], "t") == parse_ranks(RANKS, "t")


def test_a_file_of_another_size_than_the_spec_is_refused() -> None:
    spec = TokenizerSpec("gpt2", "t.tiktoken", END + 2, END, (("<|endoftext|>", END),), "gpt2")
    with pytest.raises(
        TokenizerError, match=f"no token has id {END + 1}, ids 0 to {END + 1} were expected"
    ):
        build_tokenizer(type(source_from_ranks(RANKS))(spec, RANKS))


@given(st.binary(max_size=12), st.integers(0, len(RANKS)), st.integers(0, 40))
def test_a_mutated_rank_file_gives_a_tokenizer_or_a_tokenizer_error(
    piece: bytes, start: int, length: int
) -> None:
    content = RANKS[:start] + piece + RANKS[start + length :]
    try:
        source = source_from_ranks(content)
    except TokenizerError:
        return
    assert build_tokenizer(source).encode("hello")


def test_a_missing_or_huge_file_is_refused_by_name(tmp_path: Path) -> None:
    spec = source_from_ranks(RANKS).spec
    with pytest.raises(
        TokenizerError, match=r"cannot read the tokenizer file .*tokenizer.tiktoken: No such file"
    ):
        load_tokenizer(tmp_path, spec)
    with (tmp_path / spec.file).open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(TokenizerError, match="longer than 16 MiB"):
        load_tokenizer(tmp_path, spec)
