"""Tokenizers that the `tokenizers` library runs: WordPiece, Unigram and other BPE, with the ids of
transformers, and what is refused.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer import (
    Tokenizer,
    TokenizerSource,
    TokenizerSpec,
    build_tokenizer,
    find_tokenizer,
    tokenizer_from,
)
from gpt_edge.tokenizer.hf_library import _without_special, guarded

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "rain", "##s", "in", "你", "好", "。"]
TEXTS = ("The rains in 你好。", " the  rain\n", "", "[SEP] the [MASK]", "\ud800the", "é?")


def found(folder: Path) -> TokenizerSource:
    source = find_tokenizer(folder)
    assert source is not None
    return source


def write_vocab_txt(folder: Path, **settings: Any) -> None:
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def check_detokenizer(tokenizer: Tokenizer, ids: Sequence[int]) -> None:
    """The pieces join to the text, and no piece holds half a character."""
    detokenizer = tokenizer.detokenizer()
    pieces = [*map(detokenizer.push, ids), detokenizer.flush()]
    assert "".join(pieces) == tokenizer.decode(ids)


@pytest.mark.parametrize("settings", [{}, {"do_lower_case": False}, {"do_lower_case": True}])
def test_berts_vocab_txt_gives_the_ids_of_transformers(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    transformers = pytest.importorskip("transformers")
    write_vocab_txt(tmp_path, **settings)
    source = found(tmp_path)
    assert (source.spec.kind, source.spec.vocab_size, source.spec.end_token) == ("hf", 12, 3)
    assert source.spec.prefix == (2,)  # [CLS]; [SEP] ends a text, so a prompt does without
    assert TokenizerSpec.from_dict(json.loads(json.dumps(source.spec.to_dict()))) == source.spec
    ours = build_tokenizer(source)
    theirs = transformers.BertTokenizerFast.from_pretrained(tmp_path)
    for text in TEXTS:
        sound = text.replace("\ud800", "\ufffd")
        assert [*ours.encode(text, special=True), 3] == theirs(sound).input_ids
        check_detokenizer(ours, ours.encode(text))
    assert ours.encode("the [SEP]") != ours.encode("the [SEP]", special=True)
    assert ours.first_spelled("the [SEP]") == "[SEP]"
    assert ours.decode([5, 6, 7, 9, 10]) == theirs.decode([5, 6, 7, 9, 10])
    assert ours.token_bytes(9) == "你".encode()
    assert tokenizer_from(str(tmp_path / "vocab.txt")) == source
    with pytest.raises(ValueError, match="a token id must be from 0 to 11, got 12"):
        ours.decode([12])


def unigram() -> tokenizers.Tokenizer:
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("▁", -3.0), ("▁the", -2.0), ("n", -4.0), ("ら", -5.0)]
    model = tokenizers.Tokenizer(models.Unigram([*pieces, ("▁rai", -3.5)], unk_id=0))
    model.normalizer = normalizers.NFKC()
    model.pre_tokenizer = pre_tokenizers.Metaspace()
    model.decoder = decoders.Metaspace()
    model.add_special_tokens(["<unk>", "</s>"])
    return model


def composed_bpe() -> tokenizers.Tokenizer:
    """Byte-level, with a normalizer and a split of its own, which gpt-edge does not have."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: id for id, token in enumerate([*alphabet, "th", "the"])}
    model = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[("t", "h"), ("th", "e")]))
    model.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    digits = pre_tokenizers.Digits(individual_digits=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    model.decoder = decoders.ByteLevel()
    model.add_special_tokens(["<|endoftext|>"])
    model.add_tokens(["[NAME]"])
    return model


@pytest.mark.parametrize("make", [unigram, composed_bpe])
def test_a_tokenizer_json_of_another_kind_runs_as_it_is(tmp_path: Path, make: Any) -> None:
    theirs = make()
    theirs.save(str(tmp_path / "tokenizer.json"))
    source = found(tmp_path)
    assert source.spec.kind == "hf"
    assert source.spec.vocab_size == theirs.get_vocab_size()
    end = "</s>" if make is unigram else "<|endoftext|>"
    assert source.spec.end_token == theirs.token_to_id(end)
    ours = build_tokenizer(source)
    for text in (*TEXTS, "the [NAME] 123 ｔｈｅ らn", f"the{end}"):
        sound = text.replace("\ud800", "\ufffd")
        assert ours.encode(text, special=True) == theirs.encode(sound).ids
        check_detokenizer(ours, ours.encode(text))
    assert ours.encode("rain" + end) != ours.encode("rain" + end, special=True)
    assert ours.first_spelled(f"x{end}") == end
    assert ours.first_spelled("[NAME]") is None
    # bytes of characters come together before they are shown
    ids = ours.encode("らé猫")
    detokenizer = ours.detokenizer()
    assert not any("\ufffd" in detokenizer.push(id) for id in ids)


def test_bytes_that_a_model_falls_back_to_are_no_special_tokens(tmp_path: Path) -> None:
    """Trainers of the library know no bytes, so they are often given as special tokens."""
    names = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "t", "h", "e"]
    vocab = {name: id for id, name in enumerate(names)}
    model = models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True)
    theirs = tokenizers.Tokenizer(model)
    theirs.add_special_tokens(names[:258])
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = build_tokenizer(found(tmp_path))
    assert ours.encode("hé") == theirs.encode("hé").ids == [259, 2 + 0xC3, 2 + 0xA9]
    assert ours.encode("e<0x41>")[-1] == 2 + ord(">")


def test_the_normalizer_is_berts_as_tokenizer_config_json_has_it(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    write_vocab_txt(tmp_path, do_lower_case=False, tokenizer_class="BertTokenizer")
    transformers.BertTokenizerFast.from_pretrained(tmp_path).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    for changes in ({}, {"do_lower_case": True}, {"tokenize_chinese_chars": False}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, **changes}))
        ours = build_tokenizer(found(tmp_path))
        theirs = transformers.BertTokenizerFast.from_pretrained(tmp_path)
        for text in ("The RAINS in 你好。", "Thé"):
            assert [*ours.encode(text), 3] == theirs(text).input_ids, changes


def test_a_class_that_reads_vocab_txt_in_another_way_is_refused(tmp_path: Path) -> None:
    write_vocab_txt(tmp_path, tokenizer_class="BertJapaneseTokenizer")
    with pytest.raises(TokenizerError, match="'BertJapaneseTokenizer', whose rules for vocab"):
        find_tokenizer(tmp_path)


def spaced_byte_level() -> tokenizers.Tokenizer:
    model = composed_bpe()
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return model


def prepending_unigram() -> tokenizers.Tokenizer:
    model = unigram()
    model.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    model.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
    return model


@pytest.mark.parametrize("make", [unigram, prepending_unigram, spaced_byte_level])
def test_no_space_is_put_before_a_later_part_of_a_text(tmp_path: Path, make: Any) -> None:
    make().save(str(tmp_path / "tokenizer.json"))
    tokenizer = build_tokenizer(found(tmp_path))
    end = "</s>" if make is not spaced_byte_level else "<|endoftext|>"
    for first, rest in (("the rain", "\nin the"), ("the", " rain in"), ("in", f"\nthe{end}rain")):
        whole = tokenizer.encode(first + rest, special=True)
        parts = tokenizer.encode(first) + tokenizer.encode_part(rest, special=True)
        assert parts == whole, rest
    # what follows a special token begins anew
    assert tokenizer.encode_part(f"{end}rain", special=True) == tokenizer.encode(
        f"{end}rain", special=True
    )


def test_what_stands_beside_the_file_is_added_to_it(tmp_path: Path) -> None:
    unigram().save(str(tmp_path / "tokenizer.json"))
    config = {"eos_token": "<eod>", "additional_special_tokens": ["<|user|>"], "pad_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    source = found(tmp_path)
    size = unigram().get_vocab_size()
    assert (source.spec.vocab_size, source.spec.end_token) == (size + 2, size)
    assert dict(source.spec.roles)["pad_token"] == "</s>"
    tokenizer = build_tokenizer(source)
    assert tokenizer.encode("<|user|>", special=True) == [size + 1]


@pytest.mark.parametrize("is_composed", [False, True])
@pytest.mark.parametrize("in_file", [False, True])
def test_the_prefix_space_of_tokenizer_config_json_counts(
    tmp_path: Path, in_file: bool, is_composed: bool
) -> None:
    """As in transformers: it goes into a ByteLevel, and not into the parts of a Sequence."""
    transformers = pytest.importorskip("transformers")
    model = composed_bpe()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=in_file)
    model.pre_tokenizer = pre_tokenizers.Sequence([byte_level]) if is_composed else byte_level
    model.save(str(tmp_path / "tokenizer.json"))
    config = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": not in_file}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ids = build_tokenizer(found(tmp_path)).encode("rain 12")
    assert ids == transformers.GPT2TokenizerFast.from_pretrained(tmp_path)("rain 12").input_ids
    has_space = in_file if is_composed else not in_file
    assert model.decode(ids) == " rain 12"[not has_space :]


def test_a_template_may_lead_a_text_and_end_it_with_the_end_token_alone(tmp_path: Path) -> None:
    model = unigram()
    model.add_special_tokens(["<s>"])
    start = model.token_to_id("<s>")
    for template, message in (("<s> $A", ""), ("<s> $A </s>", ""), ("$A <s>", "not the end token")):
        model.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[("<s>", start), ("</s>", 1)]
        )
        model.save(str(tmp_path / "tokenizer.json"))
        (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
        if message:
            with pytest.raises(TokenizerError, match=message):
                find_tokenizer(tmp_path)
            continue
        spec = found(tmp_path).spec
        assert (spec.prefix, spec.end_token) == ((start,), 1)


@pytest.mark.parametrize(
    ("words", "settings", "message"),
    [
        (["a", "b"], {}, r"vocab.txt has no token \[UNK\]"),
        (WORDS, {"do_lower_case": "no"}, "do_lower_case beside it is 'no', expected true or false"),
        (WORDS, {"strip_accents": "no"}, "refused by the tokenizers library"),
        ([*WORDS, ""], {}, r"the empty token \(id 12\)"),
    ],
)
def test_a_vocab_txt_that_cannot_be_read_is_refused(
    tmp_path: Path, words: list[str], settings: dict[str, Any], message: str
) -> None:
    write_vocab_txt(tmp_path, **settings)
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    with pytest.raises(TokenizerError, match=message):
        find_tokenizer(tmp_path)


def test_without_the_library_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_vocab_txt(tmp_path)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(TokenizerError, match=r"'WordPiece' model, .* 'tokenizers' runs") as caught:
        find_tokenizer(tmp_path)
    assert caught.value.hint == "pip install 'gpt-edge[tokenizers]'"


@pytest.mark.parametrize("content", [b"{}", b"\xff", b'{"model": {"type": "WordPiece"}}', b"[]"])
def test_a_corrupt_file_of_a_bundle_is_refused(content: bytes) -> None:
    spec = TokenizerSpec("hf", "tokenizer.json", 12)
    with pytest.raises(TokenizerError, match=r"refused by the tokenizers library|is not UTF-8"):
        build_tokenizer(TokenizerSource(spec, content, "here"))


def test_ctrl_c_in_the_library_is_no_damage() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guarded(interrupted, "here")


def test_a_pre_tokenizer_alone_loses_its_space_for_what_continues_a_text(tmp_path: Path) -> None:
    model = unigram()
    model.normalizer = None
    model.pre_tokenizer = pre_tokenizers.Metaspace()
    model.save(str(tmp_path / "tokenizer.json"))
    tokenizer = build_tokenizer(found(tmp_path))
    assert tokenizer.encode_part("the") != tokenizer.encode("the")
    assert tokenizer.encode(" the") == tokenizer.encode("the")


def test_a_file_without_settings_reads_a_later_part_alike(tmp_path: Path) -> None:
    model = composed_bpe()
    model.pre_tokenizer = model.normalizer = None
    model.save(str(tmp_path / "tokenizer.json"))
    source = found(tmp_path)
    if source.spec.kind != "hf":  # read by gpt-edge itself
        source = dataclasses.replace(source, spec=dataclasses.replace(source.spec, kind="hf"))
    tokenizer = build_tokenizer(source)
    assert tokenizer.encode_part("the") == tokenizer.encode("the")
    pieces = tokenizer.piece_bytes()
    assert pieces is not None
    assert pieces[tokenizer.encode("the")[0]] == b"the"


def test_a_model_without_a_vocabulary_is_left_as_it_is() -> None:
    kept = {"model": {}, "added_tokens": [], "post_processor": None}
    assert _without_special({"model": {}}) == kept


def test_a_file_with_more_tokens_than_its_description_is_refused(tmp_path: Path) -> None:
    write_vocab_txt(tmp_path)
    spec = TokenizerSpec("hf", "tokenizer.json", 5)
    with pytest.raises(TokenizerError, match="has a token of id 11, expected ids below 5"):
        build_tokenizer(TokenizerSource(spec, found(tmp_path).content, "here"))
