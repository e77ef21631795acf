"""What a Completion says of itself."""

from __future__ import annotations

import math

import pytest

from gpt_edge.generate.completion import Completion
from gpt_edge.generate.logprobs import TokenLogprob


def completion(n_ids: int, seconds: float, logprobs: list[float] | None = None) -> Completion:
    entries = None
    if logprobs is not None:
        entries = tuple(TokenLogprob(7, value) for value in logprobs)
    return Completion("", "length", (7,) * n_ids, 3, 0, None, 9.0, seconds, entries)


@pytest.mark.parametrize(
    ("n_ids", "seconds", "speed"),
    [(5, 2.0, 2.0), (2, 0.5, 2.0), (1, 2.0, 0.0), (0, 2.0, 0.0), (5, 0.0, 0.0), (5, 1.0, 4.0)],
)
def test_the_first_token_is_not_decoded(n_ids: int, seconds: float, speed: float) -> None:
    found = completion(n_ids, seconds)
    assert (found.tokens_per_second, found.completion_tokens) == (speed, n_ids)


def test_the_mean_of_no_logprobs_is_the_least() -> None:
    assert completion(2, 1.0, [-1.0, -3.0]).mean_logprob == -2.0
    assert completion(1, 1.0, [-1.5]).mean_logprob == -1.5
    assert completion(0, 1.0, []).mean_logprob == completion(2, 1.0).mean_logprob == -math.inf
