"""GPT-2's own vocabulary: our ids and text against tiktoken's registered gpt2 and transformers', on
hard text.
"""

from __future__ import annotations

import base64
import gzip
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
import tiktoken

from gpt_edge.tokenizer import Tokenizer, TokenizerSource, build_tokenizer, tokenizer_from
from gpt_edge.tokenizer.gpt2 import GPT2Tokenizer

N_TEXTS = 10_000


@pytest.fixture(scope="module")
def source(shared_data: Path) -> TokenizerSource:
    return tokenizer_from(str(shared_data / "gpt2-vocab"))


@pytest.fixture(scope="module")
def ours(source: TokenizerSource) -> Tokenizer:
    return build_tokenizer(source)


@pytest.fixture(scope="module")
def registered(shared_data: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(shared_data / "tiktoken-cache"))
        return tiktoken.get_encoding("gpt2")


@pytest.fixture(scope="module")
def texts(shared_data: Path) -> list[str]:
    """The naughty strings, the 325 languages, and a page of odd UTF-8."""
    with gzip.open(
        shared_data / "unicode" / "udhr.shared.jsonl.gz", "rt", encoding="utf-8"
    ) as file:
        languages = [json.loads(line)["text"] for line in file]
    assert len(languages) == 325
    naughty = json.loads((shared_data / "unicode" / "blns.shared.json").read_text(encoding="utf-8"))
    demo = (shared_data / "unicode" / "UTF-8-demo.txt").read_text(encoding="utf-8")
    return [*languages, *naughty, demo]


def random_texts(count: int, seed: int = 2) -> list[str]:
    """Texts of up to 40 characters: words, digits, signs, spaces, contractions, any plane of
    Unicode, surrogates.
    """
    draw = random.Random(seed)
    pieces = [
        "'s",
        "'ll",
        "'S",
        " ",
        "  ",
        "\n",
        "\t",
        "\r\n",
        " \n ",
        "\u00a0",
        "\u3000",
        "<|endoftext|>",
        "\x00",
        "\x85",
        "\u200d",
    ]

    def piece() -> str:
        kind = draw.randrange(5)
        if kind == 0:
            return draw.choice(pieces)
        if kind == 1:
            return "".join(draw.choices("etaoinshrdlu", k=draw.randrange(1, 9)))
        if kind == 2:
            return "".join(draw.choices("0123456789.,!?-=", k=draw.randrange(1, 6)))
        return chr(draw.randrange(0x250) if kind == 3 else draw.randrange(0x110000))

    return ["".join(piece() for _ in range(draw.randrange(1, 12))) for _ in range(count)]


def test_every_token_is_tiktokens(ours: Tokenizer, registered: Any) -> None:
    assert ours.vocab_size == registered.n_vocab == 50257
    assert ours.end_token == registered.eot_token
    for id in range(ours.vocab_size):
        token = registered.decode_single_token_bytes(id)
        assert ours.token_bytes(id) == token
        assert ours.decode([id]) == token.decode("utf-8", "replace")


def test_every_token_that_is_text_encodes_as_tiktoken_encodes_it(
    ours: Tokenizer, registered: Any
) -> None:
    for id in range(ours.vocab_size):
        text = ours.decode([id])
        assert ours.encode(text) == registered.encode(text, disallowed_special=())


def test_random_texts_are_encoded_as_tiktoken_encodes_them(
    ours: Tokenizer, registered: Any
) -> None:
    for text in random_texts(N_TEXTS):
        ids = ours.encode(text)
        assert ids == registered.encode(text, disallowed_special=())
        assert ours.decode(ids) == text.encode("utf-16", "surrogatepass").decode(
            "utf-16", "replace"
        )


def test_languages_and_naughty_strings_are_encoded_as_tiktoken_encodes_them(
    ours: Tokenizer, registered: Any, texts: list[str]
) -> None:
    for text in texts:
        ids = ours.encode(text)
        assert ids == registered.encode(text, disallowed_special=())
        assert ours.decode(ids) == text
        detokenizer = ours.detokenizer()
        assert "".join([*map(detokenizer.push, ids), detokenizer.flush()]) == text


def test_random_ids_stream_to_their_decode(ours: Tokenizer) -> None:
    draw = random.Random(3)
    for _ in range(N_TEXTS):
        ids = draw.choices(range(ours.vocab_size), k=draw.randrange(1, 20))
        detokenizer = ours.detokenizer()
        assert "".join([*map(detokenizer.push, ids), detokenizer.flush()]) == ours.decode(ids)


@pytest.fixture(scope="module")
def vocabulary_files(shared_data: Path) -> dict[str, str]:
    folder = shared_data / "gpt2-vocab"
    return {"vocab_file": str(folder / "encoder.json"), "merges_file": str(folder / "vocab.bpe")}


@pytest.fixture(scope="module")
def fast(vocabulary_files: dict[str, str]) -> Any:
    return pytest.importorskip("transformers").GPT2TokenizerFast(**vocabulary_files)


def without_surrogates(texts: list[str]) -> list[str]:
    """Theirs raises on surrogates."""
    return [
        text for text in texts if not any("\ud800" <= character <= "\udfff" for character in text)
    ]


def test_transformers_fast_tokenizer_encodes_and_decodes_the_same(
    ours: Tokenizer, fast: Any, texts: list[str]
) -> None:
    for text in without_surrogates([*texts, *random_texts(2000, seed=4)]):
        ids = ours.encode(text)
        assert fast.decode(ids, clean_up_tokenization_spaces=False) == ours.decode(ids)
        if "<|endoftext|>" not in text:  # theirs reads it out of the text
            assert fast.encode(text) == ids


def test_transformers_slow_tokenizer_encodes_and_decodes_the_same(
    ours: Tokenizer, vocabulary_files: dict[str, str], texts: list[str]
) -> None:
    slow = pytest.importorskip("transformers").GPT2Tokenizer(**vocabulary_files)
    for text in without_surrogates(
        [*(text[:400] for text in texts[::4]), *random_texts(300, seed=5)]
    ):
        ids = ours.encode(text)
        # split_special_tokens is their name for plain text.
        assert slow.encode(text, split_special_tokens=True) == ids
        assert slow.decode(ids, clean_up_tokenization_spaces=False) == ours.decode(ids)


def test_the_files_that_transformers_saves_give_the_same_tokenizer(
    source: TokenizerSource, fast: Any, tmp_path: Path
) -> None:
    fast.save_pretrained(tmp_path)
    again = tokenizer_from(str(tmp_path))
    assert again.origin.endswith("tokenizer.json")
    assert (again.spec, again.content) == (source.spec, source.content)


@pytest.mark.alone
def test_a_full_vocabulary_takes_little_more_than_tiktoken_and_a_plain_loop(
    source: TokenizerSource,
) -> None:
    """Side by side, the best of five each in processor time, and of up to twenty where the
    machine is busy.
    """
    plain, ours = [], []
    while len(ours) < 5 or (len(ours) < 20 and min(ours) >= 1.5 * min(plain)):
        begin = time.process_time()
        ranks = {
            base64.b64decode(token): int(rank)
            for token, rank in map(bytes.split, source.content.splitlines())
        }
        tiktoken.Encoding("plain", pat_str=r"\S+", mergeable_ranks=ranks, special_tokens={})
        middle = time.process_time()
        GPT2Tokenizer(source.spec, source.content, "t")
        plain.append(middle - begin)
        ours.append(time.process_time() - middle)
    assert min(ours) < 1.5 * min(plain)
