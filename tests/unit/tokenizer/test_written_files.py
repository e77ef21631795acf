"""What is written into tokenizer.json and its neighbours, by field: other programs read it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer import TokenizerSource, TokenizerSpec, source_from_ranks
from gpt_edge.tokenizer.formats.gpt1_file import format_gpt1_file
from gpt_edge.tokenizer.formats.hf_files import hf_files
from gpt_edge.tokenizer.formats.rank_file import format_ranks
from gpt_edge.tokenizer.formats.word_piece import word_piece_document

BYTES = [bytes([byte]) for byte in range(256)]


def added(id: int, content: str, **changes: bool) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id, "content": content, **flags, "special": True, **changes}


def test_gpt1s_file() -> None:
    vocab = {"\u00e9</w>": 3, "<unk>": 0, "a": 1, "b</w>": 2, "ab</w>": 4}
    content = format_gpt1_file(vocab, [("a", "b</w>")], {"<a>": 6, "<end>": 5})
    assert content.endswith(b"}\n")
    assert "\u00e9" in content.decode()
    assert b'", "' not in content
    document = json.loads(content)
    assert list(document["model"]["vocab"]) == ["<unk>", "a", "b</w>", "\u00e9</w>", "ab</w>"]
    assert document == {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added(5, "<end>"), added(6, "<a>")],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": {"type": "BPEDecoder", "suffix": "</w>"},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": "</w>",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": ["a b</w>"],
        },
    }


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_word_piece_vocabulary(end: bytes) -> None:
    lines = b"[PAD]\n[UNK]\r\n[CLS]\n[SEP]\na\n##b\na" + end
    document = word_piece_document(lines, {"strip_accents": False}, "test")
    start, stop = ({"SpecialToken": {"id": id, "type_id": 0}} for id in ("[CLS]", "[SEP]"))
    around = [start, {"Sequence": {"id": "A", "type_id": 0}}, stop]
    assert document == {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            added(id, text) for id, text in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
        ],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": False,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": around,
            "pair": [*around, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]},
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "##b": 5, "a": 6},
        },
    }


def test_gpt2s_files_with_a_prefix_and_rules() -> None:
    plain = source_from_ranks(format_ranks([*BYTES, b"th", b"the"]))
    tokens = (("<|end|>", 258), ("<s>", 259), ("<mask>", 260))
    spec = TokenizerSpec(
        "gpt2",
        plain.spec.file,
        261,
        pattern="gpt2",
        end_token=258,
        special_tokens=tokens,
        add_prefix_space=True,
        prefix=(259,),
        token_rules=(("<mask>", ("lstrip",)),),
    )
    files = hf_files(TokenizerSource(spec, plain.content, "test"), 77)
    document = json.loads(files["tokenizer.json"])
    vocab = document["model"].pop("vocab")
    assert [vocab["!"], vocab["th"], vocab["the"], vocab["<mask>"]] == [33, 256, 257, 260]
    assert list(vocab.values()) == list(range(261))
    assert json.loads(files["vocab.json"]) == vocab
    assert "\u0120" in files["vocab.json"].decode()  # how a space is spelled
    assert files["vocab.json"].endswith(b'"<mask>":260}\n')
    assert files["merges.txt"] == b"#version: 0.2\nt h\nth e\n"
    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    start = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    first, second = ({"Sequence": {"id": "AB"[n], "type_id": n}} for n in (0, 1))
    listed = [added(258, "<|end|>"), added(259, "<s>"), added(260, "<mask>", lstrip=True)]
    assert document == {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": listed,
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [start, first],
            "pair": [start, first, second],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [259], "tokens": ["<s>"]}},
        },
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "merges": ["t h", "th e"],
        },
    }
    roles = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|end|>")
    described = {str(one.pop("id")): one for one in listed}
    settings = files["tokenizer_config.json"].decode()
    assert json.loads(settings) == {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": True,
        "model_max_length": 77,
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": described,
        **roles,
    }
    assert settings.startswith('{\n "tokenizer_class": "GPT2Tokenizer",\n')
    assert files["special_tokens_map.json"] == (json.dumps(roles, indent=1) + "\n").encode()


@pytest.mark.parametrize(
    ("kind", "pattern", "message"),
    [
        ("characters", None, "a tokenizer of the kind characters, which"),
        ("gpt2", "cl100k", "a tokenizer of the pattern cl100k, which"),
    ],
)
def test_what_these_files_cannot_say_is_refused(
    kind: str, pattern: str | None, message: str
) -> None:
    spec = TokenizerSpec(kind, "tokens", 256, pattern=pattern)
    with pytest.raises(TokenizerError, match=message):
        hf_files(TokenizerSource(spec, format_ranks(BYTES), "test"), 9)


@pytest.mark.parametrize("adds_space", [True, False])
def test_the_neighbours_of_a_file_that_is_kept(adds_space: bool) -> None:
    pre = {"type": "Metaspace", "add_prefix_space": adds_space}
    content = json.dumps({"pre_tokenizer": pre}).encode()
    tokens = (("[UNK]", 0), ("</s>", 9))
    spec = TokenizerSpec(
        "hf",
        "tokenizer.json",
        10,
        end_token=9,
        special_tokens=tokens,
        roles=(("pad_token", "[UNK]"),),
    )
    files = hf_files(TokenizerSource(spec, content, "test"), 50)
    roles = {"eos_token": "</s>", "pad_token": "[UNK]"}
    assert files["tokenizer.json"] == content
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 50,
        "clean_up_tokenization_spaces": False,
        **({"add_prefix_space": True} if adds_space else {}),
        **roles,
    }
    for name, expected in (("tokenizer_config.json", settings), ("special_tokens_map.json", roles)):
        assert files[name] == (json.dumps(expected, indent=1) + "\n").encode()
