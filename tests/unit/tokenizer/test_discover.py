"""Where tokenizers come from: every form a checkpoint may carry, and what is refused, by name."""

from __future__ import annotations

import copy
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt_edge.errors import TokenizerError
from gpt_edge.tokenizer import (
    TokenizerSource,
    build_tokenizer,
    find_tokenizer,
    registry,
    source_from_ranks,
    tokenizer_from,
)
from gpt_edge.tokenizer.formats.bpe_files import ranks_from_merges, unicode_to_byte
from gpt_edge.tokenizer.formats.hf_json import source_from_json

MERGES = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w"), ("Ã", "©")]
ALPHABET = sorted(unicode_to_byte())
VOCAB = {
    token: id for id, token in enumerate([*ALPHABET, *(a + b for a, b in MERGES), "<|endoftext|>"])
}
END = VOCAB["<|endoftext|>"]
TEXT = "hello wé <|endoftext|>"
TOKENIZER_JSON: dict[str, Any] = {
    "version": "1.0",
    "added_tokens": [{"id": END, "content": "<|endoftext|>", "special": True}],
    "normalizer": None,
    "pre_tokenizer": {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    },
    "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False},
    "decoder": {"type": "ByteLevel"},
    "model": {
        "type": "BPE",
        "dropout": None,
        "vocab": VOCAB,
        "merges": [f"{a} {b}" for a, b in MERGES],
    },
}
WORD_MERGES = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o</w>")]
WORD_VOCAB = {
    t: i
    for i, t in enumerate(
        ["<unk>", *"helo!", *(c + "</w>" for c in "helo!"), "he", "ll", "hell", "hello</w>"]
    )
}
WORDS_JSON: dict[str, Any] = {
    "added_tokens": [{"id": 0, "content": "<unk>", "special": True}],
    "normalizer": {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    },
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": None,
    "model": {
        "type": "BPE",
        "unk_token": "<unk>",
        "end_of_word_suffix": "</w>",
        "vocab": WORD_VOCAB,
        "merges": [list(merge) for merge in WORD_MERGES],
    },
}


def merges_text(merges: list[tuple[str, str]]) -> str:
    return "#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in merges)


def write_pair(
    folder: Path, names: tuple[str, str] = ("vocab.json", "merges.txt"), **vocab: int
) -> None:
    (folder / names[0]).write_text(json.dumps({**VOCAB, **vocab}))
    (folder / names[1]).write_text(merges_text(MERGES), encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def found(folder: Path) -> TokenizerSource:
    source = find_tokenizer(folder)
    assert source is not None
    return source


@pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
def test_a_vocabulary_and_its_merges_are_a_tokenizer(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    write_pair(tmp_path, names)
    source = found(tmp_path)
    assert (source.spec.kind, source.spec.vocab_size, source.spec.end_token) == (
        "gpt2",
        len(VOCAB),
        END,
    )
    tokenizer = build_tokenizer(source)
    assert tokenizer.encode("hello wé") == [VOCAB["hello"], VOCAB["Ġw"], VOCAB["Ã©"]]
    for named in (tmp_path, tmp_path / names[0], tmp_path / names[1]):
        assert tokenizer_from(str(named)) == source


def test_tokenizer_json_and_a_rank_file_say_the_same_as_the_pair(tmp_path: Path) -> None:
    write_pair(tmp_path)
    pair = found(tmp_path)
    write_json(tmp_path / "tokenizer.json", TOKENIZER_JSON)
    whole = found(tmp_path)
    assert (whole.spec, whole.content) == (pair.spec, pair.content)
    assert whole.origin.endswith("tokenizer.json")
    (tmp_path / "tokenizer.tiktoken").write_bytes(pair.content)
    ranks = found(tmp_path)
    assert (ranks.spec, ranks.content) == (pair.spec, pair.content)


def test_an_added_token_inside_the_vocabulary_is_spelled_as_it_is() -> None:
    document = copy.deepcopy(TOKENIZER_JSON)
    document["model"]["vocab"] |= {"éé": END + 1, "Ã±Ã±": END + 2}
    document["added_tokens"].append({"id": END + 1, "content": "éé", "special": True})
    tokenizer = build_tokenizer(source_from_json(document, None, "t"))
    # The second is no added token: like any entry of the vocabulary it is spelled in stand-ins for
    # bytes.
    assert [tokenizer.decode([END + 1]), tokenizer.decode([END + 2])] == ["éé", "ññ"]
    document["model"]["vocab"] |= {"Ã©Ã©": END + 3}
    with pytest.raises(
        TokenizerError, match=f"special tokens {END + 1} and {END + 3} have one text, 'éé'"
    ):
        source_from_json(document, None, "t")


def test_a_rank_file_may_have_any_name(tmp_path: Path) -> None:
    write_pair(tmp_path)
    (tmp_path / "mine.txt").write_bytes(found(tmp_path).content)
    assert tokenizer_from(str(tmp_path / "mine.txt")).spec == found(tmp_path).spec


def test_a_template_that_is_the_text_alone_adds_nothing(tmp_path: Path) -> None:
    """What transformers 5 writes. The end token after a text ends it, and a prompt does without
    it; another token there is refused.
    """
    text, end = (
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
    )
    document = copy.deepcopy(TOKENIZER_JSON)
    document["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [text],
        "pair": [text],
        "special_tokens": {},
    }
    write_json(tmp_path / "tokenizer.json", document)
    assert find_tokenizer(tmp_path) is not None
    document["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [text, end],
        "pair": [text],
    }
    write_json(tmp_path / "tokenizer.json", document)
    source = find_tokenizer(tmp_path)
    assert source is not None
    assert source.spec.prefix == ()
    assert dict(source.spec.special_tokens)["<|endoftext|>"] == source.spec.end_token
    write_json(tmp_path / "config.json", {"eos_token_id": 0})
    with pytest.raises(TokenizerError, match="may add tokens after every text"):
        find_tokenizer(tmp_path)


def test_merges_may_be_pairs_in_tokenizer_json() -> None:
    document = copy.deepcopy(TOKENIZER_JSON)
    document["model"]["merges"] = [list(merge) for merge in MERGES]
    assert (
        source_from_json(document, None, "t").content
        == source_from_json(TOKENIZER_JSON, None, "t").content
    )


def test_ids_that_do_not_follow_the_merges_are_kept() -> None:
    backwards = {token: len(VOCAB) - 1 - id for token, id in VOCAB.items()}
    document = copy.deepcopy(TOKENIZER_JSON)
    document["model"]["vocab"], document["added_tokens"][0]["id"] = backwards, 0
    tokenizer, straight = (
        build_tokenizer(source_from_json(d, None, "t")) for d in (document, TOKENIZER_JSON)
    )
    assert tokenizer.encode(TEXT) == [len(VOCAB) - 1 - id for id in straight.encode(TEXT)]
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert tokenizer.end_token == 0


def test_special_tokens_before_the_bytes_leave_a_rank_file_that_tiktoken_can_read() -> None:
    shifted = {"<s>": 0, "</s>": 1, **{token: id + 2 for token, id in VOCAB.items() if id != END}}
    content, special_tokens = ranks_from_merges(shifted, MERGES, (), "t")
    assert special_tokens == {"<s>": 0, "</s>": 1}
    assert content.splitlines()[0].split()[1:] == [b"2"]


def test_added_tokens_beyond_the_vocabulary_are_special_where_a_file_says_so(
    tmp_path: Path,
) -> None:
    """The others are words: text always spells them, as in transformers."""
    write_pair(tmp_path)
    write_json(tmp_path / "added_tokens.json", {"<pad>": END + 1, "éé": END + 2})
    write_json(tmp_path / "special_tokens_map.json", {"pad_token": "<pad>"})
    source = found(tmp_path)
    assert dict(source.spec.special_tokens) == {
        "<|endoftext|>": END,
        "<pad>": END + 1,
        "éé": END + 2,
    }
    tokenizer = build_tokenizer(source)
    assert tokenizer.encode("<pad>éé") == [*(VOCAB[c] for c in "<pad>"), END + 2]
    assert tokenizer.encode("<pad>éé", special=True) == [END + 1, END + 2]
    assert tokenizer.decode([END + 1, END + 2]) == "<pad>éé"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tokenizer_config.json", {"eos_token": "</s>"}),
        ("special_tokens_map.json", {"eos_token": {"content": "</s>", "lstrip": False}}),
        ("config.json", {"eos_token_id": END + 1}),
    ],
)
def test_the_end_token_is_the_one_the_folder_names(
    tmp_path: Path, name: str, value: dict[str, Any]
) -> None:
    write_pair(tmp_path, **{"</s>": END + 1})
    assert found(tmp_path).spec.end_token == END
    write_json(tmp_path / name, value)
    assert found(tmp_path).spec.end_token == END + 1


def test_a_vocabulary_without_special_tokens_has_no_end_token(tmp_path: Path) -> None:
    write_json(tmp_path / "vocab.json", {token: id for token, id in VOCAB.items() if id != END})
    (tmp_path / "merges.txt").write_text(merges_text(MERGES), encoding="utf-8")
    assert found(tmp_path).spec.end_token is None


def test_our_own_checkpoint_says_which_tokenizer_it_has(tmp_path: Path) -> None:
    write_pair(tmp_path)
    source = found(tmp_path)
    write_json(tmp_path / "config.json", {"tokenizer": None})
    assert find_tokenizer(tmp_path) is None
    write_json(tmp_path / "config.json", {"tokenizer": source.spec.to_dict()})
    (tmp_path / source.spec.file).write_bytes(source.content)
    assert found(tmp_path).spec == source.spec
    write_json(tmp_path / "config.json", {"tokenizer": "gpt2"})
    with pytest.raises(TokenizerError, match='"tokenizer" must be an object or null, got str'):
        find_tokenizer(tmp_path)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    assert find_tokenizer(tmp_path) is None
    with pytest.raises(TokenizerError, match="holds no tokenizer") as caught:
        tokenizer_from(str(tmp_path))
    assert "vocab.json + merges.txt" in str(caught.value.hint)


@pytest.mark.parametrize(
    "names", [("vocab.json", "merges.txt"), ("encoder_bpe_40000.json", "vocab_40000.bpe")]
)
def test_half_a_pair_is_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    for present, missing in (names, names[::-1]):
        (tmp_path / present).write_text("{}")
        with pytest.raises(TokenizerError, match=f"holds {present} but not {missing}"):
            find_tokenizer(tmp_path)
        (tmp_path / present).unlink()


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"there is no tokenizer 'gpt5'.*known name is 'gpt2'"):
        tokenizer_from("gpt5")


def change_model(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["model"].update(values)


def change(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.update(values)


def test_ids_that_added_tokens_leave_out_are_unused(tmp_path: Path) -> None:
    """As where an embedding was padded to a multiple of 64 before a token was added."""
    document = copy.deepcopy(TOKENIZER_JSON)
    added = [{"id": END + 3, "content": "<x>", "special": True}]
    change(added_tokens=[*document["added_tokens"], *added])(document)
    write_json(tmp_path / "tokenizer.json", document)
    source = find_tokenizer(tmp_path)
    assert source is not None
    assert source.spec.vocab_size == END + 4
    tokenizer = build_tokenizer(source)
    spelled = f"a<x><|unused_{END + 1}|>"
    ids = tokenizer.encode(spelled, special=True)
    assert ids[1] == END + 3
    assert max(ids[2:]) < END
    assert tokenizer.decode(ids) == spelled
    assert tokenizer.decode([END + 1, END + 2]) == f"<|unused_{END + 1}|><|unused_{END + 2}|>"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change_model(type="Unigram"), "holds a 'Unigram' model, expected BPE"),
        (change(model=None), "holds a 'none' model"),
        (change_model(dropout=0.1), "model.dropout is 0.1"),
        (change_model(byte_fallback=True), "model.byte_fallback is True"),
        (change_model(continuing_subword_prefix="##"), "model.continuing_subword_prefix is '##'"),
        (change_model(end_of_word_suffix="_"), "model.end_of_word_suffix is '_'"),
        (change_model(ignore_merges=True, vocab={**VOCAB, "lo": END + 1}), "ignore_merges is set"),
        (change_model(vocab=[]), "vocabulary must be an object of tokens and ids, got list"),
        (change_model(vocab={**VOCAB, "x": "1"}), "token 'x' has id '1'"),
        (change_model(vocab={**VOCAB, "x": -1}), "token 'x' has id -1"),
        (change_model(vocab={**VOCAB, "x": True}), "token 'x' has id True"),
        (change_model(vocab={**VOCAB, "xy": 5}), "id 5 belongs to '&' and to 'xy'"),
        (change_model(vocab={**VOCAB, "": END + 1}), "the empty token"),
        (change_model(vocab={**VOCAB, "\udc00": END + 1}), "half a surrogate pair"),
        (change(normalizer="\ud800"), "half a surrogate pair"),
        (change_model(vocab={**VOCAB, "gap": END + 2}), f"no token has id {END + 1}|id {END + 2}"),
        (
            change_model(vocab={k: v for k, v in VOCAB.items() if k != "Ġ"}),
            "no token for byte 0x20",
        ),
        (change_model(vocab={"a": 0}), "neither GPT-2's kind .* nor GPT-1's"),
        (change_model(merges="h e"), "merges must be a list, got str"),
        (change_model(merges=["h e", "l"]), "merge 2 is 'l', expected two parts"),
        (change_model(merges=["h e x"]), "merge 1 is 'h e x', expected two parts"),
        (change_model(merges=[["h", 3]]), "merge 1 is"),
        (change_model(merges=["q z"]), "merge 1 is 'q' \\+ 'z', but 'qz' is not in the vocabulary"),
        (change_model(merges=["h e", "h e"]), "1 merges come twice"),
        (
            change(added_tokens=[{"id": VOCAB["hell"], "content": "hell", "special": False}]),
            "added token 'hell' is also made by merges",
        ),
        (
            change(added_tokens=[{"id": 3, "content": "<|endoftext|>", "special": True}]),
            f"has id {END} in the vocabulary and 3",
        ),
        (change(added_tokens=[{"content": "x"}]), "expected content and id"),
        (
            change(added_tokens=[{"id": 1 << 30, "content": "<x>", "special": True}]),
            "vocab_size must be from 1",
        ),
        (change(normalizer={"type": "NFC"}), "a normalizer changes the text"),
        (change(pre_tokenizer=None), "pre_tokenizer is None, expected ByteLevel"),
        (
            change(pre_tokenizer={"type": "Whitespace"}),
            "pre_tokenizer is 'Whitespace', expected ByteLevel",
        ),
        (
            change(pre_tokenizer={"type": "ByteLevel", "use_regex": False}),
            "expected ByteLevel with GPT-2's split",
        ),
        (
            change(post_processor={"type": "TemplateProcessing"}),
            "'TemplateProcessing' may add tokens",
        ),
        (
            change(post_processor={"type": "TemplateProcessing", "single": [{"SpecialToken": {}}]}),
            "may add tokens",
        ),
    ],
)
def test_a_tokenizer_json_that_is_not_gpt2s_is_refused(
    tmp_path: Path, edit: Callable[..., None], message: str
) -> None:
    document = copy.deepcopy(TOKENIZER_JSON)
    edit(document)
    write_json(tmp_path / "tokenizer.json", document)
    with pytest.raises(TokenizerError, match=message):
        find_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change(normalizer=None), "normalizer is None, expected"),
        (change(pre_tokenizer={"type": "Whitespace"}), "expected BertPreTokenizer"),
        (change(post_processor={"type": "BertProcessing"}), "may add tokens"),
        (
            change_model(vocab={k: v for k, v in WORD_VOCAB.items() if k != "<unk>"}),
            "needs the token '<unk>'",
        ),
        (
            change_model(vocab={k: v for k, v in WORD_VOCAB.items() if k != "ll"}),
            "'ll' is not in the vocabulary",
        ),
        (
            change_model(vocab={**WORD_VOCAB, "h</w>e": 15}, merges=[["h</w>", "e"]]),
            "only a word's end has one",
        ),
        (change_model(vocab={**WORD_VOCAB, "z": 40}), "are not 0 to"),
    ],
)
def test_a_tokenizer_json_that_is_not_gpt1s_is_refused(
    tmp_path: Path, edit: Callable[..., None], message: str
) -> None:
    document = copy.deepcopy(WORDS_JSON)
    edit(document)
    write_json(tmp_path / "tokenizer.json", document)
    with pytest.raises(TokenizerError, match=message):
        find_tokenizer(tmp_path)


def test_gpt1_comes_from_the_pair_or_from_tokenizer_json(tmp_path: Path) -> None:
    write_json(tmp_path / "encoder_bpe_40000.json", WORD_VOCAB)
    (tmp_path / "vocab_40000.bpe").write_text(merges_text(WORD_MERGES))
    pair = found(tmp_path)
    assert (pair.spec.kind, pair.spec.file, pair.spec.vocab_size) == (
        "gpt1",
        "tokenizer.json",
        len(WORD_VOCAB),
    )
    (tmp_path / "tokenizer.json").write_bytes(pair.content)
    again = found(tmp_path)
    # what we write we read back unchanged
    assert (again.spec, again.content) == (pair.spec, pair.content)
    write_json(tmp_path / "tokenizer.json", WORDS_JSON)
    assert found(tmp_path).content == pair.content


@pytest.mark.parametrize(
    ("merges", "message"),
    [
        ("#version: 0.2\nh e\nhell\n", "merges.txt, line 3: found 'hell', expected two parts"),
        ("#version: 0.2\nh e\nh  e\n", "merges.txt, line 3: found 'h  e'"),
        ("h e\nl l\nl o\n", r"merge 3 is 'l' \+ 'o', but 'lo' is not in the vocabulary"),
    ],
)
def test_a_corrupt_merges_file_is_refused_by_line(
    tmp_path: Path, merges: str, message: str
) -> None:
    write_pair(tmp_path)
    (tmp_path / "merges.txt").write_text(merges, encoding="utf-8")
    with pytest.raises(TokenizerError, match=message):
        find_tokenizer(tmp_path)


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path)
    (tmp_path / "merges.txt").write_bytes(b"h e\n\xff\n")
    with pytest.raises(TokenizerError, match=r"merges.txt is not UTF-8"):
        find_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_bytes(b'{"a": 0, "a": 1}')
    with pytest.raises(
        TokenizerError, match=r"vocab.json is not readable JSON: the key 'a' comes twice"
    ):
        find_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_bytes(b"[" * 100_000)
    with pytest.raises(TokenizerError, match=r"vocab.json is not readable JSON: too deeply nested"):
        find_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b'{"x": 1}')
    with pytest.raises(TokenizerError, match="without a model"):
        find_tokenizer(tmp_path)


def test_merges_that_ranks_cannot_reproduce_are_refused() -> None:
    # "abc" is listed as ab + c, but bc is joined before ab, so its bytes end as a + bc: tiktoken
    # would join those.
    merges = [("b", "c"), ("a", "b"), ("ab", "c")]
    vocab = {token: id for id, token in enumerate([*ALPHABET, "bc", "ab", "abc"])}
    with pytest.raises(
        TokenizerError,
        match=r"the merge b'ab' \+ b'c' is never reached, its bytes join to \[b'a', b'bc'\]",
    ):
        ranks_from_merges(vocab, merges, (), "t")


def test_two_merges_of_one_token_are_refused() -> None:
    vocab = {token: id for id, token in enumerate([*ALPHABET, "ab", "bc", "abc"])}
    with pytest.raises(TokenizerError, match="two merges make the same token"):
        ranks_from_merges(vocab, [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")], (), "t")


SMALL_JSON = json.dumps(TOKENIZER_JSON, ensure_ascii=False).encode()


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None
)
@given(
    piece=st.binary(max_size=6), start=st.integers(0, len(SMALL_JSON)), length=st.integers(0, 30)
)
def test_a_mutated_tokenizer_json_is_read_or_refused(
    tmp_path: Path, piece: bytes, start: int, length: int
) -> None:
    (tmp_path / "tokenizer.json").write_bytes(
        SMALL_JSON[:start] + piece + SMALL_JSON[start + length :]
    )
    try:
        source = found(tmp_path)
    except TokenizerError:
        return
    assert build_tokenizer(source).encode("hello")


def test_the_registrys_gpt2_is_the_official_vocabulary(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(shared_data / "tiktoken-cache"))
    named, official = tokenizer_from("gpt2"), tokenizer_from(str(shared_data / "gpt2-vocab"))
    assert (named.spec, named.content) == (official.spec, official.content)
    assert (named.spec.vocab_size, named.spec.end_token) == (50257, 50256)


@pytest.mark.parametrize("damage", [None, b"not the file"])
def test_without_cache_and_network_the_registry_fails_soon_and_says_what_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes | None
) -> None:
    def refuse(*arguments: object, **more: object) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    if damage is not None:  # tiktoken deletes a corrupt cache file and downloads it again
        (tmp_path / "6d1cbeee0f20b3d9449abfede4726ed8212e3aee").write_bytes(damage)
    monkeypatch.setattr("tiktoken.registry.ENCODINGS", {})
    begin = time.monotonic()
    with pytest.raises(
        TokenizerError, match="cache does not hold 'gpt2', and fetching it failed"
    ) as caught:
        tokenizer_from("gpt2")
    assert time.monotonic() - begin < 60  # tiktoken's own way waits for minutes
    assert "\n" not in caught.value.message
    assert all(
        word in str(caught.value.hint)
        for word in ("--tokenizer", "vocab.json", "merges.txt", "TIKTOKEN_CACHE_DIR")
    )


def test_the_network_is_tried_with_a_time_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = []

    def time_out(url: str, timeout: tuple[float, float]) -> None:
        limits.append(timeout)
        raise requests.ConnectTimeout("timed out")

    monkeypatch.setattr(requests, "head", time_out)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    with pytest.raises(TokenizerError, match="timed out"):
        tokenizer_from("gpt2")
    assert limits == [(registry.CONNECT_SECONDS, registry.READ_SECONDS)]


def test_the_network_is_tried_for_both_files_and_an_empty_cache_folder_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def answer(url: str, timeout: tuple[float, float]) -> requests.Response:
        asked.append(url)
        found = requests.Response()
        found.status_code = 200
        return found

    monkeypatch.setattr(requests, "head", answer)
    registry._try_network()
    assert asked == list(registry.GPT2_FILES)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")  # tiktoken caches nothing then
    assert not registry.is_cached()


def test_a_freshly_learned_vocabulary_has_its_end_token_last() -> None:
    content = source_from_json(TOKENIZER_JSON, None, "t").content
    assert source_from_ranks(content).spec.end_token == END
