"""Faults in what stands beside the graph: each is planted in a bundle's tokenizer, labels or
settings, and the first thing that differs is named.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.generation_defaults import GenerationDefaults
from gpt_edge.export.verify.check_settings import check_settings, label_faults
from gpt_edge.export.verify.check_tokenizer import compare_tokenizers
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.tasks import new_task
from gpt_edge.tokenizer import TokenizerSource, TokenizerSpec, build_tokenizer, find_tokenizer
from gpt_edge.tokenizer.formats.gpt1_file import format_gpt1_file
from gpt_edge.tokenizer.formats.rank_file import format_ranks, parse_ranks
from gpt_edge.verify.report import Verification
from tests.support.tiny_model import bundle_path
from tests.support.transformers_models import save_vocabulary

Edit = Callable[[TokenizerSource], TokenizerSource]
Faults = Callable[[TokenizerSource, TokenizerSource], list[str]]


def golden() -> TokenizerSource:
    bundle = Bundle.open(bundle_path())
    assert bundle.manifest.tokenizer is not None
    spec = TokenizerSpec.from_dict(bundle.manifest.tokenizer)
    return TokenizerSource(spec, (bundle.path / spec.file).read_bytes())


def bundle_of(source: TokenizerSource, folder: Path) -> Bundle:
    """The golden model with another tokenizer."""
    (folder / source.spec.file).write_bytes(source.content)
    (folder / "model.onnx").write_bytes(b"")
    manifest = Bundle.open(bundle_path()).manifest
    config = dataclasses.replace(manifest.config, vocab_size=source.spec.vocab_size)
    changed = dataclasses.replace(manifest, config=config, tokenizer=source.spec.to_dict())
    return Bundle.unpublished(folder, changed)


def with_tokens(source: TokenizerSource, change: Callable[[list[bytes]], None]) -> TokenizerSource:
    tokens = list(parse_ranks(source.content, "test").tokens)
    change(tokens)
    return dataclasses.replace(source, content=format_ranks(tokens))


def with_spec(source: TokenizerSource, **changes: Any) -> TokenizerSource:
    return dataclasses.replace(source, spec=dataclasses.replace(source.spec, **changes))


def swap_two(source: TokenizerSource) -> TokenizerSource:
    def swap(tokens: list[bytes]) -> None:
        tokens[270], tokens[271] = tokens[271], tokens[270]

    return with_tokens(source, swap)


def lose_a_merge(source: TokenizerSource) -> TokenizerSource:
    lost = with_tokens(source, lambda tokens: tokens.pop(260))
    size = source.spec.vocab_size - 1
    special = tuple((text, id - 1) for text, id in source.spec.special_tokens)
    return with_spec(lost, vocab_size=size, special_tokens=special, end_token=size - 1)


def swap_only_the_ranks(source: TokenizerSource) -> TokenizerSource:
    """Every id keeps its bytes; two merges are tried in the other order."""
    tokens = parse_ranks(source.content, "test").tokens
    ranks = list(range(len(tokens)))
    ranks[256], ranks[275] = ranks[275], ranks[256]
    content = format_ranks(tokens, ranks, list(range(len(tokens))))
    return dataclasses.replace(source, content=content)


EDITS: dict[str, tuple[Edit, str]] = {
    "two ranks swapped": (swap_two, "token 270 is b"),
    "a merge lost": (lose_a_merge, "token 260 is b"),
    "only ranks swapped": (swap_only_the_ranks, "the rank of b"),
    "no end token": (
        lambda source: with_spec(source, end_token=None),
        "its end_token is None, the checkpoint's is 276",
    ),
    "another end token": (
        lambda source: with_spec(source, end_token=275),
        "its end_token is 275, the checkpoint's is 276",
    ),
    "another special token": (
        lambda source: with_spec(source, special_tokens=(("<|end|>", 276),)),
        "token 276 is b'<|end|>', the checkpoint's is b'<|endoftext|>'",
    ),
    "another split pattern": (
        lambda source: with_spec(source, pattern="cl100k"),
        "its pattern is 'cl100k', the checkpoint's is 'gpt2'",
    ),
    "a space before every text": (
        lambda source: with_spec(source, add_prefix_space=True),
        "its add_prefix_space is True, the checkpoint's is None",
    ),
    "a token before every text": (
        lambda source: with_spec(source, prefix=(276,)),
        "its prefix is [276], the checkpoint's is None",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_fault_of_the_tokenizer_is_named(name: str, tmp_path: Path) -> None:
    edit, message = EDITS[name]
    faults = compare_tokenizers(bundle_of(edit(golden()), tmp_path), golden())
    assert faults
    assert faults[0].startswith(message)


def test_the_same_tokenizer_has_no_fault(tmp_path: Path) -> None:
    assert compare_tokenizers(bundle_of(golden(), tmp_path), golden()) == []
    lines = golden().content.splitlines(keepends=True)
    reordered = dataclasses.replace(golden(), content=b"".join(reversed(lines)))
    assert compare_tokenizers(bundle_of(reordered, tmp_path), golden()) == []


def test_a_merge_of_a_tokenizer_json_is_compared(tmp_path: Path) -> None:
    """Of the kinds that a library reads, the file itself says how texts are cut."""
    vocabulary = tmp_path / "vocabulary"
    vocabulary.mkdir()
    save_vocabulary(vocabulary)
    from tokenizers import ByteLevelBPETokenizer

    made = ByteLevelBPETokenizer(
        str(vocabulary / "vocab.json"), str(vocabulary / "merges.txt"), lowercase=True
    )
    folder = tmp_path / "hf"
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    source = find_tokenizer(folder)
    assert source is not None
    assert source.spec.kind == "hf"  # lower case is not of the byte-level kind
    assert compare_tokenizers(bundle_of(source, tmp_path), source) == []
    document = json.loads(source.content)
    merges = document["model"]["merges"]
    merges[4], merges[5] = merges[5], merges[4]
    swapped = dataclasses.replace(source, content=json.dumps(document).encode())
    build_tokenizer(swapped)
    faults = compare_tokenizers(bundle_of(swapped, tmp_path), source)
    assert ".model.merges[4]" in faults[0]


Document = dict[str, Any]


def lose_lower_case(document: Document) -> None:
    document["normalizer"] = None


def fall_back_to_bytes(document: Document) -> None:
    document["model"]["byte_fallback"] = True


def shift_the_added_tokens(document: Document) -> None:
    for token in document["added_tokens"]:
        token["id"] += 1


def add_a_space(document: Document) -> None:
    document["pre_tokenizer"]["add_prefix_space"] = True


def decode_by_words(document: Document) -> None:
    document["decoder"] = {"type": "BPEDecoder", "suffix": "</w>"}


OF_A_FILE: dict[str, tuple[Callable[[Document], None], str]] = {
    "lower case lost": (lose_lower_case, ".normalizer"),
    "bytes for what is unknown": (fall_back_to_bytes, ".model.byte_fallback"),
    "added tokens shifted": (shift_the_added_tokens, ".added_tokens[0]"),
    "a space before every text": (add_a_space, ".pre_tokenizer.add_prefix_space"),
    "another decoder": (decode_by_words, ".decoder"),
}


@pytest.mark.parametrize("name", OF_A_FILE)
def test_a_setting_inside_a_tokenizer_json_is_compared(
    name: str, named_faults: Faults, tmp_path: Path
) -> None:
    from tokenizers import ByteLevelBPETokenizer

    save_vocabulary(tmp_path)
    files = (str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    made = ByteLevelBPETokenizer(*files, lowercase=True)
    made.add_tokens(["<extra>"])
    folder = tmp_path / "hf"
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    source = find_tokenizer(folder)
    assert source is not None
    assert source.spec.kind == "hf"
    edit, place = OF_A_FILE[name]
    document = json.loads(source.content)
    edit(document)
    changed = dataclasses.replace(source, content=json.dumps(document).encode())
    faults = named_faults(changed, source)
    assert any(place in fault or "<extra>" in fault for fault in faults), faults


@pytest.fixture
def named_faults(checkpoints: dict[str, Path], tmp_path: Path) -> Faults:
    """What a verification says of a bundle's tokenizer, one that cannot be read included."""
    checkpoint = open_checkpoint(checkpoints["gpt2"])

    def compare(ours: TokenizerSource, theirs: TokenizerSource) -> list[str]:
        report = Verification()
        check_settings(report, bundle_of(ours, tmp_path), checkpoint, theirs)
        return [fault for fault in report.faults if fault.startswith("tokenizer: ")]

    return compare


def of_gpt1() -> TokenizerSource:
    merges = [("a", "b</w>"), ("b", "ab</w>")]
    tokens = ["<unk>", *"abe", "a</w>", "b</w>", "e</w>", *map("".join, merges)]
    vocab = {token: id for id, token in enumerate(tokens)}
    special = {"<end>": 9, "<s>": 10}
    spec = TokenizerSpec(
        "gpt1", "tokenizer.json", 11, end_token=9, special_tokens=tuple(special.items())
    )
    return TokenizerSource(spec, format_gpt1_file(vocab, merges, special))


def exchange(first: str, second: str) -> Callable[[bytes], bytes]:
    """Of two texts of a file."""

    def edit(content: bytes) -> bytes:
        parts = [part.replace(first.encode(), second.encode()) for part in content.split(b"\0")]
        assert parts != content.split(b"\0")
        return b"\0".join(parts)

    return edit


OF_GPT1 = {
    "lower case lost": (exchange('"lowercase":true', '"lowercase":false'), ".normalizer.lowercase"),
    "two merges exchanged": (
        exchange('"a b</w>","b ab</w>"', '"b ab</w>","a b</w>"'),
        ".model.merges[0]",
    ),
    "two ids exchanged": (exchange('"a":1,"b":2', '"b":1,"a":2'), "token 1 is b'b'"),
    "an added token shifted": (exchange('"id":10', '"id":11'), ""),
}


@pytest.mark.parametrize("name", OF_GPT1)
def test_a_fault_of_gpt1s_tokenizer_is_named(name: str, named_faults: Faults) -> None:
    source = of_gpt1()
    assert named_faults(source, source) == []
    edit, message = OF_GPT1[name]
    changed = dataclasses.replace(source, content=edit(source.content))
    faults = named_faults(changed, source)
    assert any(message in fault for fault in faults), faults
    assert faults


def test_two_characters_exchanged_are_named(named_faults: Faults, tmp_path: Path) -> None:
    lists = [[*"\n abcde"], [*"\n abced"]]
    sources = []
    for number, characters in enumerate(lists):
        folder = tmp_path / str(number)
        folder.mkdir()
        pairs = dict(enumerate(characters))
        meta = {"vocab_size": len(pairs), "itos": pairs, "stoi": {c: i for i, c in pairs.items()}}
        (folder / "meta.pkl").write_bytes(pickle.dumps(meta))
        source = find_tokenizer(folder)
        assert source is not None
        sources.append(source)
    faults = named_faults(sources[1], sources[0])
    assert faults[0].startswith("tokenizer: token 5 is b'e', the checkpoint's is b'd' (and 1 more")


LABELS = ("bad", "fair", "good")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("good", "fair", "bad"), "the labels are reversed: label 0 is 'good', the checkpoint's "),
        (("fair", "bad", "good"), "the labels are in another order: label 0 is 'fair'"),
        (("bad", "fair", "great"), "the labels are renamed: label 2 is 'great', the checkpoint's "),
    ],
)
def test_labels_that_differ_are_named(labels: tuple[str, ...], message: str) -> None:
    theirs = new_task("classification", 100, LABELS)
    faults = label_faults(dataclasses.replace(theirs, labels=labels), theirs)
    assert faults[0].startswith(message)
    assert label_faults(theirs, theirs) == []


def test_other_fields_of_a_task_are_named() -> None:
    theirs = new_task("similarity", 100, score_range=(0, 5))
    faulty = dataclasses.replace(theirs, score_range=(1, 5))
    assert label_faults(faulty, theirs) == [
        "its score_range is [1.0, 5.0], the checkpoint's is [0.0, 5.0]"
    ]


def test_generation_defaults_and_chat_template_are_compared(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(checkpoints["gpt2"])
    bundle = bundle_of(golden(), tmp_path)
    report = Verification()
    check_settings(report, bundle, checkpoint, golden())
    assert (report.faults, report.notes) == ([], [])
    defaults = GenerationDefaults(temperature=0.7, do_sample=True)
    manifest = dataclasses.replace(bundle.manifest, generation_defaults=defaults)
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    changed = Bundle.unpublished(tmp_path, manifest)
    check_settings(report, changed, checkpoint, golden())
    assert report.faults == [
        "generation defaults: do_sample is True, the checkpoint's is None",
        "generation defaults: temperature is 0.7, the checkpoint's is None",
        "chat template: the checkpoint has none",
    ]
    assert report.first is not None
    assert report.first["place"] == "generation defaults"


def test_a_checkpoint_without_a_tokenizer_is_noted(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    report = Verification()
    bundle = bundle_of(golden(), tmp_path)
    check_settings(report, bundle, open_checkpoint(checkpoints["gpt2"]), None)
    assert report.faults == []
    assert "compared with none" in report.notes[0]
