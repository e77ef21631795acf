"""Whole evaluations without torch: what counts, two models against each other, and going on after a
kill, bit by bit.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gpt_edge.config import GPTConfig
from gpt_edge.errors import EvaluationError, GPTEdgeWarning, NumericError, OutputError
from gpt_edge.evaluate import (
    EvaluationSettings,
    EvaluationState,
    Models,
    SessionScorer,
    Step,
    check_same_tokens,
    evaluate_lambada,
    evaluate_text,
    score_documents,
)
from gpt_edge.evaluate.documents import compare_documents
from gpt_edge.evaluate.scorer import ROWS, blocks
from gpt_edge.runtime.session import PREFILL_CHUNK
from tests.support.tiny_model import END_TOKEN, VOCAB_SIZE, open_generator, open_session

STORIES = [
    "The cat sat on the mat, and the dog did too.",
    "One day it rained.\nThen it stopped raining all at once.",
]


class Scripted:
    """A model whose logits are random, but the same for the same ids; perhaps one that is
    interrupted, or broken.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        uniform: bool = False,
        calls: int = 1 << 30,
        vocab_size: int = VOCAB_SIZE,
    ):
        self.name, self.threads, self.seed, self.uniform, self.calls = (
            f"scripted {seed}",
            1,
            seed,
            uniform,
            calls,
        )
        self.config = GPTConfig(n_layer=1, n_head=1, n_embd=4, n_ctx=16, vocab_size=vocab_size)
        self.bad = False

    def rows(self, ids: np.ndarray, first: int) -> Iterator[np.ndarray]:
        assert 1 <= ids.size <= self.config.n_ctx
        if self.calls == 0:
            raise KeyboardInterrupt
        self.calls -= 1
        rng = np.random.default_rng([self.seed, *ids.tolist()])
        logits = rng.normal(0, 0 if self.uniform else 1, (ids.size, self.config.vocab_size)).astype(
            np.float32
        )
        if self.bad:
            logits[-1, 3] = np.nan
        for start, stop in blocks(ids.size, first):
            yield logits[start:stop]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "stories.jsonl"
    path.write_text("".join(json.dumps({"text": story}) + "\n" for story in STORIES * 4))
    return path


@pytest.fixture
def words():
    return open_generator().tokenizer


def test_every_token_and_the_end_token_of_every_document_count(corpus: Path, words) -> None:
    report = evaluate_text(Models(Scripted(uniform=True)), words, [corpus, corpus])
    assert report.n_documents == 16
    assert report.n_tokens == 8 * sum(len(words.encode(story)) + 1 for story in STORIES)
    assert report.n_words == 8 * sum(len(story.split()) for story in STORIES)
    assert report.n_bytes == 8 * sum(len(story.encode()) for story in STORIES)
    assert (report.window, report.stride) == (16, 8)
    assert report.model.perplexity is not None
    assert report.model.perplexity.value == pytest.approx(VOCAB_SIZE)
    assert report.model.bits_per_byte == pytest.approx(
        report.n_tokens * math.log2(VOCAB_SIZE) / report.n_bytes
    )
    assert (report.base, report.comparison, report.noise_floor) == (None, None, None)


def test_a_session_gives_the_loss_of_its_documents(corpus: Path, words) -> None:
    session = open_session()
    report = evaluate_text(
        Models(SessionScorer(session, "tiny")), words, [corpus], EvaluationSettings(limit=2)
    )
    documents = [np.array([END_TOKEN, *words.encode(story), END_TOKEN]) for story in STORIES]
    score = score_documents(session, documents, sum(len(story.encode()) for story in STORIES))
    assert score.loss == pytest.approx(report.model.loss.value, rel=1e-12)
    assert score.bits_per_byte == pytest.approx(report.model.bits_per_byte, rel=1e-12)
    assert score.n_tokens == report.n_tokens


def test_without_an_end_token_the_first_token_is_context_alone(corpus: Path, words) -> None:
    class Endless:
        kind, vocab_size, end_token = "gpt2", words.vocab_size, None
        prefix = ()
        encode, encode_part, token_bytes = words.encode, words.encode_part, words.token_bytes
        first_spelled = words.first_spelled

    report = evaluate_text(
        Models(Scripted(uniform=True)), Endless(), [corpus], EvaluationSettings(limit=1)
    )
    ids = words.encode(STORIES[0])
    assert report.n_tokens == len(ids) - 1
    assert report.n_bytes == len(STORIES[0].encode()) - len(words.token_bytes(ids[0]))


def test_a_special_token_in_a_text_is_noted_or_becomes_its_id(tmp_path: Path, words) -> None:
    path = tmp_path / "chat.txt"
    path.write_text("the <|endoftext|> rain")
    settings = EvaluationSettings(separator="\x1e")
    with pytest.warns(GPTEdgeWarning, match=r"spells the special token '<\|endoftext\|>'"):
        plain = evaluate_text(Models(Scripted(uniform=True)), words, [path], settings)
    special = evaluate_text(
        Models(Scripted(uniform=True)),
        words,
        [path],
        dataclasses.replace(settings, special=True),
    )
    assert special.n_tokens == plain.n_tokens - len(words.encode("<|endoftext|>")) + 1
    assert special.n_bytes == plain.n_bytes


def test_blocks_of_rows_are_those_that_a_session_reads() -> None:
    assert ROWS == PREFILL_CHUNK
    assert list(blocks(600, 300)) == [(300, 512), (512, 600)]
    assert list(blocks(256, 0)) == [(0, 256)]
    assert list(blocks(5, 4)) == [(4, 5)]


def test_a_model_against_itself_and_against_another(corpus: Path, words) -> None:
    models = Models(Scripted(), base=Scripted(seed=1), again=Scripted())
    report = evaluate_text(models, words, [corpus])
    assert report.comparison is not None
    assert report.noise_floor is not None
    assert report.base is not None
    assert report.noise_floor.mean_kl.value == 0
    assert report.noise_floor.top1.value == 1
    assert report.comparison.n_rows == report.n_tokens
    assert report.comparison.mean_kl.value > 0.5
    assert report.noise_threads == (1, 1)
    ratio = report.comparison.log_perplexity_ratio.value
    assert ratio == pytest.approx(report.model.loss.value - report.base.loss.value)
    documents = [np.array([END_TOKEN, *words.encode(story), END_TOKEN]) for story in STORIES * 4]
    assert compare_documents(Scripted(), Scripted(seed=1), documents) == report.comparison


def test_models_that_do_not_fit_together_are_refused(words) -> None:
    with pytest.raises(
        EvaluationError, match="scripted 0 has a vocabulary of 277 tokens and scripted 2 of 300"
    ):
        Models(Scripted(), base=Scripted(seed=2, vocab_size=300))
    with pytest.raises(ValueError, match="vocabularies of 277 and 300"):
        compare_documents(Scripted(), Scripted(vocab_size=300), [])

    class Other:
        vocab_size = words.vocab_size

        def token_bytes(self, id: int) -> bytes:
            return b"other" if id == 7 else words.token_bytes(id)

    check_same_tokens(words, words, ("a", "b"))
    with pytest.raises(EvaluationError, match=r"token 7 is .* in a and is b'other' in b"):
        check_same_tokens(words, Other(), ("a", "b"))


def test_nan_is_an_error_that_names_the_model(corpus: Path, words) -> None:
    model = Scripted()
    model.bad = True
    with pytest.raises(NumericError, match="scripted 0 gives NaN"):
        evaluate_text(Models(model), words, [corpus])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 17}, "window must be at most the context of 16, got 17"),
        ({"window": 0}, "window must be at least 1"),
        ({"stride": 0}, "stride must be from 1 to the window of 16, got 0"),
        ({"window": 8, "stride": 9}, "stride must be from 1 to the window of 8, got 9"),
        ({"limit": 0}, "limit must be at least 1, got 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    settings: dict[str, int], message: str, corpus: Path, words
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_text(Models(Scripted()), words, [corpus], EvaluationSettings(**settings))


def models(calls: int = 1 << 30) -> Models:
    return Models(
        Scripted(calls=calls),
        base=Scripted(seed=1),
        again=Scripted(seed=3),
        identity=("one", "two"),
    )


@pytest.mark.parametrize("calls", [0, 1, 5, 11])
def test_an_evaluation_that_was_cut_off_goes_on_and_ends_with_the_same_bits(
    calls: int, corpus: Path, words, tmp_path: Path
) -> None:
    wanted = evaluate_text(models(), words, [corpus])
    path = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        evaluate_text(models(calls), words, [corpus], state=EvaluationState(path, seconds=0))
    second = models()
    found = evaluate_text(second, words, [corpus], state=EvaluationState(path, seconds=0))
    assert found == wanted
    n_windows = 1 << 30
    assert (
        n_windows - second.model.calls
        == json.loads(path.read_bytes())["sections"]["text"]["done"]["n_windows"] - calls
    )
    third = models(0)  # all of it is known: no model runs
    assert evaluate_text(third, words, [corpus], state=EvaluationState(path)) == wanted


def test_lambada_resumes_too(corpus: Path, words, tmp_path: Path) -> None:
    wanted = evaluate_lambada(models(), words, corpus)
    path = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        evaluate_lambada(models(3), words, corpus, state=EvaluationState(path, seconds=0))
    assert json.loads(path.read_bytes())["sections"]["lambada"]["done"]["tallies"][0]["word"][
        "n"
    ] in (1, 2, 3)
    assert (
        evaluate_lambada(models(), words, corpus, state=EvaluationState(path, seconds=0)) == wanted
    )


def test_a_state_of_another_evaluation_is_refused(corpus: Path, words, tmp_path: Path) -> None:
    path = tmp_path / "state"
    evaluate_text(models(), words, [corpus], state=EvaluationState(path))
    before = path.read_bytes()
    changes = [
        (EvaluationSettings(stride=4), models(), "its stride is 8, here it is 4"),
        (EvaluationSettings(limit=3), models(), "its limit is null, here it is 3"),
        (
            EvaluationSettings(),
            dataclasses.replace(models(), identity=("one", "three")),
            "its models is",
        ),
        (EvaluationSettings(), dataclasses.replace(models(), again=None), "its with is"),
    ]
    for settings, changed, message in changes:
        with pytest.raises(EvaluationError, match=message):
            evaluate_text(changed, words, [corpus], settings, state=EvaluationState(path))
    corpus.write_text(corpus.read_text() + '{"text": "more"}\n')
    with pytest.raises(EvaluationError, match="its texts is"):
        evaluate_text(models(), words, [corpus], state=EvaluationState(path))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"", b"no json", b"[]", b'{"format": "other", "sections": {}}', b'{"sections": 3}']
)
def test_a_file_that_is_no_state_is_refused_and_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(content)
    with pytest.raises(EvaluationError, match="not the state of an evaluation"):
        EvaluationState(path)
    assert path.read_bytes() == content


def test_a_state_with_a_corrupt_section_is_refused(corpus: Path, words, tmp_path: Path) -> None:
    path = tmp_path / "state"
    evaluate_text(models(), words, [corpus], state=EvaluationState(path))
    values = json.loads(path.read_bytes())
    del (
        values["sections"]["text"]["done"]["pairs"][0]["kl"]["n"],
        values["sections"]["text"]["done"]["tallies"][0]["nll"],
    )
    path.write_text(json.dumps(values))
    with pytest.raises(EvaluationError, match="is corrupt in text"):
        evaluate_text(models(), words, [corpus], state=EvaluationState(path))


def test_a_state_that_cannot_be_written_is_known_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        EvaluationState(tmp_path / "missing" / "state")


def test_progress_gives_the_fraction_and_what_is_done(corpus: Path, words) -> None:
    steps: list[Step] = []
    report = evaluate_text(
        Models(Scripted()), words, [corpus], EvaluationSettings(limit=4), progress=steps.append
    )
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] <= fractions[-1] == 1
    assert (steps[-1].n_done, steps[-1].loss) == (report.n_tokens, report.model.loss.value)
