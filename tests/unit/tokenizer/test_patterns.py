"""Split patterns: rank files known by their hash, patterns given, and two libraries that agree."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from pathlib import Path

import pytest

from gpt_edge.errors import MissingDependencyError, TokenizerError
from gpt_edge.tokenizer import (
    TokenizerSource,
    build_tokenizer,
    byte_pairs,
    source_from_ranks,
    tokenizer_from,
)
from gpt_edge.tokenizer.byte_pairs import TiktokenBytePairs, TokenizersBytePairs
from gpt_edge.tokenizer.formats import known_ranks
from gpt_edge.tokenizer.formats.known_ranks import KNOWN, KnownRanks
from gpt_edge.tokenizer.formats.rank_file import format_ranks, parse_ranks
from gpt_edge.tokenizer.patterns import PATTERNS

BYTES = [bytes([value]) for value in range(256)]
# "(function" and ";\n" are one piece for cl100k alone, " 12345" and "'ll" for GPT-2 too
CL100K = [*BYTES, b";\n", b"(f"]
GPT2 = [*BYTES, b"12", b"1212", b" t", b"'l", b"'ll", b"  "]
TEXT = "12345 it'll (f); 'LL\n;\n  x\t\n"
# "th", "the", " the", an accent, white space, a Chinese character
MERGED = [
    b"th",
    b"the",
    b" the",
    b"\xc3\xa9",
    b"  ",
    b"\n\n",
    b"    ",
    b"\xe4\xbd",
    b"\xe4\xbd\xa0",
]


class Panic(BaseException):
    """As pyo3 raises one of Rust's."""


def unicode_corpus(shared_data: Path) -> list[str]:
    folder = shared_data / "unicode"
    texts = [(folder / "UTF-8-demo.txt").read_text("utf-8")]
    texts += json.loads((folder / "blns.shared.json").read_text("utf-8"))
    with gzip.open(folder / "udhr.shared.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts += [json.loads(line)["text"] for line in lines]
    return texts


def know(monkeypatch: pytest.MonkeyPatch, content: bytes, known: KnownRanks) -> None:
    monkeypatch.setitem(KNOWN, hashlib.sha256(content).hexdigest(), known)


def test_tiktokens_files_have_the_hashes_and_tokens_that_tiktoken_says() -> None:
    source = pytest.importorskip("tiktoken_ext.openai_public")
    text = Path(source.__file__).read_text("utf-8")
    assert len(KNOWN) == 4
    for sha256, known in KNOWN.items():
        assert f'expected_hash="{sha256}"' in text
        assert f"def {known.name}()" in text
        for id in known.special_tokens.values():
            assert str(id) in text
    assert {known.pattern for known in KNOWN.values()} == set(PATTERNS)
    assert repr(PATTERNS["gpt2"].tiktoken)[1:-1].replace("\\\\", "\\") in text.replace("\\'", "'")


def test_a_known_file_has_its_own_pattern_special_tokens_and_gaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = format_ranks(CL100K)
    known = KnownRanks("mine", "cl100k", {"<|endoftext|>": 259, "<|fim|>": 262})
    know(monkeypatch, content, known)
    (tmp_path / "any-name").write_bytes(content)
    source = tokenizer_from(str(tmp_path / "any-name"))
    assert (source.spec.pattern, source.spec.vocab_size, source.spec.end_token) == (
        "cl100k",
        263,
        259,
    )
    tokenizer = build_tokenizer(source)
    assert tokenizer.encode(";\n(f") == [256, 257]
    assert tokenizer.encode("a<|fim|><|unused_258|>", special=True)[:2] == [97, 262]
    assert tokenizer.encode("<|unused_258|>", special=True) == list(b"<|unused_258|>")
    assert tokenizer.decode([258]) == "<|unused_258|>"
    assert source_from_ranks(content, pattern="cl100k") == source_from_ranks(content)
    with pytest.raises(TokenizerError, match="is tiktoken's mine, whose split pattern is cl100k"):
        source_from_ranks(content, pattern="gpt2")


def test_a_rank_file_of_another_pattern_is_never_taken_for_gpt2s() -> None:
    with pytest.raises(
        TokenizerError, match=r"never makes the token ';\\n' and 1 others"
    ) as caught:
        source_from_ranks(format_ranks(CL100K), "mine.tiktoken")
    assert caught.value.hint is not None
    assert "--pattern: cl100k, o200k" in caught.value.hint
    given = source_from_ranks(format_ranks(CL100K), "mine.tiktoken", "cl100k")
    assert (given.spec.pattern, given.spec.vocab_size, given.spec.end_token) == ("cl100k", 259, 258)
    assert build_tokenizer(given).encode("x;\n(f") == [120, 256, 257]
    assert source_from_ranks(format_ranks(GPT2)).spec.pattern == "gpt2"
    with pytest.raises(TokenizerError, match="'cl100k' never makes the token '1212'"):
        source_from_ranks(format_ranks(GPT2), pattern="cl100k")


def test_a_few_relics_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_ranks, "MAX_CUT", 1.0)
    assert source_from_ranks(format_ranks(CL100K)).spec.pattern == "gpt2"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("llama", "pattern must be one of gpt2, cl100k, o200k, or a regular expression"),
        (r"[a-z", "tiktoken refuses the ranks"),
        (r"[a-z]+", "leaves out part of a text"),
        (r"(a+)+\b|(?=x)", "leaves out part of a text|the split pattern fails"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        source_from_ranks(format_ranks(BYTES), pattern=pattern)


def test_a_regular_expression_splits_as_it_says() -> None:
    ranks = [*BYTES, b"12", b"123"]
    source = source_from_ranks(format_ranks(ranks), pattern=r"\p{N}{1,3}|\P{N}")
    assert build_tokenizer(source).encode("ab1234") == [97, 98, 257, 52]


def test_a_long_text_of_another_pattern_is_whole_or_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs = TiktokenBytePairs(parse_ranks(format_ranks(CL100K), "here"), "cl100k", "here")
    text = "a long (f) text;\n" * 4
    expected = pairs.encode(text)
    monkeypatch.setattr(byte_pairs, "LONGEST_RUN", 8)
    assert pairs.encode(text) == expected
    with pytest.raises(TokenizerError, match="more than 8 characters of white space in a row"):
        pairs.encode("a" + " " * 9)


@pytest.mark.parametrize(
    ("error", "expected"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (Panic("stack overflow\nat 0"), TokenizerError)],
)
def test_a_pattern_that_makes_tiktoken_panic_is_refused(
    error: BaseException, expected: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(self: object, text: str) -> list[int]:
        raise error

    monkeypatch.setattr("tiktoken.Encoding.encode_ordinary", die)
    with pytest.raises(expected) as caught:
        TiktokenBytePairs(parse_ranks(format_ranks(BYTES), "here"), ".", "here")
    if expected is TokenizerError:
        assert str(caught.value) == "here: the split pattern fails: stack overflow"


def test_a_pattern_belongs_to_a_file(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="a split pattern belongs to a rank file"):
        tokenizer_from("gpt2", "cl100k")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_both_libraries_give_equal_ids_on_the_unicode_corpus(
    pattern: str, shared_data: Path
) -> None:
    table = parse_ranks(format_ranks([*BYTES, *MERGED]), "here")
    one = TiktokenBytePairs(table, pattern, "here")
    other = TokenizersBytePairs(table, pattern, "here")
    for text in [*unicode_corpus(shared_data), TEXT, "", "\ud800", "\ud83d\ude42 \udc00a"]:
        assert one.encode(text) == other.encode(text)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS)
def test_both_libraries_give_equal_ids_with_gpt2s_vocabulary(
    pattern: str, shared_data: Path
) -> None:
    table = parse_ranks(tokenizer_from(str(shared_data / "gpt2-vocab")).content, "here")
    one = TiktokenBytePairs(table, pattern, "here")
    other = TokenizersBytePairs(table, pattern, "here")
    for text in unicode_corpus(shared_data):
        assert one.encode(text) == other.encode(text)


def test_a_token_that_no_merge_makes_is_found_as_a_whole_piece() -> None:
    table = parse_ranks(format_ranks([*BYTES, b"xyz"]), "here")
    for library in (TiktokenBytePairs, TokenizersBytePairs):
        assert library(table, "gpt2", "here").encode("xyz xyzz") == [256, 32, 120, 121, 122, 122]


def test_without_tiktoken_the_other_library_takes_over_and_without_both_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = source_from_ranks(format_ranks(GPT2))
    expected = build_tokenizer(source).encode(TEXT)
    custom = source_from_ranks(format_ranks(BYTES), pattern=r"\p{N}{1,3}|\P{N}")
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    tokenizer = build_tokenizer(source)
    assert isinstance(tokenizer._byte_pairs, TokenizersBytePairs)  # type: ignore[attr-defined]
    assert tokenizer.encode(TEXT) == expected
    with pytest.raises(MissingDependencyError, match="needs the package 'tiktoken'"):
        build_tokenizer(custom)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingDependencyError, match="neither is installed") as caught:
        build_tokenizer(TokenizerSource(source.spec, source.content))
    assert caught.value.hint == (
        "pip install tiktoken, or where it has no wheel, as on Windows on Arm: "
        "pip install tokenizers"
    )
