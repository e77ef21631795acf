"""Speculation: whatever is guessed, the text is that of plain decoding."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gpt_edge.errors import ContextLengthError
from gpt_edge.generate.completion import TokenChoice
from gpt_edge.generate.generator import Generator
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.prompt import Prompt
from gpt_edge.generate.speculation import GUESSES, Pace, PromptLookup, SpeculativeReader
from gpt_edge.generate.stream import TokenStream
from tests.support.tiny_model import GRAPHS, N_CTX, VOCAB_SIZE, open_generator

PROMPT = [5, 9, 5, 9, 5]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.9, "seed": 3},
    {"top_p": 0.9, "temperature": 2.0, "seed": 1},
    {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
    {"frequency_penalty": 0.4, "top_k": 9, "seed": 8},
]


class Guesser:
    """Guesses from a list of the text's own next ids, with faults: right ones, wrong ones, and
    none.
    """

    def __init__(self, text: Sequence[int], seed: int) -> None:
        self._text = list(text)
        self._random = np.random.default_rng(seed)

    def propose(self, ids: Sequence[int], n: int) -> list[int]:
        start = len(ids) - len(PROMPT)
        guesses = self._text[start : start + int(self._random.integers(0, n + 1))]
        for place in range(len(guesses)):
            if self._random.random() < 0.3:
                guesses[place] = int(self._random.integers(VOCAB_SIZE))
        return guesses


def ids_with(generator: Generator, params: SamplingParams, speculate: Any) -> TokenStream:
    return TokenStream(
        generator.session, Prompt(PROMPT), params, generator.tokenizer, speculate=speculate
    )


@pytest.fixture(params=GRAPHS)
def generator(request: pytest.FixtureRequest) -> Generator:
    return open_generator(request.param)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_no_guess_changes_a_text(generator: Generator, settings: dict[str, Any]) -> None:
    params = SamplingParams(max_new_tokens=40, ignore_end_token=True, **settings)
    plain = list(generator.generate_ids(PROMPT, params))
    for seed in range(12):
        stream = ids_with(generator, params, lambda choice, seed=seed: Guesser(plain, seed))
        assert list(stream) == plain
        stats = stream.speculation
        assert stats is not None
        assert len(plain) - 1 == stats.calls + stats.accepted
        assert stats.accepted <= stats.guessed


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_lookup_and_draft_give_the_plain_text(
    generator: Generator, settings: dict[str, Any]
) -> None:
    other = open_generator("portable" if generator.session.graph == "edge" else "edge")
    plain = generator.complete("the the the the", max_new_tokens=45, **settings)
    for speculate in ("lookup", other, generator):
        done = generator.complete(
            "the the the the",
            max_new_tokens=45,
            speculate=speculate,  # type: ignore[arg-type]
            **settings,
        )
        assert (done.text, done.ids, done.finish_reason, done.seed) == (
            plain.text,
            plain.ids,
            plain.finish_reason,
            plain.seed,
        )


def test_a_draft_that_is_the_model_is_always_right() -> None:
    generator = open_generator()
    for settings in SETTINGS:
        done = generator.complete(
            "the", max_new_tokens=40, ignore_end_token=True, speculate=generator, **settings
        )
        assert done.speculation is not None
        assert done.speculation.accepted == done.speculation.guessed


def test_guesses_stay_within_the_context_and_the_length(generator: Generator) -> None:
    params = SamplingParams(max_new_tokens=10**6, ignore_end_token=True)
    plain = generator.generate_ids(PROMPT, params)
    expected = list(plain)
    assert plain.finish_reason == "context_full"
    asked: list[int] = []

    class Right(Guesser):
        def propose(self, ids: Sequence[int], n: int) -> list[int]:
            asked.append(n)
            assert len(ids) + n <= N_CTX
            return self._text[len(ids) - len(PROMPT) :][:n]

    stream = ids_with(generator, params, lambda choice: Right(expected, 0))
    assert (list(stream), stream.finish_reason) == (expected, "context_full")
    short = SamplingParams(max_new_tokens=9, ignore_end_token=True)
    stream = ids_with(generator, short, lambda choice: Right(expected, 0))
    assert (list(stream), stream.finish_reason) == (expected[:9], "length")


def test_an_unknown_way_and_another_tokenizer_are_refused() -> None:
    generator = open_generator()
    with pytest.raises(ValueError, match="speculate must be 'lookup' or a Generator, got 'magic'"):
        generator.complete("a", speculate="magic")  # type: ignore[arg-type]

    class Other:
        kind = generator.tokenizer.kind
        vocab_size = generator.tokenizer.vocab_size

        def token_bytes(self, id: int) -> bytes:
            return b"?" if id == 7 else generator.tokenizer.token_bytes(id)

    other = Generator(generator.session, Other_with_end(Other()))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"not the model's: token 7 is b'\?', the model's is"):
        generator.complete("a", speculate=other)


def Other_with_end(tokenizer: Any) -> Any:
    tokenizer.end_token = None
    return tokenizer


def test_lookup_goes_on_where_the_last_tokens_stood_before() -> None:
    lookup = PromptLookup()
    assert lookup.propose([1, 2, 3, 4, 5], 3) == []
    assert lookup.propose([1, 2, 3, 4, 5, 1, 2], 3) == []
    assert lookup.propose([1, 2, 3, 4, 5, 1, 2, 3], 3) == [4, 5, 1]
    assert lookup.propose([1, 2, 3, 4, 5, 1, 2, 3, 7], 3) == []
    # the longest match wins, the latest of equal ones
    assert PromptLookup().propose([0, 1, 2, 3, 8, 8, 1, 2, 3, 9, 0, 1, 2, 3], 1) == [8]
    assert PromptLookup().propose([1, 2, 3, 8, 8, 1, 2, 3, 9, 1, 2, 3], 1) == [9]
    # a text of period one or two goes on for ever
    assert PromptLookup().propose([6, 7, 7, 7, 7], 4) == [7, 7, 7, 7]
    assert PromptLookup().propose([4, 5, 4, 5, 4, 5], 5) == [4, 5, 4, 5, 4]


def test_the_pace_guesses_more_when_right_and_stops_when_wrong() -> None:
    pace = Pace()
    assert pace.n_guesses() == 0  # it does not know yet how long a step takes
    pace.note_call(1, 0.05)
    assert pace.n_guesses() == 0
    pace.note_call(1, 0.01)
    assert pace.n_guesses() > 0
    for _ in range(60):
        pace.note_call(8, 0.02)
        for _ in range(7):
            pace.note_guess(is_right=True)
    assert pace.n_guesses() == GUESSES[-1]
    n_wrong = 0
    for _ in range(3000):
        n = pace.n_guesses()
        pace.note_call(1 + n, 0.01 * (1 + 0.25 * n))
        if n:
            n_wrong += n
            pace.note_guess(is_right=False)
    assert pace.n_guesses() == 0 or n_wrong < 300


def test_wrong_guesses_cost_at_most_a_fiftieth() -> None:
    pace = Pace()
    for _ in range(2):
        pace.note_call(1, 0.01)
    spent = 0.0
    for _ in range(2000):
        n = pace.n_guesses()
        seconds = 0.01 * (1 + 0.5 * n)
        pace.note_call(1 + n, seconds)
        if n:
            pace.note_guess(is_right=False)
        spent += seconds
    assert spent < 2000 * 0.01 * 1.02 + 0.05


def test_a_draft_that_is_never_sure_is_asked_for_a_fiftieth_of_the_time() -> None:
    pace = Pace()
    for _ in range(2):
        pace.note_call(1, 0.01)
    n_asked = 0
    for _ in range(2000):
        if pace.n_guesses():
            n_asked += 1
            pace.note_no_guess(0.004)
        pace.note_call(1, 0.01)
    assert n_asked * 0.004 < 2000 * 0.01 * 0.02 + 0.02


class Slow:
    """Takes its time, the longest at first, and has no guess."""

    n_asked = 0

    def propose(self, ids: Sequence[int], n: int) -> list[int]:
        self.n_asked += 1
        time.sleep(0.05 if self.n_asked == 1 else 0.01)
        return []


def test_the_first_look_of_a_draft_reads_the_prompt_and_counts_as_nothing_lost() -> None:
    sequence = Fixed(np.zeros(VOCAB_SIZE, np.float32))
    noted: list[float] = []
    steps: list[float] = []

    class Noting(Pace):
        def n_guesses(self) -> int:
            return 1

        def note_no_guess(self, seconds: float) -> None:
            noted.append(seconds)

        def note_call(self, n_rows: int, seconds: float) -> None:
            steps.append(seconds)

    reader = SpeculativeReader(sequence, Slow(), [0], 100)  # type: ignore[arg-type]
    reader._pace = Noting()
    for _ in range(3):
        reader.step(1)
    assert noted[0] == 0
    assert min(noted[1:]) >= 0.01
    assert min(steps) < 0.01  # the steps alone


class Fixed:
    """A sequence whose next token has the same distribution wherever it stands."""

    def __init__(self, logits: np.ndarray) -> None:
        self.ids: list[int] = []
        self._logits = logits
        self.session = open_generator().session

    def step(self, id: int) -> np.ndarray:
        self.ids.append(id)
        return self._logits

    def read_rows(self, ids: list[int]) -> np.ndarray:
        self.ids += ids
        return np.repeat(self._logits[None], len(ids), 0)

    def crop(self, length: int) -> None:
        del self.ids[length:]


class Three(Pace):
    """Always three guesses, whatever they cost."""

    def n_guesses(self) -> int:
        return 3

    def note_call(self, n_rows: int, seconds: float) -> None:
        pass

    def note_guess(self, is_right: bool) -> None:
        pass


class Likeliest:
    """Guesses the likeliest token, and another one now and then."""

    def propose(self, ids: Sequence[int], n: int) -> list[int]:
        return [2 if place % 3 else 4 for place in range(n)]


@pytest.mark.slow
def test_a_hundred_thousand_draws_follow_the_distribution() -> None:
    logits = np.full(VOCAB_SIZE, -np.inf, np.float32)
    logits[:6] = [0.0, 1.0, 2.0, -1.0, 1.5, -2.0]
    params = SamplingParams(temperature=0.8, seed=11, max_new_tokens=10**6)
    choice = TokenChoice(params, [0], 10**9, open_generator().tokenizer)
    reader = SpeculativeReader(Fixed(logits), Likeliest(), choice.history, 10**9)  # type: ignore[arg-type]
    reader._limit = 10**9
    reader._pace = Three()
    id: int | None = 0
    n = 120_000
    counts: Counter[int] = Counter()
    for _ in range(n):
        assert id is not None
        id = choice.choose(reader.step(id))
        assert id is not None
        counts[id] += 1
    weights = np.exp(logits[:6].astype(np.float64) / 0.8)
    expected = n * weights / weights.sum()
    statistic = sum((counts[id] - expected[id]) ** 2 / expected[id] for id in range(6))
    assert statistic < 20.5  # chi-square with 5 degrees of freedom, p = 0.001; the seed is fixed
    assert reader.stats.accepted > n // 10


def test_a_full_context_is_the_same_error_with_and_without() -> None:
    generator = open_generator()
    with pytest.raises(ContextLengthError):
        generator.complete("a" * (N_CTX + 1), speculate="lookup")
