"""The C++ tokenizer: the ids of Python's for any text, and texts that stream without half a
character.
"""

from __future__ import annotations

import base64
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

import gpt_edge
from gpt_edge.bundle.bundle import DEFAULT_BUNDLE, Bundle
from tests.conftest import REPO
from tests.support.cpp_library import SOURCES, CppError, CppLibrary
from tests.support.signed_manifest import changed_bundle, sign

TINY = REPO / "tests" / "golden" / "tiny-edge"
EMBEDDED = REPO / "models" / DEFAULT_BUNDLE
# one of every kind that a pattern tells apart, and those that it tells apart in surprising ways
CHARACTERS = (
    "aZ sS'tTlLvVeErRdDmM019 \t\n\r\v\f/.,!?-_$#@~`\"\\"
    "éÉßſKªº\u01c5\u02b0\u0301\u0308א中文日本ภา\u0e31한\u1100\u2160²½٣\u0966\u00a0\u0085"
    "\u1680\u2009\u2028\u200b\u200d\u3000\ufeff\u2019\ufffd\U0001f600\U0001f1e9\U00010400\U0001d54f"
    "\U000e0100\U0010ffff\x00\x1c\x7f"
)
TEXTS = (
    "",
    " ",
    "it's we'll they'Re I'D 'tis ''s 'ſ 'llama",
    "  two  spaces\n\n\nlines \r\n\t end   ",
    "12345678 1/2 3.14 ²³ 2024年",
    "HelloWorld HELLOworld iPhone McDonald's ʰa Ǆx ǅy",
    "a" * 3000,
    "ab" * 800 + " " * 900 + "x",
    "é" * 300 + "\u0301" * 40,
    "<|endoftext|> and <|endoftext|><|endoftext|>",
)


def random_texts(n: int) -> list[str]:
    source = random.Random(18)
    texts = ["".join(source.choices(CHARACTERS, k=source.randrange(1, 40))) for _ in range(n)]
    codes = [code for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
    return texts + ["".join(map(chr, source.choices(codes, k=30))) for _ in range(n // 4)]


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k", "o200k"])
def test_every_split_pattern_gives_pythons_ids(
    pattern: str, cpp: CppLibrary, tmp_path: Path
) -> None:
    """The tiny vocabulary joins too few bytes to show where a text is cut: words of it are added
    that cross every cut.
    """
    folder = tmp_path / "bundle"
    changed_bundle(TINY, folder)
    ranks = (folder / "tokenizer.tiktoken").read_bytes().splitlines()
    assert len(ranks) == 276
    crossing = [b"s ", b" s", b"a1", b"1a", b"'s", b"  ", b"\n ", b" \n", b"A.", b".A", b"aZ"]
    crossing += [b"\n\n", b"\r\n", b"11", b"111", b"1111", b"./", b"/\n", b".\n", b"Za", b"'T"]
    kept = {line.split()[0]: line for line in ranks}
    new = [base64.b64encode(token) for token in crossing]
    tokens = [*list(kept)[:256], *(token for token in new if token not in list(kept)[:256])]
    lines = [b"%s %d" % (token, rank) for rank, token in enumerate(tokens[:276])]
    (folder / "tokenizer.tiktoken").write_bytes(b"\n".join(lines) + b"\n")
    assert len(lines) == 276
    sign(folder, lambda values: values["tokenizer"].update(pattern=pattern))
    tokenizer = Bundle.open(folder).load_tokenizer()
    with cpp.open(folder) as model:
        for text in [*TEXTS, *random_texts(600)]:
            for special in (False, True):
                expected = tokenizer.encode(text, special=special)
                assert model.encode(text, special=special) == expected, ascii(text)
            assert model.decode(expected) == tokenizer.decode(expected)


def test_the_built_in_vocabulary_gives_pythons_ids(cpp: CppLibrary) -> None:
    tokenizer = Bundle.open(EMBEDDED).load_tokenizer()
    with cpp.open(EMBEDDED) as model:
        for text in [*TEXTS, *random_texts(200), (REPO / "README.md").read_text()]:
            assert model.encode(text) == tokenizer.encode(text), ascii(text)[:200]


def test_ids_that_are_no_text_decode_and_stream_as_in_python(cpp: CppLibrary) -> None:
    """Tokens of single bytes: every way in which a character can be cut or wrong."""
    source = random.Random(3)
    tokenizer = Bundle.open(TINY).load_tokenizer()
    lead = [id for id in range(256) if tokenizer.token_bytes(id)[0] >= 0x80]
    with cpp.open(TINY) as model:
        for _ in range(300):
            ids = source.choices(lead, k=12) + source.choices(range(277), k=3)
            assert model.decode(ids) == tokenizer.decode(ids)
        for id in (-1, 277):
            with pytest.raises(CppError, match="must be from 0 to 276") as error:
                model.decode([id])
            assert error.value.status == "invalid_argument"


def test_a_long_word_takes_no_quadratic_time(cpp: CppLibrary) -> None:
    with cpp.open(EMBEDDED) as model:
        assert len(model.encode("ab" * 100_000)) > 50_000


def test_a_list_of_characters_is_a_tokenizer(cpp: CppLibrary, tmp_path: Path) -> None:
    characters = [chr(code) for code in range(0x20, 0x20 + 200)] + list("日本é😀") + ["\n"]
    characters = list(dict.fromkeys(characters))
    characters += [chr(0x4E00 + i) for i in range(277 - len(characters))]
    folder = tmp_path / "bundle"
    changed_bundle(TINY, folder)
    (folder / "tokenizer.tiktoken").write_text(json.dumps(characters))
    own = {"kind": "characters", "end_token": None, "special_tokens": {}, "pattern": None}
    sign(folder, lambda values: values["tokenizer"].update(own))
    with cpp.open(folder) as model, gpt_edge.load(folder) as python:
        text = "é日 a😀\n"
        assert model.encode(text) == python.tokenizer.encode(text)
        assert (
            model.generate(text, max_new_tokens=9).text
            == python.complete(text, max_new_tokens=9).text
        )
        with pytest.raises(CppError, match="not in the model's vocabulary") as error:
            model.encode("\x01")
        assert error.value.status == "tokenizer"
        with pytest.raises(CppError, match="has no end token"):
            model.generate("")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "hf", "pattern": None}, "of kind hf, which needs Python"),
        ({"kind": "sentencepiece", "pattern": None}, "of kind sentencepiece, which needs Python"),
        ({"pattern": "[a-z]+|."}, "a regular expression, which needs Python"),
        ({"token_rules": {"<|endoftext|>": ["lstrip"]}}, "has the rule 'lstrip', which needs"),
    ],
)
def test_a_tokenizer_that_needs_python_says_so_and_ids_still_work(
    change: dict[str, object], message: str, cpp: CppLibrary, tmp_path: Path
) -> None:
    folder = changed_bundle(
        TINY, tmp_path / "bundle", lambda values: values["tokenizer"].update(change)
    )
    with cpp.open(folder) as model:
        for use in (model.encode, model.generate):
            with pytest.raises(CppError, match=message) as error:
                use("text")
            assert error.value.status == "tokenizer"
        assert len(model.generate([5, 6], max_new_tokens=4).ids) == 4


def test_special_tokens_of_a_text_follow_their_rules(cpp: CppLibrary, tmp_path: Path) -> None:
    for words in (["always"], ["never"]):
        folder = changed_bundle(
            TINY,
            tmp_path / words[0],
            lambda values, words=words: values["tokenizer"].update(
                token_rules={"<|endoftext|>": words}, add_prefix_space=True, prefix=[3, 4]
            ),
        )
        tokenizer = Bundle.open(folder).load_tokenizer()
        with cpp.open(folder) as model:
            for text in (*TEXTS, " <|endoftext|>b", "a<|endoftext|> b"):
                for special in (False, True):
                    assert model.encode(text, special=special) == tokenizer.encode(
                        text, special=special
                    )


@pytest.mark.slow
def test_the_classes_of_characters_are_those_of_tiktoken() -> None:
    """Another version of tiktoken may know another version of Unicode: make them again then."""
    done = subprocess.run(
        [sys.executable, str(SOURCES / "make_unicode_classes.py")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == (SOURCES / "parts" / "unicode_classes.hpp").read_text()
