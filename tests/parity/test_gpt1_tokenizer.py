"""GPT-1's tokenizer against transformers' slow OpenAIGPTTokenizer: every id and every decoded text
equal.
"""

from __future__ import annotations

import builtins
import gzip
import json
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpt_edge.errors import MissingDependencyError
from gpt_edge.tokenizer import (
    Tokenizer,
    TokenizerSource,
    build_tokenizer,
    load_tokenizer,
    tokenizer_from,
)

transformers = pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

VOCAB, MERGES = "encoder_bpe_40000.json", "vocab_40000.bpe"


@pytest.fixture(scope="module")
def source(shared_data: Path) -> TokenizerSource:
    return tokenizer_from(str(shared_data / "gpt1-vocab"))


@pytest.fixture(scope="module")
def ours(source: TokenizerSource) -> Tokenizer:
    return build_tokenizer(source)


@pytest.fixture(scope="module")
def theirs(shared_data: Path) -> Any:
    """The reference without ftfy and spaCy: its BasicTokenizer path, wherever the test runs."""
    folder = shared_data / "gpt1-vocab"
    real_import = builtins.__import__

    def without_spacy(name: str, *arguments: Any, **more: Any) -> Any:
        if name.partition(".")[0] in ("ftfy", "spacy"):
            raise ImportError(name)
        return real_import(name, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "__import__", without_spacy)
        return transformers.OpenAIGPTTokenizer(str(folder / VOCAB), str(folder / MERGES))


def assert_equal(ours: Tokenizer, theirs: Any, text: str) -> None:
    ids = ours.encode(text)
    assert ids == theirs.encode(text)
    decoded = ours.decode(ids)
    assert decoded == theirs.decode(ids)
    detokenizer = ours.detokenizer()
    assert "".join([*map(detokenizer.push, ids), detokenizer.flush()]) == decoded


def test_the_vocabulary_is_gpt1s(source: TokenizerSource, ours: Tokenizer, theirs: Any) -> None:
    assert (source.spec.kind, source.spec.file) == ("gpt1", "tokenizer.json")
    assert ours.vocab_size == theirs.vocab_size == 40478
    assert ours.end_token is None
    for id in range(ours.vocab_size):
        assert ours.decode([id]) == theirs.decode([id])
        assert (
            ours.token_bytes(id) == theirs.convert_ids_to_tokens(id).replace("</w>", " ").encode()
        )


def test_wikitext_is_encoded_the_same(ours: Tokenizer, theirs: Any, shared_data: Path) -> None:
    assert_equal(
        ours, theirs, (shared_data / "wikitext-2" / "test.part.txt").read_text(encoding="utf-8")
    )


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_lambada_is_encoded_the_same(
    ours: Tokenizer, theirs: Any, shared_data: Path, step: int
) -> None:
    lines = (
        (shared_data / "lambada" / "lambada_test.jsonl").read_text(encoding="utf-8").splitlines()
    )
    assert len(lines) == 5153
    for number, line in enumerate(lines[::step]):
        text = json.loads(line)["text"]
        if number % 20:
            assert ours.encode(text) == theirs.encode(text)
        else:  # their decode is the slower half
            assert_equal(ours, theirs, text)


def test_naughty_strings_and_languages_are_encoded_the_same(
    ours: Tokenizer, theirs: Any, shared_data: Path
) -> None:
    naughty = json.loads((shared_data / "unicode" / "blns.shared.json").read_text(encoding="utf-8"))
    with gzip.open(
        shared_data / "unicode" / "udhr.shared.jsonl.gz", "rt", encoding="utf-8"
    ) as file:
        languages = [json.loads(line)["text"] for line in file]
    assert len(languages) == 325
    for text in [*naughty, *languages]:
        assert_equal(ours, theirs, text)


def test_odd_texts_are_encoded_the_same(ours: Tokenizer, theirs: Any) -> None:
    texts = [
        "",
        " ",
        "\n",
        "<unk>",
        "a<unk>b",
        "<UNK><Unk >",
        "<<unk>>",
        "ΟΔΟΣ ΣΑΣ",
        "İstanbul",
        "K Å Ω ﬁ",
        "a\u2028b",
        "e\u0301\u0327",
        "\ud800x",
    ]
    draw = random.Random(6)
    texts += [
        "".join(chr(draw.randrange(0x3000)) for _ in range(draw.randrange(1, 30)))
        for _ in range(300)
    ]
    texts += [
        "".join(chr(draw.randrange(0x110000)) for _ in range(draw.randrange(1, 30)))
        for _ in range(100)
    ]
    for text in texts:
        assert_equal(ours, theirs, text)


@pytest.mark.slow
def test_every_character_is_encoded_the_same_inside_and_at_the_end_of_a_word(
    ours: Tokenizer, theirs: Any
) -> None:
    step = 256  # a call of theirs costs more than the text in it
    for first in range(0, 0x110000, step):
        text = " ".join(f"a{chr(code)}b {chr(code)}" for code in range(first, first + step))
        assert ours.encode(text) == theirs.encode(text), f"somewhere from {first:x} on"


def test_random_ids_are_decoded_and_streamed_the_same(ours: Tokenizer, theirs: Any) -> None:
    draw = random.Random(7)
    odd = [id for id in range(ours.vocab_size) if len(ours.token_bytes(id).strip()) < 2]
    for number in range(2000):
        ids = draw.choices(odd if number % 2 else range(ours.vocab_size), k=draw.randrange(1, 20))
        decoded = ours.decode(ids)
        assert decoded == theirs.decode(ids)
        detokenizer = ours.detokenizer()
        assert "".join([*map(detokenizer.push, ids), detokenizer.flush()]) == decoded


def test_hugging_face_files_give_the_same_tokenizer(
    source: TokenizerSource, theirs: Any, tmp_path: Path, shared_data: Path
) -> None:
    theirs.save_pretrained(tmp_path / "slow")
    transformers.OpenAIGPTTokenizerFast.from_pretrained(tmp_path / "slow").save_pretrained(
        tmp_path / "fast"
    )
    for path in (
        tmp_path / "slow",
        tmp_path / "fast" / "tokenizer.json",
        shared_data / "gpt1-vocab" / MERGES,
    ):
        again = tokenizer_from(str(path))
        # transformers' files also say what the token is for
        assert again.spec.roles in ((), (("unk_token", "<unk>"),))
        assert replace(again.spec, roles=()) == source.spec
        assert again.content == source.content


def test_the_stored_file_opens_in_the_tokenizers_library(
    source: TokenizerSource, ours: Tokenizer
) -> None:
    import tokenizers

    text = "Hello there, this is GPT-1; its words end in </w>."
    assert tokenizers.Tokenizer.from_str(source.content.decode()).encode(text).ids == ours.encode(
        text
    )


def test_special_tokens_of_a_fine_tuned_model_are_plain_text(
    source: TokenizerSource, ours: Tokenizer, tmp_path: Path
) -> None:
    document = json.loads(source.content)
    document["added_tokens"].append({"id": 40478, "content": "_delimiter_", "special": True})
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    tuned = build_tokenizer(tokenizer_from(str(tmp_path)))
    assert tuned.vocab_size == 40479
    assert tuned.encode("a _delimiter_ b") == ours.encode("a _delimiter_ b")
    assert tuned.decode([40478]) == "_delimiter_"


@pytest.mark.parametrize("id", [-1, 40478])
def test_an_id_out_of_range_is_a_value_error(ours: Tokenizer, id: int) -> None:
    for call in (
        lambda: ours.decode([id]),
        lambda: ours.token_bytes(id),
        lambda: ours.detokenizer().push(id),
    ):
        with pytest.raises(ValueError, match="from 0 to 40477"):
            call()


def test_without_the_extra_the_error_says_what_to_install(
    source: TokenizerSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / source.spec.file).write_bytes(source.content)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingDependencyError, match="'tokenizers'") as caught:
        load_tokenizer(tmp_path, source.spec)
    assert caught.value.hint == "pip install 'gpt-edge[gpt1]'"
