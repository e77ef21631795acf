"""Do two ways of computing the same logits agree? One graph or another; `paths.py` has the ways
through one of them.

A flip is a position where the two ways choose different tokens. It is excused only as a near tie:
the first way's gap between its two best logits is at most twice the largest difference on the rows
that did not flip (a flip cannot vouch for itself), and at most a fiftieth of the logits' spread.
Torch-free: `export.verify` brings the reference in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gpt_edge.arrays import FloatArray, IntArray
from gpt_edge.config import GPTConfig
from gpt_edge.evaluate.measures import log_softmax
from gpt_edge.tokenizer import Tokenizer

# of the spread: a choice this close is nobody's; random GPT-2 124M, whose spread is 0.55, showed
# 0.045
NEAR_TIE = 0.05
N_TEXT, N_RANDOM, N_LONG_ROWS = 192, 64, 32  # rows of the probes
# parameters; steps of such a model take seconds
LARGE, N_TEXT_OF_LARGE, N_RANDOM_OF_LARGE = 500_000_000, 64, 32
PASSAGE = (
    "The lighthouse keeper had counted ships for thirty years, and he wrote every one of them "
    "down. In winter there "
    "were days without a sail. Then he would polish the lamp, read the old entries aloud, and "
    "wonder where the ships "
    "had gone. One evening a small boat came in with no lights at all. A girl stood in it, holding "
    "a box. “Is this the "
    "house that remembers?” she asked. He looked at his shelves, at the long row of books, and "
    "nodded. She put the box "
    "on the table. Inside lay 1,204 letters that nobody had ever answered. “Then please write "
    "these down as well,” she "
    "said, “before the sea does.” They worked until the morning, one reading and one writing, "
    "while the wind turned to "
    "the south and the first ship of the year came round the cape."
)


class Cache(Protocol):
    """What a model remembers of the tokens it has read; `cache.KVCache`, for one."""

    def crop(self, length: int) -> None:
        """Forget what follows the first `length` tokens of every row."""


class Runner(Protocol):
    """What is verified: a `Session`, or torch behind the same methods, whose docstrings hold."""

    @property
    def config(self) -> GPTConfig:
        """Shape of the model."""

    def new_cache(self, batch: int = 1) -> Any:
        """An empty Cache."""

    def forward(
        self, ids: Any, cache: Any, logit_rows: Any = "last", *, row: int | None = None
    ) -> FloatArray:
        """Append ids [B, T] and return logits [B, R, V]."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Token ids [T] to run through a model; logits are compared from row `first_row` on."""

    name: str
    ids: IntArray
    first_row: int = 0


@dataclass(frozen=True, slots=True)
class Flip:
    """Where two ways choose differently: the row, both tokens, and how close the first way's choice
    was.
    """

    probe: str
    row: int
    tokens: tuple[int, int]
    gap: float  # the first way's logit of its best token minus that of its second best


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the second of two ways is from the first. KL in nats, over the vocabulary, mean over
    all rows.
    """

    n_rows: int
    max_difference: float  # of a logit
    noise: float  # the same over the rows that chose the same token
    p99_difference: float
    mean_kl: float
    p999_kl: float
    top1: float  # share of rows with the same best token
    # standard deviation of the first way's logits within a row: what a difference is measured
    # against
    spread: float
    flips: tuple[Flip, ...]

    def unexcused(self) -> list[Flip]:
        """Flips that are no near ties."""
        return [
            flip for flip in self.flips if flip.gap > min(2 * self.noise, NEAR_TIE * self.spread)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; at most ten flips, those with the largest gap first."""
        worst = sorted(self.flips, key=lambda flip: -flip.gap)[:10]
        return {
            "rows": self.n_rows,
            "max_difference": _figure(self.max_difference),
            "noise": _figure(self.noise),
            "spread": _figure(self.spread),
            "p99_difference": _figure(self.p99_difference),
            "mean_kl": _figure(self.mean_kl),
            "p999_kl": _figure(self.p999_kl),
            "top1": _figure(self.top1),
            "n_flips": len(self.flips),
            "flips": [
                {"probe": f.probe, "row": f.row, "tokens": list(f.tokens), "gap": _figure(f.gap)}
                for f in worst
            ],
        }


def _figure(value: float) -> float:
    return float(f"{value:.4g}")


def probes(
    config: GPTConfig, tokenizer: Tokenizer | None, *, thorough: bool = False
) -> list[Probe]:
    """Text where there is a tokenizer, random ids, and random ids that fill the context (its last
    rows compared).

    thorough: without a tokenizer, as many random ids as there would be of text, so that large
    chunks are not the whole.
    """
    rng = np.random.default_rng(20181106)
    is_large = config.n_parameters > LARGE
    n_text, n_random = (N_TEXT_OF_LARGE, N_RANDOM_OF_LARGE) if is_large else (N_TEXT, N_RANDOM)
    n_random = n_text if thorough and tokenizer is None else n_random
    found = []
    if tokenizer is not None:
        text = np.array(tokenizer.encode(PASSAGE)[: min(n_text, config.n_ctx)], np.int64)
        if text.size:
            found.append(Probe("text", text))
    found.append(Probe("random", rng.integers(0, config.vocab_size, min(n_random, config.n_ctx))))
    if config.n_ctx > n_random:
        ids = rng.integers(0, config.vocab_size, config.n_ctx)
        found.append(Probe("full context", ids, max(1, config.n_ctx - N_LONG_ROWS)))
    return found


def compare(
    probe_list: Sequence[Probe], first: Sequence[FloatArray], second: Sequence[FloatArray]
) -> Agreement:
    """Hold the second way's logits against the first's; each a list of [rows, V], one for each
    probe.
    """
    differences, kls, flips, rows, spreads, noise = [], [], [], 0, [], 0.0
    for probe, a, b in zip(probe_list, first, second, strict=True):
        # one row at a time: the whole would be several copies of [rows, V] in float64
        for row in range(len(a)):
            x, y = a[row], b[row]
            difference = np.abs(x - y)
            p, q = log_softmax(x), log_softmax(y)
            differences.append((float(difference.max()), float(np.percentile(difference, 99))))
            kls.append(max(0.0, float((np.exp(p) * (p - q)).sum())))
            spreads.append(float(x.std()))
            tokens = (int(x.argmax()), int(y.argmax()))
            if tokens[0] != tokens[1]:
                best = np.partition(x, -2)[-2:] if x.size > 1 else np.repeat(x, 2)
                flips.append(
                    Flip(probe.name, probe.first_row + row, tokens, float(best[1] - best[0]))
                )
            else:
                noise = max(noise, float(difference.max()))
        rows += len(a)
    worst = max((pair[0] for pair in differences), default=0.0)
    if not math.isfinite(worst):
        worst = math.inf
    return Agreement(
        n_rows=rows,
        max_difference=worst,
        noise=noise,
        p99_difference=max((pair[1] for pair in differences), default=0.0),
        mean_kl=float(np.mean(kls)),
        p999_kl=float(np.percentile(kls, 99.9)),
        top1=1.0 - len(flips) / max(rows, 1),
        spread=float(np.mean(spreads)),
        flips=tuple(flips),
    )


def answer(session: Runner, probe: Probe, chunk: int | None = None) -> FloatArray:
    """Logits [rows, V] of one probe; `chunk` tokens at a time, None as the session likes."""
    cache = session.new_cache()
    size = chunk or probe.ids.size
    rows = []
    for start in range(0, probe.ids.size, size):
        logits = session.forward(probe.ids[None, start : start + size], cache, "all")
        rows.append(logits[0][max(0, probe.first_row - start) :].copy())
    return np.concatenate(rows)


def greedy(session: Runner, prompt: IntArray, n_new: int) -> list[int]:
    """The most likely continuation, one token at a time; stops where the context is full."""
    cache, ids, tokens = session.new_cache(), prompt, []
    for _ in range(min(n_new, session.config.n_ctx - prompt.size)):
        tokens.append(int(session.forward(ids[None], cache, "last")[0, 0].argmax()))
        ids = np.array(tokens[-1:], np.int64)
    return tokens
