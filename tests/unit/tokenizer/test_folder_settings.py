"""The files beside a vocabulary: the ids of a text are those of transformers' fast tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpt_edge.errors import GPTEdgeWarning, TokenizerError
from gpt_edge.tokenizer import TokenizerSource, build_tokenizer, find_tokenizer
from gpt_edge.tokenizer.formats.bpe_files import unicode_to_byte

transformers = pytest.importorskip("transformers")

MERGES = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w"), ("Ġ", "hello")]
NAMES = [*sorted(unicode_to_byte()), *(a + b for a, b in MERGES), "<|endoftext|>", "<s>"]
VOCAB = {token: id for id, token in enumerate(NAMES)}
NEXT = len(VOCAB)
END = VOCAB["<|endoftext|>"]
TEXTS = (
    "hello w",
    " hello",
    "\nhello",
    "",
    "hello <x> hello<|user|> w <|endoftext|>hello",
    "<|user|>hello",
    "a<x>b <x>  c",
    "<s>hello</s>",
)


def token(content: str, special: bool, **flags: bool) -> dict[str, Any]:
    plain = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": not special}
    return {"content": content, "special": special, **plain, **flags}


def write_folder(folder: Path, files: dict[str, Any], as_json: bool = False) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    (folder / "vocab.json").write_text(json.dumps(VOCAB))
    lines = "".join(f"{left} {right}\n" for left, right in MERGES)
    (folder / "merges.txt").write_text("#version: 0.2\n" + lines, encoding="utf-8")
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value))
    if as_json:  # as transformers itself writes the folder
        theirs = transformers.GPT2TokenizerFast.from_pretrained(folder)
        theirs.save_pretrained(folder)


def found(folder: Path) -> TokenizerSource:
    source = find_tokenizer(folder)
    assert source is not None
    return source


def check_like_transformers(folder: Path) -> None:
    ours = build_tokenizer(found(folder))
    theirs = transformers.GPT2TokenizerFast.from_pretrained(folder)
    plain = transformers.GPT2TokenizerFast.from_pretrained(folder, split_special_tokens=True)
    has_files = (folder / "tokenizer_config.json").exists()
    # where no file names special tokens, all that no merge makes are special, `<s>` too
    for text in TEXTS if has_files or (folder / "added_tokens.json").exists() else TEXTS[:-1]:
        assert ours.encode(text, special=True) == theirs(text).input_ids, text
        assert ours.encode(text) == plain(text).input_ids, text


ADDED = {"<x>": NEXT, "<|user|>": NEXT + 1}
DECODER = {
    str(END): token("<|endoftext|>", True),
    str(NEXT): token("<x>", False),
    str(NEXT + 1): token("<|user|>", True),
}
FOLDERS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "add_prefix_space": {"tokenizer_config.json": {"add_prefix_space": True}},
    "add_bos_token": {"tokenizer_config.json": {"add_bos_token": True}},
    "another bos": {"tokenizer_config.json": {"add_bos_token": True, "bos_token": "<s>"}},
    "both": {"tokenizer_config.json": {"add_bos_token": True, "add_prefix_space": True}},
    "added_tokens.json": {"added_tokens.json": ADDED},
    "added_tokens.json and a map": {
        "added_tokens.json": ADDED,
        "special_tokens_map.json": {"additional_special_tokens": ["<|user|>"]},
    },
    "added_tokens_decoder": {"tokenizer_config.json": {"added_tokens_decoder": DECODER}},
    "tokens that strip": {
        "tokenizer_config.json": {
            "added_tokens_decoder": {
                **DECODER,
                str(NEXT): token("<x>", False, rstrip=True),
                str(NEXT + 1): token("<|user|>", True, lstrip=True),
            }
        }
    },
    "a single word": {
        "tokenizer_config.json": {
            "added_tokens_decoder": {**DECODER, str(NEXT): token("<x>", True, single_word=True)}
        }
    },
    "prefix space and tokens": {
        "tokenizer_config.json": {"add_prefix_space": True, "added_tokens_decoder": DECODER}
    },
    "tokens without ids": {
        "tokenizer_config.json": {
            "pad_token": "</s>",
            "additional_special_tokens": ["<|user|>", "<x>"],
        }
    },
    "tokens in two lists": {
        "tokenizer_config.json": {"additional_special_tokens": ["<x>", "<|user|>"]},
        "special_tokens_map.json": {"additional_special_tokens": ["<|bot|>", "<x>"]},
    },
    "a token of the vocabulary": {"special_tokens_map.json": {"bos_token": "<s>"}},
}


@pytest.mark.parametrize("as_json", [False, True], ids=["pair", "tokenizer.json"])
@pytest.mark.parametrize("name", FOLDERS)
def test_the_ids_are_those_of_transformers(tmp_path: Path, name: str, as_json: bool) -> None:
    write_folder(tmp_path, FOLDERS[name], as_json)
    assert (tmp_path / "tokenizer.json").exists() == as_json
    check_like_transformers(tmp_path)


def test_only_the_first_part_of_a_text_gets_what_stands_before_it(tmp_path: Path) -> None:
    write_folder(tmp_path, FOLDERS["both"])
    tokenizer = build_tokenizer(found(tmp_path))
    assert tokenizer.prefix == (END,)
    assert tokenizer.encode("hello w") == [END, VOCAB["Ġhello"], VOCAB["Ġw"]]
    assert tokenizer.encode_part(" w") == [VOCAB["Ġw"]]
    assert tokenizer.encode_part("w") == [VOCAB["w"]]


def test_a_text_that_spells_a_special_token_is_noticed(tmp_path: Path) -> None:
    write_folder(tmp_path, FOLDERS["added_tokens_decoder"])
    tokenizer = build_tokenizer(found(tmp_path))
    assert tokenizer.first_spelled("a <|user|> b<|endoftext|>") == "<|user|>"
    assert tokenizer.first_spelled("a <x> <s> b") is None  # a word, and what no file calls special


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"do_lower_case": True}, "do_lower_case is true, which gpt-edge does not have"),
        ({"add_eos_token": True}, "add_eos_token is true"),
        ({"add_prefix_space": "yes"}, "add_prefix_space is 'yes', expected true or false"),
        ({"add_bos_token": 1}, "add_bos_token is 1, expected true or false"),
        ({"added_tokens_decoder": {"x": token("a", True)}}, "expected content and id"),
        ({"added_tokens_decoder": {str(NEXT): "a"}}, "expected content and id"),
        ({"additional_special_tokens": [7]}, "a special token is 7, expected a text"),
        ({"add_bos_token": True, "bos_token": "hello"}, "'hello' is to stand before every text"),
        ({"tokenizer_class": "Qwen2Tokenizer"}, "'Qwen2Tokenizer', whose rules for vocab.json"),
        ({"tokenizer_class": "OurTokenizer"}, "whose rules .* gpt-edge does not have"),
    ],
)
def test_a_setting_that_is_not_read_is_refused_by_name(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    write_folder(tmp_path, {"tokenizer_config.json": config})
    with pytest.raises(TokenizerError, match=message):
        find_tokenizer(tmp_path)


@pytest.mark.parametrize("place", ["tokenizer_config.json", "config.json"])
@pytest.mark.parametrize("name", ["RobertaTokenizer", "BartTokenizerFast"])
def test_a_class_that_encloses_texts_is_read_as_its_tokenizer_json_is(
    tmp_path: Path, name: str, place: str
) -> None:
    """The token behind a text ends it, so a prompt does without."""
    write_folder(tmp_path, {})
    (tmp_path / place).write_text(json.dumps({"model_type": "gpt2", "tokenizer_class": name}))
    ours = build_tokenizer(found(tmp_path))
    theirs = getattr(transformers, name.removesuffix("Fast") + "Fast").from_pretrained(tmp_path)
    assert (ours.prefix, ours.end_token) == ((theirs.cls_token_id,), theirs.sep_token_id)
    for text in ("hello w", "a <mask>b</s><s>", ""):
        assert [*ours.encode(text, special=True), ours.end_token] == theirs(text).input_ids
    theirs.save_pretrained(tmp_path / "json")
    again = build_tokenizer(found(tmp_path / "json"))
    assert (again.prefix, again.end_token) == (ours.prefix, ours.end_token)
    assert again.encode("a <mask>b", special=True) == ours.encode("a <mask>b", special=True)


def test_a_tokenizer_json_decides_on_the_beginning_token(tmp_path: Path) -> None:
    """As in transformers, where a fast tokenizer never looks at add_bos_token; but it is said."""
    write_folder(tmp_path, {}, as_json=True)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "add_bos_token": True}))
    with pytest.warns(GPTEdgeWarning, match="sets add_bos_token, but the post_processor"):
        source = found(tmp_path)
    assert source.spec.prefix == ()


def test_a_prefix_space_in_a_tokenizer_json_alone_is_honoured(tmp_path: Path) -> None:
    write_folder(tmp_path, FOLDERS["add_prefix_space"], as_json=True)
    for name in ("tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json"):
        (tmp_path / name).unlink()
    with pytest.warns(GPTEdgeWarning, match="puts a space before every text, which is done"):
        tokenizer = build_tokenizer(found(tmp_path))
    assert tokenizer.encode("hello") == [VOCAB["Ġhello"]]
    (tmp_path / "tokenizer_config.json").write_text('{"add_prefix_space": false}')
    assert build_tokenizer(found(tmp_path)).encode("hello") == [VOCAB["hello"]]
