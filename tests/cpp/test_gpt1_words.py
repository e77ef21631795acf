"""GPT-1's tokenizer in C++: ids, decoded texts and streamed pieces as Python's."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import pytest

import gpt_edge
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.tokenizer import Tokenizer
from gpt_edge.tokenizer.formats.gpt1_file import format_gpt1_file
from tests.conftest import REPO
from tests.cpp.test_tokenizer import TEXTS, random_texts
from tests.support.cpp_library import CppError, CppLibrary, CppModel
from tests.support.signed_manifest import changed_bundle, sign

TINY = REPO / "tests" / "golden" / "tiny-edge"
LETTERS = "abcdefghijklmnopqrstuvwxyz.,'<|>/0123456789漢中αςσéßᄀ" + "\u1161\u2028"
MERGES = [
    *(("t", "h"), ("th", "e</w>"), ("a", "n"), ("an", "d</w>"), ("i", "n"), ("a", "a")),
    *(("aa", "aa"), ("aa", "a</w>"), ("e", "</w>"), ("l", "l</w>"), ("1", "1")),
]
UNICODE_TEXTS = (
    "The AND İstanbul ΑΣ ΟΔΟΣ. ὈΔΥΣΣΕΎΣ",
    "né café e\u0301\u0323 \u0323\u0301a 漢字かな 한국어 \ufa0e\uf900豈 🙂 ﬁ Ⅷ ½ ٣ $^`~",
    "<unk> <UNK><uNk>the<unk> <|end|>",
    "tab\tnew\nnel\x85sep\u2028par\u2029nb\u00a0zw\u200bbom\ufeff\ufffd\x1c\x0b\x00",
    "\u302e\u302f\u1d16d \U0001d165\U0001d16e\u0f71\u0f72 \u0344\u0340\u212b\u2126",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a vocabulary of GPT-1's kind: `<end>` the last of its 277 tokens."""
    tokens = ["<unk>", *LETTERS, *(f"{one}</w>" for one in LETTERS), *map("".join, MERGES)]
    tokens = list(dict.fromkeys([*tokens, "</w>"]))
    tokens += [chr(code) for code in range(0x0E01, 0x0E01 + 276 - len(tokens))]
    vocab = {token: id for id, token in enumerate(tokens)}
    copy = tmp_path_factory.mktemp("gpt1") / "bundle"
    changed_bundle(TINY, copy)
    (copy / "tokenizer.tiktoken").write_bytes(format_gpt1_file(vocab, MERGES, {"<end>": 276}))
    own = {"kind": "gpt1", "pattern": None, "end_token": 276, "special_tokens": {"<end>": 276}}
    return sign(copy, lambda values: values["tokenizer"].update(own))


def check(model: CppModel, tokenizer: Tokenizer, texts: Iterable[str]) -> None:
    for text in texts:
        for special in (False, True):
            expected = tokenizer.encode(text, special=special)
            assert model.encode(text, special=special) == expected, ascii(text)[:200]
        assert model.decode(expected) == tokenizer.decode(expected)


def test_a_vocabulary_of_gpt1_gives_pythons_ids(folder: Path, cpp: CppLibrary) -> None:
    tokenizer = Bundle.open(folder).load_tokenizer()
    texts = ["a <end> b<END>", "aaaaaaaa aaa aaaaa", *UNICODE_TEXTS, *TEXTS, *random_texts(400)]
    with cpp.open(folder) as model:
        check(model, tokenizer, texts)
        expected = len(tokenizer.encode("The end. "))
        assert model.generate("The end. ", max_new_tokens=3).prompt_tokens == expected


def test_any_ids_decode_and_stream_as_in_python(folder: Path, cpp: CppLibrary) -> None:
    source = random.Random(5)
    tokenizer = Bundle.open(folder).load_tokenizer()
    cut = [tokenizer.encode(one)[0] for one in ("<x", "/x", "\u2028x", "w")]
    with cpp.open(folder) as model:
        for _ in range(300):
            ids = source.choices([*cut, *range(277)], [9] * len(cut) + [1] * 277, k=12)
            assert model.decode(ids) == tokenizer.decode(ids)
        with gpt_edge.load(folder) as python:
            for seed in range(6):
                settings = {"max_new_tokens": 30, "temperature": 1.5, "seed": seed}
                done = model.generate("the dog", **settings)
                expected = python.complete("the dog", **settings)  # type: ignore[arg-type]
                assert (done.ids, done.text) == (expected.ids, expected.text)
                assert "".join(done.pieces) == done.text


def test_a_long_word_of_gpt1_takes_no_quadratic_time(folder: Path, cpp: CppLibrary) -> None:
    with cpp.open(folder) as model:
        assert len(model.encode("a" * 200_001)) == 50_001


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"end_of_word_suffix":"</w>"', b'"end_of_word_suffix":"</x>"', "no GPT-1 tokenizer"),
        (b'"<unk>":0', b'"<unq>":0', "needs the token <unk>"),
        (b'"t h"', b'"t q h"', "merge 1 is not"),
        (b'"th e</w>"', b'"t h"', "merge 2 is not"),
        (b'"a":1,', b'"a":2,', "is taken"),
        (b'"a":1,', b'"a":-1,', "has no id"),
        (b'"merges":[', b'"merges":{},"more":[', "no merges"),
    ],
)
def test_a_wrong_vocabulary_is_refused(
    old: bytes, new: bytes, message: str, folder: Path, cpp: CppLibrary, tmp_path: Path
) -> None:
    copy = changed_bundle(folder, tmp_path / "bundle")
    path = copy / "tokenizer.tiktoken"
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    sign(copy)
    with pytest.raises(CppError, match=message) as error:
        cpp.open(copy)
    assert error.value.status == "tokenizer"


@pytest.mark.slow
def test_the_real_vocabulary_gives_pythons_ids(
    shared_data: Path, cpp: CppLibrary, tmp_path: Path
) -> None:
    """On the texts of ../shared/data/unicode, a Declaration in some 300 languages among them."""
    from gpt_edge.export.pipeline.export import export_bundle
    from tests.support.transformers_models import random_transformers

    checkpoint = tmp_path / "checkpoint"
    random_transformers("OpenAIGPT", "LMHeadModel", vocab_size=40478).save_pretrained(checkpoint)
    vocabulary = str(shared_data / "gpt1-vocab")
    export_bundle(checkpoint, tmp_path / "bundle", scheme="fp32", tokenizer=vocabulary)
    tokenizer = Bundle.open(tmp_path / "bundle").load_tokenizer()
    unicode_texts = shared_data / "unicode"
    with gzip.open(unicode_texts / "udhr.shared.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = list(file)
    texts.append((unicode_texts / "UTF-8-demo.txt").read_text(encoding="utf-8"))
    texts += json.loads((unicode_texts / "blns.shared.json").read_text(encoding="utf-8"))
    every = [chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
    texts += ["a".join(every[start:][:1000]) for start in range(0, len(every), 1000)]
    with cpp.open(tmp_path / "bundle") as model:
        check(model, tokenizer, texts)


@pytest.mark.slow
def test_the_tables_are_those_of_this_python() -> None:
    """Another Python may know another version of Unicode: its tables are made again then."""
    header = REPO / "examples" / "cpp" / "parts" / "unicode_words.hpp"
    known = header.read_text().split()[2]
    if known != unicodedata.unidata_version:
        pytest.skip(f"the tables are of Unicode {known}, Python has {unicodedata.unidata_version}")
    script = REPO / "examples" / "cpp" / "make_unicode_words.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout == header.read_text()
