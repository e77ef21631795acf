"""Log-probabilities of tokens, by the model's own logits: no temperature, penalty or truncation
changes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpt_edge.arrays import FloatArray
from gpt_edge.generate.logits import top_k_ids


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token, the natural logarithm of its probability, and the likeliest tokens in its place.

    alternatives: (id, logprob), the likeliest first, ties to the lower id; the token itself may be
    among them.
    """

    id: int
    logprob: float
    alternatives: tuple[tuple[int, float], ...] = ()


def log_softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Log-probabilities float64 [..., V] of logits [..., V] without NaN."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def token_logprob(logits: FloatArray, id: int, n_alternatives: int) -> TokenLogprob:
    """Of token `id` after the row `logits` [V], with so many alternatives."""
    logprobs = log_softmax(logits)
    alternatives: list[tuple[int, float]] = []
    if n_alternatives:
        likeliest = top_k_ids(logits, n_alternatives)
        order = np.argsort(-logits[likeliest], kind="stable")
        alternatives = [(int(other), float(logprobs[other])) for other in likeliest[order]]
    return TokenLogprob(id, float(logprobs[id]), tuple(alternatives))


class PromptLogprobs:
    """Collects what a model says of a prompt's own tokens while it reads them: `entries`, one of
    each id but the first.
    """

    def __init__(self, prompt: Sequence[int], vocab_size: int, n_alternatives: int) -> None:
        self.entries: list[TokenLogprob] = []
        self._prompt = prompt
        self._vocab_size = vocab_size
        self._n_alternatives = n_alternatives

    def take_rows(self, rows: FloatArray) -> None:
        """Note what each row [V] says of the id after it."""
        following = self._prompt[len(self.entries) + 1 :]
        for row, id in zip(rows, following, strict=False):
            entry = token_logprob(row[: self._vocab_size], id, self._n_alternatives)
            self.entries.append(entry)
