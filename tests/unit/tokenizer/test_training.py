"""Learning a vocabulary: the rank file says in tiktoken what the `tokenizers` library learned."""

from __future__ import annotations

import gzip
import random
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_edge.errors import TrainingError
from gpt_edge.tokenizer import Tokenizer, build_tokenizer, source_from_ranks
from gpt_edge.training.corpus.learn_tokenizer import train_tokenizer

tokenizers = pytest.importorskip("tokenizers")

TEXTS = [
    "the cat sat on the mat. The other cat's hat, 'twas 1984!",
    "  then\n\nthey said: “wait…” — ça va? 你好 👋🏽\t\x00",
    "aaaaaaa aaa",
] * 3


def learned_directly(texts: list[str], n_tokens: int) -> Any:
    """The library's own tokenizer, trained as gpt-edge trains."""
    learner = tokenizers.Tokenizer(tokenizers.models.BPE())
    learner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=True
    )
    learner.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=n_tokens,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    return learner


def pieces(tokenizer: Tokenizer, text: str) -> list[bytes]:
    return [tokenizer.token_bytes(id) for id in tokenizer.encode(text)]


def their_pieces(learner: Any, text: str) -> list[bytes]:
    from gpt_edge.tokenizer.formats.bpe_files import decode_token, unicode_to_byte

    byte_of = unicode_to_byte()
    return [decode_token(token, byte_of) for token in learner.encode(text).tokens]


def test_the_bytes_come_first_then_the_merges_in_order() -> None:
    lines = train_tokenizer(TEXTS, 300).splitlines()
    assert [int(line.split()[1]) for line in lines] == list(range(299))
    tokens = [b64decode(line.split()[0]) for line in lines]
    assert tokens[:256] == [bytes([value]) for value in range(256)]
    assert tokens[256] == b"aa"  # the most frequent pair
    made = set(tokens[:256])
    for token in tokens[256:]:  # each is two earlier tokens joined
        assert any(token[:cut] in made and token[cut:] in made for cut in range(1, len(token)))
        made.add(token)


def test_the_same_texts_give_the_same_file() -> None:
    assert train_tokenizer(iter(TEXTS), 300) == train_tokenizer(iter(TEXTS), 300)


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(st.sampled_from("aab bc'dé\n 你")), min_size=1),
    extra=st.integers(0, 40),
    probe=st.text("abc dé\n你!"),
)
def test_tiktoken_encodes_as_the_learned_tokenizer(
    texts: list[str], extra: int, probe: str
) -> None:
    learner = learned_directly(texts, 256 + extra)
    n_tokens = learner.get_vocab_size()
    tokenizer = build_tokenizer(source_from_ranks(train_tokenizer(texts, n_tokens + 1)))
    assert (tokenizer.vocab_size, tokenizer.end_token) == (n_tokens + 1, n_tokens)
    for text in [*texts, probe]:
        assert pieces(tokenizer, text) == their_pieces(learner, text)


def test_real_stories_are_encoded_as_the_learned_tokenizer_encodes_them(shared_data: Path) -> None:
    with gzip.open(shared_data / "tinystories" / "valid.txt.gz", "rt", encoding="utf-8") as file:
        stories = file.read().split("<|endoftext|>")
    learner = learned_directly(stories, 2047)
    tokenizer = build_tokenizer(source_from_ranks(train_tokenizer(stories, 2048)))
    draw = random.Random(0)
    odd = [
        "".join(chr(draw.choice([draw.randrange(128), draw.randrange(0x3000)])) for _ in range(30))
        for _ in range(500)
    ]
    for text in [*stories, *odd]:
        assert pieces(tokenizer, text) == their_pieces(learner, text)
    assert tokenizer.decode(tokenizer.encode(stories[0])) == stories[0]


def test_too_few_texts_are_refused_with_the_number_they_give() -> None:
    with pytest.raises(TrainingError, match=r"the texts give 259 tokens, vocab_size is 300"):
        train_tokenizer(["ab ab"], 300)
    assert train_tokenizer(["ab ab"], 259).count(b"\n") == 258  # ab, and ab after a space


def test_no_text_still_gives_the_bytes() -> None:
    assert train_tokenizer([], 257).count(b"\n") == 256
    with pytest.raises(TrainingError):
        train_tokenizer([], 258)


def test_a_vocabulary_smaller_than_the_bytes_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="at least 257"):
        train_tokenizer(TEXTS, 256)
