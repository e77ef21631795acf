"""The field's measures, from the logits of a model and the tokens that came. Knows nothing of
models, text or files.

Of N targets w_i, each given the probability p(w_i) by the model, with logarithms to base e:
- loss = -(1/N) sum log p(w_i), nats per token.
- Perplexity PPL = exp(-(1/N) sum log p(w_i)), per token. The minus sign matters: one popular
  write-up leaves it out, which gives the inverse, a figure below 1 that grows as the model
  improves. A model that knows nothing has PPL = V.
- Word perplexity = exp(-(1/words) sum log p(w_i)), words being separated by white space: it can be
  compared between tokenizers, PPL per token cannot. Source: Radford et al. 2019, section 3.1.
- Bits per byte = -(1/bytes) sum log2 p(w_i), bytes of the text in UTF-8: comparable too, and needs
  no definition of a word.
- ACC = correct / total: the fraction of targets that were the model's most likely token; a tie goes
  to the lower id.

A standard error treats the rows as independent draws, as llama.cpp's perplexity tool does:
sqrt((E[x^2] - E[x]^2) / (n-1)), carried through a function by its derivative. Rows of one text are
not independent, so it is a lower bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gpt_edge.arrays import DoubleArray, FloatArray, IntArray

BLOCK_ROWS = 32  # rows in float64 at a time: 13 MB each for 50,257 tokens


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean, or a function of one, and its standard error (0 for fewer than two rows)."""

    value: float
    error: float


@dataclass(slots=True)
class Sums:
    """Of a quantity and of its square, over rows that come in blocks. The same blocks give the same
    bits.
    """

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, values: DoubleArray) -> None:
        """Count values [R]."""
        self.n += values.size
        self.total += float(values.sum())
        self.squares += float((values * values).sum())

    @property
    def mean(self) -> float:
        """The mean of the counted values; 0 without any."""
        return self.total / self.n if self.n else 0.0

    @property
    def variance_of_mean(self) -> float:
        """The square of the standard error."""
        if self.n < 2:
            return 0.0
        return max(0.0, self.squares / self.n - self.mean**2) / (self.n - 1)

    def estimate(self) -> Estimate:
        """The mean and its standard error."""
        return Estimate(self.mean, math.sqrt(self.variance_of_mean))


@dataclass(slots=True)
class Tally:
    """Sums over the targets that one model was scored on so far."""

    nll: Sums = field(default_factory=Sums)
    n_correct: int = 0

    def add(self, nll: DoubleArray, is_correct: npt.NDArray[np.bool_]) -> None:
        """Count rows [R]: -log p(target), and whether the target was the most likely token."""
        self.nll.add(nll)
        self.n_correct += int(is_correct.sum())


@dataclass(frozen=True, slots=True)
class TextScore:
    """How well one model predicts a text; None where the figure is too large for a float."""

    loss: Estimate  # nats per token
    perplexity: Estimate | None  # per token
    word_perplexity: float | None
    bits_per_byte: float
    accuracy: Estimate  # of the next token


def text_score(tally: Tally, n_words: int, n_bytes: int) -> TextScore:
    """The score of a text of that size. Raises ValueError for no targets, words or bytes."""
    if not (tally.nll.n and n_words and n_bytes):
        raise ValueError(
            f"nothing to score: {tally.nll.n} targets, {n_words} words, {n_bytes} bytes"
        )
    loss = tally.nll.estimate()
    perplexity = exp(loss.value)
    return TextScore(
        loss=loss,
        perplexity=None if perplexity is None else Estimate(perplexity, perplexity * loss.error),
        word_perplexity=exp(tally.nll.total / n_words),
        bits_per_byte=tally.nll.total / math.log(2) / n_bytes,
        accuracy=share(tally.n_correct, tally.nll.n),
    )


def share(n_right: int, n: int) -> Estimate:
    """n_right / n and the standard error of a binomial fraction. n: at least 1."""
    value = n_right / n
    return Estimate(value, math.sqrt(value * (1 - value) / (n - 1)) if n > 1 else 0.0)


def exp(value: float) -> float | None:
    """e to the power of `value`, None where that is beyond a float."""
    try:
        return math.exp(value)
    except OverflowError:
        return None


def log_softmax(logits: FloatArray) -> DoubleArray:
    """Natural logarithms of probabilities along the last axis, in float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(-1, keepdims=True))
    return shifted


def kl_divergence(p: DoubleArray, q: DoubleArray) -> DoubleArray:
    """KL(p || q) = sum p (log p - log q) in nats, float64 [...], of log-probabilities [..., V].

    p, q: as `log_softmax` returns them. At least 0; NaN where a row holds NaN.
    Source: Kullback and Leibler 1951.
    """
    # A sum of rounded terms may fall below 0 by its last bits.
    return np.asarray(np.maximum(0.0, (np.exp(p) * (p - q)).sum(-1)))


def of_targets(values: npt.NDArray[np.float64], targets: IntArray) -> DoubleArray:
    """values[i, targets[i]] of values [R, V]."""
    return np.asarray(np.take_along_axis(values, targets[:, None], -1)[:, 0])


def negative_log_likelihood(logits: FloatArray, targets: IntArray) -> DoubleArray:
    """-log p(target) in nats, float64 [R], of float32 logits [R, V] and ids [R]."""
    parts = [
        -of_targets(
            log_softmax(logits[start : start + BLOCK_ROWS]), targets[start : start + BLOCK_ROWS]
        )
        for start in range(0, len(targets), BLOCK_ROWS)
    ]
    return np.concatenate(parts) if parts else np.empty(0)
