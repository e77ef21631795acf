"""A tokenizer as Hugging Face's files: exact, read back the same, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer import (
    TokenizerSource,
    build_tokenizer,
    find_tokenizer,
    source_from_ranks,
    tokenizer_from,
)
from gpt_edge.tokenizer.formats.hf_files import FILE_NAMES, hf_files, merges_from_ranks
from gpt_edge.tokenizer.formats.hf_json import make_spec
from gpt_edge.tokenizer.formats.rank_file import format_ranks, parse_ranks

BYTES = [bytes([byte]) for byte in range(256)]
MERGES = [b" t", b"he", b" the", b"in", b"ing", b" in", b"\xc3\xa9", b"\xc3\xa9t", b"  ", b"\n\n"]


def ranks(*more: bytes) -> TokenizerSource:
    return source_from_ranks(format_ranks([*BYTES, *MERGES, *more]))


def write(folder: Path, files: dict[str, bytes], *names: str) -> Path:
    folder.mkdir()
    for name in names or files:
        (folder / name).write_bytes(files[name])
    return folder


def test_every_file_comes_back_as_the_same_tokenizer(tmp_path: Path) -> None:
    source = ranks()
    files = hf_files(source, 64)
    assert set(files) == set(FILE_NAMES)
    for number, names in enumerate(
        [FILE_NAMES, [name for name in FILE_NAMES if name != "tokenizer.json"]]
    ):
        found = find_tokenizer(write(tmp_path / str(number), files, *names))
        assert found is not None
        assert (found.spec, found.content) == (source.spec, source.content)


@settings(max_examples=30, deadline=None)
@given(text=st.text())
def test_merges_from_ranks_join_what_the_ranks_join(text: str) -> None:
    """Slow and obvious: the first merge of the list that fits, everywhere, until none does."""
    source = ranks()
    merges = merges_from_ranks(parse_ranks(source.content, "ranks"), "ranks")
    stand_in = {id: name for name, id in json.loads(hf_files(source, 64)["vocab.json"]).items()}
    expected = build_tokenizer(source)
    # each token, from its bytes: the pattern has split the text already
    for id in expected.encode(text):
        parts = [stand_in[byte] for byte in expected.token_bytes(id)]
        for left, right in merges:
            at = 0
            while at + 1 < len(parts):
                if parts[at : at + 2] == [left, right]:
                    parts[at : at + 2] = [left + right]
                at += 1
        assert parts == [stand_in[id]]


def test_a_token_that_no_merge_makes_is_refused_with_its_bytes() -> None:
    with pytest.raises(
        TokenizerError, match=r"b'xyz' \(rank 266\) is no pair of lower-ranked tokens"
    ):
        hf_files(ranks(b"xyz"), 64)


def test_a_special_token_that_is_spelled_like_another_is_refused() -> None:
    content = format_ranks([*BYTES, *MERGES])
    spec = make_spec("gpt2", "tokenizer.tiktoken", 267, {"he": 266}, None, "here")
    with pytest.raises(TokenizerError, match=r"'he' \(id 266\) is spelled like the token 257"):
        hf_files(TokenizerSource(spec, content), 64)


def test_special_tokens_of_any_text_keep_their_ids(tmp_path: Path) -> None:
    content = format_ranks([*BYTES, *MERGES])
    special = {"<|endoftext|>": 266, "<two words>": 267, "<script>alert(1)</script>": 268}
    spec = make_spec("gpt2", "tokenizer.tiktoken", 269, special, None, "here")
    found = find_tokenizer(write(tmp_path / "hf", hf_files(TokenizerSource(spec, content), 64)))
    assert found is not None
    assert (found.spec, found.content) == (spec, content)


def test_ranks_that_are_no_ids_keep_both(tmp_path: Path) -> None:
    """GPT-2's own vocabulary has its bytes in another order; here the joined tokens are shuffled
    too.
    """
    tokens = [*BYTES, *MERGES]
    content = format_ranks(tokens, range(len(tokens)), list(reversed(range(len(tokens)))))
    spec = make_spec("gpt2", "tokenizer.tiktoken", len(tokens), {}, None, "here")
    source = TokenizerSource(spec, content)
    found = find_tokenizer(write(tmp_path / "hf", hf_files(source, 64)))
    assert found is not None
    assert build_tokenizer(found).encode("the in\n\nété") == build_tokenizer(source).encode(
        "the in\n\nété"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2-vocab", "gpt1-vocab"])
def test_transformers_reads_the_published_vocabularies_with_the_same_ids(
    name: str, shared_data: Path, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    source = tokenizer_from(str(shared_data / name))
    folder = write(tmp_path / "hf", hf_files(source, 1024))
    model_type = "gpt2" if source.spec.kind == "gpt2" else "openai-gpt"
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    text = next((shared_data / "tinyshakespeare").glob("*.txt")).read_text("utf-8")[:50_000]
    text += " émigré naïve 🦙🦙 中文 3333 \t\t don't 'LL \n\n x"
    expected = build_tokenizer(source).encode(text)
    for use_fast in (True, False):
        theirs = transformers.AutoTokenizer.from_pretrained(folder, use_fast=use_fast)
        assert theirs.encode(text, add_special_tokens=False) == expected
    vocab, merges = (
        (folder / "vocab.json").read_text("utf-8"),
        (folder / "merges.txt").read_text("utf-8"),
    )
    if source.spec.kind == "gpt2":  # the published pair itself
        assert json.loads(vocab) == json.loads(
            (shared_data / name / "encoder.json").read_text("utf-8")
        )
        assert (
            merges.split("\n")[1:]
            == (shared_data / name / "vocab.bpe").read_text("utf-8").split("\n")[1:]
        )
