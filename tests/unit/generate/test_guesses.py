"""Who guesses, what, and how much, by themselves: the pace, the lookup in the text, and a draft."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.sampler import Sampler
from gpt_edge.generate.speculation import GUESSES, DraftModel, Pace, PromptLookup
from tests.support.tiny_model import open_generator

V = 12
N_CTX = 16


class SlowPace:
    """Keeps what happened, and works everything out anew from its definition."""

    def __init__(self) -> None:
        self.events: list[tuple[int, float] | bool] = []

    def seconds_of(self, n_rows: int) -> float:
        """A smoothed mean that follows a quick call sooner than a slow one, without the first."""
        mean = 0.0
        for seconds in [e[1] for e in self.events if e is not True and e and e[0] == n_rows][1:]:
            weight = 1.0 if mean == 0 else 0.3 if seconds < mean else 0.05
            mean += weight * (seconds - mean)
        return mean

    def share(self, events: Sequence[Any]) -> float:
        share = 0.8
        for event in events:
            if isinstance(event, bool):
                share = 0.9 * share + 0.1 * event
        return share

    def promise(self, n: int, share: float, seconds: dict[int, float]) -> float:
        tokens = sum(share**place for place in range(n + 1))
        cost = seconds[n + 1] / seconds[1] if seconds[n + 1] else 1 + 0.25 * n
        return tokens / cost


@given(st.data())
def test_the_pace_is_what_its_figures_say(data: st.DataObject) -> None:
    """Every guess is judged by what calls cost until then; the first of a size costs nothing."""
    pace, slow = Pace(), SlowPace()
    for seconds in (0.5, 0.01):
        assert pace.n_guesses() == 0  # until a step is known
        pace.note_call(1, seconds)
        slow.events.append((1, seconds))
    n_tokens, lost, best, promise = 2, 0.0, GUESSES[-1], 2.0
    for _ in range(data.draw(st.integers(1, 60))):
        step = slow.seconds_of(1)
        if data.draw(st.booleans()):
            n_rows = data.draw(st.sampled_from([1, 1, 2, 3, 4, 8]))
            seconds = data.draw(st.sampled_from([0.005, 0.01, 0.012, 0.03]))
            pace.note_call(n_rows, seconds)
            slow.events.append((n_rows, seconds))
            n_tokens += 1
            is_first = [e for e in slow.events if e is not True and e and e[0] == n_rows][1:] == []
            lost += seconds / step - 1 if n_rows > 1 and not is_first else 0.0
        else:
            is_right = data.draw(st.booleans())
            pace.note_guess(is_right)
            slow.events.append(is_right)
            n_tokens += is_right
            lost -= is_right
            share = slow.share(slow.events)
            known = {n: slow.seconds_of(n) for n in (1, 2, 4, 8)}
            best = max(GUESSES, key=lambda n: slow.promise(n, share, known))
            promise = slow.promise(best, share, known)
        if abs(lost - 1 - 0.01 * n_tokens) < 1e-9 or abs(promise - 1) < 1e-9:
            continue  # a limit that rounding decides
        is_over = lost > 1 + 0.01 * n_tokens
        may_try = lost < 0.005 * n_tokens
        expected = 0 if is_over or not (promise > 1 or may_try) else best
        assert pace.n_guesses() == expected


def slow_lookup(ids: list[int], n: int) -> list[int]:
    for length in (4, 3):
        tail = ids[-length:]
        for end in range(len(ids) - 1, length - 1, -1):
            if ids[end - length : end] == tail:
                found = list(ids)
                for _ in range(n):
                    found.append(found[end - len(ids) + len(found)])
                return found[len(ids) :]
    return []


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(1, 7), st.data())
def test_a_lookup_that_follows_a_text_finds_what_a_search_finds(
    ids: list[int], n: int, data: st.DataObject
) -> None:
    lookup = PromptLookup()
    end = data.draw(st.integers(1, len(ids)))
    while end <= len(ids):
        assert lookup.propose(ids[:end], n) == slow_lookup(ids[:end], n)
        end += data.draw(st.integers(1, 5))


class Counting:
    """A model for which the next number follows, surely but after 9; it notes what it reads."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.calls: list[list[int]] = []
        self.session = SimpleNamespace(config=SimpleNamespace(n_ctx=N_CTX))

    def read(self, ids: Sequence[int]) -> np.ndarray:
        self.calls.append(list(ids))
        self.ids += ids
        logits = np.zeros(V + 2, np.float32)
        logits[V:] = 50.0  # rows of an embedding that are no tokens
        if self.ids[-1] != 9:
            logits[(self.ids[-1] + 1) % V] = 20.0
        return logits

    def step(self, id: int) -> np.ndarray:
        return self.read([id])

    def crop(self, length: int) -> None:
        del self.ids[length:]


@pytest.fixture
def draft() -> DraftModel:
    made = DraftModel(open_generator().session, lambda: Sampler(SamplingParams(), []), V)
    made._sequence = Counting()  # type: ignore[assignment]
    return made


def calls_of(draft: DraftModel) -> list[list[int]]:
    """What it read since the last question."""
    sequence: Any = draft._sequence
    found, sequence.calls = sequence.calls, []
    return found


def test_a_draft_reads_each_token_once_and_its_last_guess_never(draft: DraftModel) -> None:
    assert draft.propose([2, 3], 3) == [4, 5, 6]
    assert calls_of(draft) == [[2, 3], [4], [5]]
    # all guesses were right, and one more token came
    assert draft.propose([2, 3, 4, 5, 6, 7], 1) == [8]
    assert calls_of(draft) == [[6, 7]]
    # the second guess was wrong
    assert draft.propose([2, 3, 4, 1], 2) == [2, 3]
    assert calls_of(draft) == [[1], [2]]
    # the text is what it has read
    assert draft.propose([2, 3, 4, 1, 2], 1) == [3]
    assert calls_of(draft) == [[2]]


def test_a_draft_stops_where_it_is_not_sure(draft: DraftModel) -> None:
    assert draft.propose([7], 5) == [8, 9]
    assert draft.propose([7, 8, 9], 5) == []


def test_a_draft_keeps_within_its_context(draft: DraftModel) -> None:
    ids = [1] * (N_CTX - 3)
    assert draft.propose(ids, 4) == []
    assert calls_of(draft) == []
    assert draft.propose(ids, 3) == [2, 3, 4]


def test_a_draft_takes_what_it_thinks_likely_enough() -> None:
    made = DraftModel(open_generator().session, lambda: Sampler(SamplingParams(), []), V, 1 / V)
    made._sequence = Counting()  # type: ignore[assignment]
    assert len(made.propose([9], 2)) == 2
