"""The last value that is taken and the first that is not, and what messages show of a file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer import TokenizerSource, TokenizerSpec, build_tokenizer, registry
from gpt_edge.tokenizer.formats import hf_any, rank_file, sentence_piece_file
from gpt_edge.tokenizer.formats.character_file import is_pickle, source_from_meta
from gpt_edge.tokenizer.formats.gpt1_file import format_gpt1_file, parse_gpt1_file
from gpt_edge.tokenizer.formats.hf_settings import FolderSettings, read_folder_settings
from gpt_edge.tokenizer.formats.json_file import parse_json, parse_vocab
from gpt_edge.tokenizer.formats.rank_file import format_ranks, parse_ranks
from gpt_edge.tokenizer.spec import MAX_SPECIAL_TOKENS, MAX_VOCAB_SIZE

BYTES = [bytes([byte]) for byte in range(256)]


def test_a_spec_takes_as_much_as_it_may() -> None:
    spec = TokenizerSpec("characters", "tokens.json", MAX_VOCAB_SIZE)
    with pytest.raises(ValueError, match="vocab_size must be from 1"):
        dataclasses.replace(spec, vocab_size=MAX_VOCAB_SIZE + 1)
    many = tuple((f"<{id}>", id) for id in range(MAX_SPECIAL_TOKENS + 1))
    assert len(dataclasses.replace(spec, special_tokens=many[1:]).special_tokens) == len(many) - 1
    with pytest.raises(ValueError, match=f"at most {MAX_SPECIAL_TOKENS:,}".replace(",", "")):
        dataclasses.replace(spec, special_tokens=many)
    unsorted = (("<b>", 9), ("<c>", 3), ("<a>", 5))
    kept = dataclasses.replace(spec, special_tokens=unsorted).special_tokens
    assert kept == (("<c>", 3), ("<a>", 5), ("<b>", 9))


def test_a_key_that_comes_twice_is_named() -> None:
    with pytest.raises(TokenizerError, match="the key 'b' comes twice"):
        parse_json(b'{"a": 1, "b": 2, "c": 3, "b": 4}', "test")
    assert parse_json(b'{"a": 1, "b": {"a": 2}}', "test") == {"a": 1, "b": {"a": 2}}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "must be an object of tokens and ids, got dict"),
        ([], "got list"),
        (None, "got nothing"),
        ({"a": 0, "b": 0}, "id 0 belongs to 'a' and to 'b'"),
        ({"a": -1}, "token 'a' has id -1"),
        ({"a": MAX_VOCAB_SIZE}, f"token 'a' has id {MAX_VOCAB_SIZE}"),
    ],
)
def test_a_vocabulary_that_is_none_is_refused(value: object, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        parse_vocab(value, "test")


def test_ranks_beyond_the_vocabulary_and_broken_lines_are_shown() -> None:
    table = parse_ranks(format_ranks([*BYTES, b"th"]), "test")
    assert table.by_id({"<a>": 257}, 258, "test")[256:] == [b"th", b"<a>"]
    for size in (255, 256):
        with pytest.raises(TokenizerError, match=f"has id {size}, the vocabulary has {size}"):
            table.by_id({}, size, "test")
    line = "x" * 100
    with pytest.raises(TokenizerError, match="line 1: found '" + "x" * 60 + "', expected"):
        parse_ranks(line.encode(), "test")


@pytest.mark.parametrize("columns", [2, 3])
def test_a_rank_file_has_as_many_tokens_as_a_vocabulary_may(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_file, "MAX_VOCAB_SIZE", 257)
    tokens = [*BYTES, b"th", b"he"]
    for n in (257, 258):
        ids = range(n) if columns == 3 else None
        content = format_ranks(tokens[:n], range(n), ids)
        if n == 257:
            assert len(parse_ranks(content, "test").tokens) == 257
            continue
        with pytest.raises(TokenizerError, match="258 tokens, the maximum is 257"):
            parse_ranks(content, "test")


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"\x80\x04.", True), (b"(dp0\n.", True), (b"}.", True), (b"}", False), (b"(.x", False),
     (b"", False), (b".", False), (b"a.", False)],
)  # fmt: skip
def test_a_pickle_is_known_by_its_ends(content: bytes, expected: bool) -> None:
    assert is_pickle(content) is expected


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"k" * 30: 1}, "holds '" + "k" * 19 + ", expected stoi and itos"),
        ({f"k{n}": n for n in range(12)}, "'k6', 'k7', expected stoi"),
        ({}, "holds nothing, expected stoi and itos"),
        ({"itos": ["x" * 60], "stoi": {}}, "token 0 is '" + "x" * 39 + ", expected one"),
        ({"itos": [7], "stoi": {}}, "token 0 is int, expected one character"),
        ({"itos": ["a", "a"], "stoi": {"a": 1}}, "the character 'a' comes twice"),
    ],
)
def test_what_a_list_of_characters_lacks_is_shown(meta: object, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        source_from_meta(pickle.dumps(meta), "test")


def test_a_corrupt_pickle_says_why_in_one_line() -> None:
    # it puts a value at -1, and one at the last place that the file could hold
    for place in (-1, 99):
        with pytest.raises(TokenizerError, match="corrupt pickle"):
            source_from_meta(b"I1\np%d\n." % place, "test")
    with pytest.raises(TokenizerError, match="not a dictionary"):
        source_from_meta(b"I1\np0\n.", "test")


def test_gpt1s_vocabulary_is_checked_where_it_is_read() -> None:
    spec = TokenizerSpec("gpt1", "tokenizer.json", 3)
    good = {"<unk>": 0, "a": 1, "a</w>": 2}
    parse_gpt1_file(format_gpt1_file(good, [], {}), spec, "test")
    with pytest.raises(TokenizerError):
        parse_gpt1_file(format_gpt1_file({"a": 1, "a</w>": 2, "b": 0}, [], {}), spec, "test")
    for content in (b"{}", b'{"model": []}', b'{"model": {"end_of_word_suffix": ""}}'):
        with pytest.raises(TokenizerError):
            parse_gpt1_file(content, spec, "test")


def test_flags_of_a_folder_are_off_where_nothing_is_said(tmp_path: Path) -> None:
    settings = read_folder_settings(tmp_path)
    assert (settings.add_bos_token, settings.do_lower_case) == (False, False)
    assert settings.add_prefix_space is None
    (tmp_path / "tokenizer_config.json").write_text(
        '{"do_lower_case": true, "add_bos_token": true}'
    )
    settings = read_folder_settings(tmp_path)
    assert (settings.add_bos_token, settings.do_lower_case) == (True, True)


@pytest.mark.parametrize("key", ["7", "999999999", "1000000000", "x", "-1", "\u0661"])
def test_ids_of_added_tokens_have_nine_digits_at_most(key: str, tmp_path: Path) -> None:
    entry = {"content": "<a>", "special": True}
    text = json.dumps({"added_tokens_decoder": {key: entry}})
    (tmp_path / "tokenizer_config.json").write_text(text)
    if key in ("7", "999999999"):
        found = read_folder_settings(tmp_path).added
        assert [(token.text, token.id) for token in found.values()] == [("<a>", int(key))]
    else:
        with pytest.raises(TokenizerError, match="expected content and id"):
            read_folder_settings(tmp_path)


def test_tiktokens_cache_is_where_tiktoken_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"https://x/{name}": name.encode() for name in ("a", "b")}
    hashes = {url: hashlib.sha256(content).hexdigest() for url, content in files.items()}
    monkeypatch.setattr(registry, "GPT2_FILES", hashes)
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    monkeypatch.delenv("DATA_GYM_CACHE_DIR", raising=False)
    monkeypatch.setattr(registry.tempfile, "gettempdir", lambda: str(tmp_path))
    assert not registry.is_cached()
    cache = tmp_path / "data-gym-cache"
    cache.mkdir()
    for url, content in files.items():
        assert not registry.is_cached()
        (cache / hashlib.sha1(url.encode()).hexdigest()).write_bytes(content)
    assert registry.is_cached()
    monkeypatch.setenv("DATA_GYM_CACHE_DIR", str(tmp_path))
    assert not registry.is_cached()
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
    assert registry.is_cached()
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")  # no cache at all
    assert not registry.is_cached()
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
    next(iter(cache.iterdir())).write_bytes(b"damaged")
    assert not registry.is_cached()


def test_tiktokens_gpt2_has_its_end_token_last(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = [*BYTES, b"th"]
    encoding = SimpleNamespace(eot_token=257, decode_single_token_bytes=lambda rank: tokens[rank])
    monkeypatch.setattr(registry, "is_cached", lambda: True)
    monkeypatch.setattr("tiktoken.get_encoding", {"gpt2": encoding}.__getitem__)
    source = registry.source_from_registry()
    assert (source.spec.vocab_size, source.spec.end_token) == (258, 257)
    assert source.spec.special_tokens == (("<|endoftext|>", 257),)
    assert source.content == format_ranks(tokens)


def test_a_file_is_not_cut_or_padded_and_knows_its_ids() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[UNK]": 0, "a": 1, "b": 2}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.enable_truncation(2)
    made.enable_padding(length=9, pad_id=2, pad_token="b")
    content = made.to_str().encode()
    tokenizer = build_tokenizer(TokenizerSource(TokenizerSpec("hf", "t", 3), content, "test"))
    assert tokenizer.encode("a b a x") == [1, 2, 1, 0]
    assert tokenizer.encode("a b a x", special=True) == [1, 2, 1, 0]
    assert tokenizer.token_bytes(0) == b"[UNK]"
    for id in (-1, 3):
        with pytest.raises(ValueError, match="from 0 to 2"):
            tokenizer.token_bytes(id)
    with pytest.raises(TokenizerError, match="has a token of id 2, expected ids below 2"):
        build_tokenizer(TokenizerSource(TokenizerSpec("hf", "t", 2), content, "test"))


class Around:
    """A library whose template puts tokens around a text."""

    def __init__(self, before: list[int], after: list[int]) -> None:
        self.around = before, after

    def encode(self, text: str, add_special_tokens: bool) -> Any:
        assert text == "a b"
        before, after = self.around if add_special_tokens else ([], [])
        return SimpleNamespace(ids=[*before, 5, 6, *after])


@pytest.mark.parametrize("before", [[], [1], [5], [1, 5]])
@pytest.mark.parametrize("after", [[], [2], [6], [6, 5, 6]])
def test_what_a_template_puts_around_a_text(before: list[int], after: list[int]) -> None:
    found = hf_any._template(Around(before, after), "test")
    assert found == (tuple(before), tuple(after))


@pytest.mark.parametrize(
    ("end", "after", "expected"),
    [("<b>", (1,), 2), (3, (1,), 3), (None, (1, 4), 4), (None, (), 7), ("<x>", (), 7)],
)
def test_an_end_token_is_named_put_or_known(
    end: str | int | None, after: tuple[int, ...], expected: int
) -> None:
    special = {"<a>": 1, "<b>": 2, "<c>": 3, "</s>": 7}
    settings: Any = SimpleNamespace(end=end)
    assert hf_any._end_of(settings, special, after) == expected
    assert hf_any._end_of(SimpleNamespace(end=None), {"<a>": 1}, ()) is None  # type: ignore[arg-type]


class Pieces:
    """SentencePiece's model: unknown, two control tokens, a word."""

    names = ("<unk>", "<s>", "</s>", "word")

    def __init__(self, eos: int = 2) -> None:
        self.eos_id = lambda: eos

    def get_piece_size(self) -> int:
        return len(self.names)

    def id_to_piece(self, id: int) -> str:
        return self.names[id]

    def is_control(self, id: int) -> bool:
        return id in (1, 2)

    def is_unknown(self, id: int) -> bool:
        return id == 0


def of_pieces(monkeypatch: pytest.MonkeyPatch, eos: int = 2, **settings: Any) -> TokenizerSpec:
    monkeypatch.setattr(sentence_piece_file, "open_model", lambda content, where: Pieces(eos))
    values = {"values": {}, "where": "test", "added": {}, "roles": {}, "end": None}
    made = FolderSettings(**{**values, "is_explicit": True, **settings})
    return sentence_piece_file.source_from_sentence_piece(b"", made, "test").spec


def test_special_pieces_and_the_end_of_a_sentence_piece_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = of_pieces(monkeypatch)
    assert spec.special_tokens == (("<unk>", 0), ("<s>", 1), ("</s>", 2))
    assert (spec.vocab_size, spec.end_token, spec.prefix) == (4, 2, ())
    assert of_pieces(monkeypatch, eos=0).end_token == 0
    assert of_pieces(monkeypatch, eos=-1).end_token is None
    assert of_pieces(monkeypatch, end="<s>").end_token == 1
    assert of_pieces(monkeypatch, end=1).end_token == 1
    assert of_pieces(monkeypatch, values={"add_bos_token": True}).prefix == (1,)
    with pytest.raises(TokenizerError, match="begins with '<begin>', and there is no"):
        of_pieces(monkeypatch, values={"add_bos_token": True}, roles={"bos_token": "<begin>"})
    assert of_pieces(monkeypatch, roles={"bos_token": "<begin>"}).roles == ()
