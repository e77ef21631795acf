"""LAMBADA with models whose every choice is written down: right words, last tokens, and what the
filter lets through.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from gpt_edge.config import GPTConfig
from gpt_edge.errors import EvaluationError
from gpt_edge.evaluate import EvaluationSettings, LambadaScore, Models, evaluate_lambada
from gpt_edge.evaluate.lambada import STOP_WORDS, lambada_file, passages, stop_tokens
from gpt_edge.evaluate.scorer import blocks
from tests.support.tiny_model import VOCAB_SIZE, open_generator

WORDS = open_generator().tokenizer
PASSAGE = "We met a man; he sat, and then we saw Bo"


class Written:
    """After `context`, then the keys' text, the tokens of the values, the first of them the most
    likely.
    """

    def __init__(self, choices: Mapping[str, list[str]], n_ctx: int = 64) -> None:
        self.name, self.threads = "written", 1
        self.config = GPTConfig(n_layer=1, n_head=1, n_embd=4, n_ctx=n_ctx, vocab_size=VOCAB_SIZE)
        self._choices = choices

    def rows(self, ids: np.ndarray, first: int) -> Iterator[np.ndarray]:
        assert ids.size <= self.config.n_ctx
        logits = np.zeros((ids.size, VOCAB_SIZE), np.float32)
        for row in range(ids.size):
            text = WORDS.decode(ids[: row + 1].tolist())
            for end, texts in self._choices.items():
                if text.endswith(end):
                    for rank, token in enumerate(texts):
                        (id,) = WORDS.encode(token)
                        logits[row, id] = 9 - rank
        for start, stop in blocks(ids.size, first):
            yield logits[start:stop]


def score(
    choices: Mapping[str, list[str]], path: Path, passage: str = PASSAGE, n_ctx: int = 64
) -> LambadaScore:
    path.write_text(passage)
    return evaluate_lambada(Models(Written(choices, n_ctx)), WORDS, path)[0]


def right(found: LambadaScore) -> tuple[float, float, float]:
    return found.accuracy.value, found.accuracy_filtered.value, found.last_token_accuracy.value


def test_the_tokens_of_the_last_word_are_those_that_the_choices_below_name() -> None:
    assert [WORDS.token_bytes(id) for id in WORDS.encode(" Bo")] == [b" ", b"B", b"o"]
    assert {WORDS.token_bytes(id) for id in stop_tokens(WORDS)} >= {
        b" a",
        b" t",
        b" he",
        b" to",
        b"I",
    }
    assert len(STOP_WORDS) == 127


@pytest.mark.parametrize(
    ("choices", "wanted"),
    [
        ({"saw": [" "], "saw ": ["B"], "saw B": ["o"]}, (1, 1, 1)),
        ({"saw": [" "], "saw ": ["C"], "saw B": ["o"]}, (0, 0, 1)),  # the last token alone is right
        ({"saw": [" "], "saw ": ["B"], "saw B": ["x"]}, (0, 0, 0)),
        # a stop word that ends
        ({"saw": [" he", " "], "saw ": ["B"], "saw B": ["o"], "saw he": ["."]}, (0, 1, 1)),
        (
            {
                "saw": [" he", " to", " "],
                "saw ": ["B"],
                "saw B": ["o"],
                "saw he": [" a"],
                "saw to": ["."],
            },
            (0, 1, 1),
        ),
        # "her...": the word continues
        ({"saw": [" he", " "], "saw ": ["B"], "saw B": ["o"], "saw he": ["r"]}, (0, 0, 1)),
        (
            {
                "saw": [" he", " s", " "],
                "saw ": ["B"],
                "saw B": ["o"],
                "saw he": ["."],
                "saw s": ["."],
            },
            (0, 1, 1),
        ),
        # another word is more likely
        ({"saw": [" w", " "], "saw ": ["B"], "saw B": ["o"]}, (0, 0, 1)),
        ({"saw": [" he", " "], "saw ": ["x"], "saw B": ["o"], "saw he": ["."]}, (0, 0, 1)),
    ],
)
def test_a_word_is_right_if_all_of_its_tokens_are(
    choices: Mapping[str, list[str]], wanted: tuple[float, float, float], tmp_path: Path
) -> None:
    assert right(score(choices, tmp_path / "passages.txt")) == wanted


def test_a_target_that_is_a_stop_word_never_passes_the_filter(tmp_path: Path) -> None:
    assert right(
        score({"saw": [" he"]}, tmp_path / "passages.txt", "We met a man that we saw he")
    ) == (1, 0, 1)


def test_the_perplexity_is_that_of_words_and_of_last_tokens(tmp_path: Path) -> None:
    found = score({"saw": [" "], "saw ": ["B"]}, tmp_path / "passages.txt", f"{PASSAGE}\n{PASSAGE}")
    chosen = math.exp(9) / (math.exp(9) + VOCAB_SIZE - 1)
    assert found.n_passages == 2
    assert found.perplexity is not None
    assert found.last_token_perplexity is not None
    assert found.perplexity.value == pytest.approx(VOCAB_SIZE / chosen**2, rel=1e-6)
    assert found.last_token_perplexity.value == pytest.approx(VOCAB_SIZE, rel=1e-6)


def test_a_passage_is_prepared_as_gpt2s_authors_did_and_cut_at_its_start(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"text": " “Go,” she said\\n\\nto Bo  "}\n{"text": "He wrote\\nBo"}\n')
    both = list(passages(lambada_file(path), WORDS, 64, None))
    assert [
        (WORDS.decode(p.context.tolist()), WORDS.decode(p.target.tolist()), p.word) for p in both
    ] == [
        ('\n"Go," she said\n\nto', " Bo", "Bo"),
        ("\nHe wrote\n", "Bo", "Bo"),
    ]
    short = next(passages(lambada_file(path), WORDS, 8, None))
    # 8 are read: 6 and two tokens of the word
    assert short.context.tolist() == both[0].context[-6:].tolist()
    assert len(list(passages(lambada_file(path), WORDS, 64, 1))) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Hello\n", "passage 1 of .* has one word, 'Hello'"),
        ("a b\nWe saw xxxxxxxxxxx\n", "passage 2 of .* 12 tokens"),
    ],
)
def test_a_passage_that_cannot_be_one_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=message):
        score({}, tmp_path / "p.txt", text, n_ctx=8)


def test_two_models_and_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text(f"{PASSAGE}\n" * 5)
    models = Models(Written({"saw": [" "], "saw ": ["B"], "saw B": ["o"]}), base=Written({}))
    found = evaluate_lambada(models, WORDS, path, EvaluationSettings(limit=3))
    assert [one.n_passages for one in found] == [3, 3]
    assert [one.accuracy.value for one in found] == [1, 0]
