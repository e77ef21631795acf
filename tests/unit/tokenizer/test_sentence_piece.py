"""SentencePiece models, through their library: ids, special tokens, and what is refused."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from pathlib import Path

import pytest

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer import TokenizerSpec, build_tokenizer, find_tokenizer, tokenizer_from

LINES = ["first citizen: hear me speak.", "all: speak, speak.", "you are all resolved"] * 20
TEXTS = ("hear me", "  two  spaces ", "HEAR</s>", "[CLS]hear", "日本 é", "", "\ud800")


@pytest.fixture(scope="module")
def model() -> bytes:
    library = pytest.importorskip("sentencepiece")
    content = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_writer=content,
        vocab_size=320,
        hard_vocab_limit=False,
        control_symbols=["[PAD]"],
        user_defined_symbols=["[CLS]"],
        byte_fallback=True,
        minloglevel=2,
    )
    return content.getvalue()


@pytest.fixture
def folder(model: bytes, tmp_path: Path) -> Path:
    """As rinna's models are: read in lower case, with a token of their own added."""
    (tmp_path / "spiece.model").write_bytes(model)
    config = {
        "do_lower_case": True,
        "eos_token": "</s>",
        "bos_token": "<s>",
        "pad_token": "[PAD]",
        "additional_special_tokens": ["<new>"],
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


def test_the_ids_are_those_of_the_library(folder: Path, model: bytes) -> None:
    library = pytest.importorskip("sentencepiece")
    theirs = library.SentencePieceProcessor(model_proto=model)
    source = find_tokenizer(folder)
    assert source is not None
    assert (source.spec.kind, source.spec.lowercase) == ("sentencepiece", True)
    assert (source.spec.end_token, source.spec.prefix) == (theirs.eos_id(), ())
    assert TokenizerSpec.from_dict(json.loads(json.dumps(source.spec.to_dict()))) == source.spec
    assert tokenizer_from(str(folder / "spiece.model")) == source
    ours = build_tokenizer(source)
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == theirs.encode(text.replace("\ud800", "\ufffd").lower())
        assert ours.decode(ids) == theirs.decode(ids)
        detokenizer = ours.detokenizer()
        assert "".join([*map(detokenizer.push, ids), detokenizer.flush()]) == ours.decode(ids)
    new = theirs.get_piece_size()
    assert source.spec.vocab_size == new + 1
    assert ours.encode("<new></s>", special=True) == [new, theirs.eos_id()]
    assert ours.encode("a</s>")[-1] != theirs.eos_id()
    assert ours.first_spelled("a</s>") == "</s>"
    assert ours.decode([new, theirs.eos_id()]) == "<new></s>"
    assert ours.token_bytes(theirs.piece_to_id("<0xE3>")) == b"\xe3"


@pytest.mark.parametrize(
    ("settings", "begins"),
    [
        ({"tokenizer_class": "T5Tokenizer"}, False),
        ({"tokenizer_class": "LlamaTokenizer"}, True),
        ({"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": False}, False),
        ({"add_bos_token": True}, True),
    ],
)
def test_the_class_says_whether_texts_begin_with_a_token(
    folder: Path, settings: dict[str, object], begins: bool
) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    source = find_tokenizer(folder)
    assert source is not None
    assert build_tokenizer(source).encode("<s>", special=True) == [1] * (1 + begins)


def test_a_class_that_reads_the_model_in_another_way_is_refused(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPTSw3Tokenizer"}')
    with pytest.raises(TokenizerError, match="'GPTSw3Tokenizer', whose rules") as caught:
        find_tokenizer(folder)
    assert "set tokenizer_class to T5Tokenizer" in str(caught.value.hint)


def test_a_corrupt_model_is_refused(folder: Path) -> None:
    (folder / "spiece.model").write_bytes(b"\x00not a model")
    with pytest.raises(TokenizerError, match="refused by the sentencepiece library"):
        find_tokenizer(folder)


def test_a_model_without_pieces_or_with_others_than_its_description_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = pytest.importorskip("sentencepiece")
    source = find_tokenizer(folder)
    assert source is not None
    short = dataclasses.replace(source, spec=TokenizerSpec("sentencepiece", "spiece.model", 5))
    with pytest.raises(TokenizerError, match=r"pieces and 0 tokens beyond them, expected 5 in all"):
        build_tokenizer(short)
    monkeypatch.setattr(library.SentencePieceProcessor, "get_piece_size", lambda self: 0)
    with pytest.raises(TokenizerError, match="holds no piece"):
        build_tokenizer(source)


def test_without_the_library_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spiece.model").write_bytes(b"model")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(
        TokenizerError, match="is a SentencePiece vocabulary; the package"
    ) as caught:
        find_tokenizer(tmp_path)
    assert caught.value.hint == "pip install 'gpt-edge[sentencepiece]'"
