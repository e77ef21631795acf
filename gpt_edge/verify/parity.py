"""Do two runs compute the same logits? Of two graphs, or of one graph by two execution paths
(`execution_paths.py`).

A flip is a row where the two runs choose different tokens. It is excused only as a near tie: the
reference's logit margin is at most twice the largest difference on the rows that did not flip (a
flip cannot vouch for itself), and at most a twentieth of the logits' spread. Torch-free:
`export.verify` adds the reference in torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gpt_edge.arrays import FloatArray, IntArray
from gpt_edge.config import GPTConfig
from gpt_edge.errors import TokenizerError
from gpt_edge.evaluate.measures import kl_divergence, log_softmax
from gpt_edge.tokenizer import Tokenizer

# Fraction of the spread below which a margin is a near tie; a random GPT-2 124M, whose spread is
# 0.55, showed 0.045.
NEAR_TIE = 0.05
N_TEXT = 192  # tokens of the probes
N_RANDOM = 64
# floats in the logits of a full context that are compared; of more, places all over it are
MAX_LOGITS = 4_000_000
BLOCK = 1 << 16  # logits that are compared at once
WINDOW = 8  # neighbouring rows whose mean is compared with that of others
MIN_PLACES = 4  # windows of a full context, however large the vocabulary
LARGE = 500_000_000  # parameters; steps of such a model take seconds
N_TEXT_OF_LARGE = 64
N_RANDOM_OF_LARGE = 32
PASSAGE = (
    "The lighthouse keeper had counted ships for thirty years, and he wrote every one of them "
    "down. In winter there were days without a sail. Then he would polish the lamp, read the old "
    "entries aloud, and wonder where the ships had gone. One evening a small boat came in with no"
    " lights at all. A girl stood in it, holding a box. “Is this the house that remembers?” she "
    "asked. He looked at his shelves, at the long row of books, and nodded. She put the box on "
    "the table. Inside lay 1,204 letters that nobody had ever answered. “Then please write these "
    "down as well,” she said, “before the sea does.” They worked until the morning, one reading "
    "and one writing, while the wind turned to the south and the first ship of the year came "
    "round the cape."
)


class Cache(Protocol):
    """Keys and values of the tokens that a model has processed; `KVCache`, for one."""

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
    """Token ids [T] to run through a model.

    rows: those whose logits are compared, in order; None: all. fills_context: whether there is no
    room for another token.
    """

    name: str
    ids: IntArray
    rows: tuple[int, ...] | None = None
    fills_context: bool = False

    @property
    def compared_rows(self) -> Sequence[int]:
        """Rows of logits, in order."""
        return range(self.ids.size) if self.rows is None else self.rows


@dataclass(frozen=True, slots=True)
class Flip:
    """A row where two runs choose different tokens.

    tokens: of the reference and of the candidate. margin: the reference's logit of its best token
    minus that of its second best.
    """

    probe: str
    row: int
    tokens: tuple[int, int]
    margin: float


@dataclass(frozen=True, slots=True)
class RowComparison:
    """How far a candidate's row of logits is from the reference's.

    max_diff, p99: of |difference| of logits. kl: KL(reference || candidate) in nats over the
    vocabulary. spread: standard deviation of the reference's logits, what a difference is measured
    against. flip: None where both choose the same token.
    """

    max_diff: float
    p99: float
    kl: float
    spread: float
    flip: Flip | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a candidate is from a reference over all rows of all probes. KL in nats."""

    n_rows: int
    max_difference: float  # of a logit
    noise: float  # the same over the rows that chose the same token
    p99_difference: float  # of the row where it is largest
    mean_kl: float
    p999_kl: float
    top1: float  # fraction of rows with the same best token
    spread: float  # mean of the rows
    flips: tuple[Flip, ...]

    @classmethod
    def of(cls, rows: Sequence[RowComparison]) -> Agreement:
        """Reduce at least one row. A difference or KL that is NaN counts as infinite."""
        flips = tuple(row.flip for row in rows if row.flip is not None)
        return cls(
            n_rows=len(rows),
            max_difference=max(_infinite_if_nan(row.max_diff) for row in rows),
            noise=max([0.0, *(row.max_diff for row in rows if row.flip is None)]),
            p99_difference=max(row.p99 for row in rows),
            mean_kl=_infinite_if_nan(float(np.mean([row.kl for row in rows]))),
            p999_kl=_infinite_if_nan(float(np.percentile([row.kl for row in rows], 99.9))),
            top1=1.0 - len(flips) / len(rows),
            spread=float(np.mean([row.spread for row in rows])),
            flips=flips,
        )

    @property
    def flip_limit(self) -> float:
        """The largest margin of a near tie."""
        return min(2 * self.noise, NEAR_TIE * self.spread)

    def unexcused(self) -> list[Flip]:
        """Flips that are no near ties."""
        return [flip for flip in self.flips if flip.margin > self.flip_limit]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; at most ten flips, those with the largest margin first."""
        worst = sorted(self.flips, key=lambda flip: -flip.margin)[:10]
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
                {"probe": f.probe, "row": f.row, "tokens": list(f.tokens), "gap": _figure(f.margin)}
                for f in worst
            ],
        }


def _figure(value: float) -> float:
    return float(f"{value:.4g}")


def _infinite_if_nan(value: float) -> float:
    return math.inf if math.isnan(value) else value


def encode_passage(tokenizer: Tokenizer) -> list[int]:
    """Ids of PASSAGE, without the characters that the model does not have."""
    try:
        return tokenizer.encode(PASSAGE)
    except TokenizerError:
        ids: list[int] = []
        for character in PASSAGE:
            with suppress(TokenizerError):
                ids += tokenizer.encode_part(character)
        return ids


def probes(
    config: GPTConfig,
    tokenizer: Tokenizer | None,
    *,
    thorough: bool = False,
    complete: bool = False,
) -> list[Probe]:
    """Text if there is a tokenizer, random ids, and random ids that fill the context, of which rows
    all over it are compared, all of them where they have at most MAX_LOGITS logits.

    thorough: without a tokenizer, as many random ids as there would be of text, so that large
    chunks are not the whole. complete: every row of the context.
    """
    rng = np.random.default_rng(20181106)
    is_large = config.n_parameters > LARGE
    n_text = N_TEXT_OF_LARGE if is_large else N_TEXT
    n_random = N_RANDOM_OF_LARGE if is_large else N_RANDOM
    if thorough and tokenizer is None:
        n_random = n_text
    chosen = []
    if tokenizer is not None:
        text = np.array(encode_passage(tokenizer)[: min(n_text, config.n_ctx)], np.int64)
        if text.size:
            chosen.append(Probe("text", text))
    chosen.append(Probe("random", rng.integers(0, config.vocab_size, min(n_random, config.n_ctx))))
    if config.n_ctx > n_random:
        ids = rng.integers(0, config.vocab_size, config.n_ctx)
        n_rows = config.n_ctx if complete else MAX_LOGITS // config.vocab_size
        rows = spread_rows(config.n_ctx, n_rows)
        chosen.append(Probe("full context", ids, rows, fills_context=True))
    return chosen


def spread_rows(n_ctx: int, n_rows: int) -> tuple[int, ...]:
    """At most about `n_rows` of a context's rows: windows of WINDOW neighbours all over it, the
    last one at its end; all of them where so many are wanted.
    """
    n_places = max(MIN_PLACES, n_rows // WINDOW)
    if n_rows >= n_ctx or n_places * WINDOW >= n_ctx:
        return tuple(range(n_ctx))
    starts = np.linspace(0, n_ctx - WINDOW, n_places).astype(int)
    return tuple(sorted({int(start) + i for start in starts for i in range(WINDOW)}))


def compare(
    probe_list: Sequence[Probe], reference: Sequence[FloatArray], candidate: Sequence[FloatArray]
) -> Agreement:
    """Compare the candidate's logits with the reference's: a [rows, V] of each for each probe."""
    rows: list[RowComparison] = []
    for probe, expected, actual in zip(probe_list, reference, candidate, strict=True):
        rows += compare_rows(expected, actual, probe)
    return Agreement.of(rows)


def compare_rows(
    reference: FloatArray, candidate: FloatArray, probe: Probe
) -> Iterator[RowComparison]:
    """Compare logits [rows, V], row by row. probe: names the flips and says which rows they are.

    BLOCK logits at a time, or one row: the whole would be several copies of [rows, V] in float64.
    """
    rows = probe.compared_rows
    if not len(rows) == len(reference) == len(candidate):
        raise ValueError(f"{len(reference)} and {len(candidate)} rows of logits for {len(rows)}")
    n_rows = max(1, BLOCK // reference.shape[-1])
    for start in range(0, len(rows), n_rows):
        block = slice(start, start + n_rows)
        yield from _compare_block(reference[block], candidate[block], probe.name, rows[block])


def _compare_block(
    reference: FloatArray, candidate: FloatArray, name: str, rows: Sequence[int]
) -> Iterator[RowComparison]:
    differences = np.abs(reference - candidate)
    p99 = np.percentile(differences, 99, axis=-1)
    kl = kl_divergence(log_softmax(reference), log_softmax(candidate))
    spread = reference.std(-1)
    expected, actual = reference.argmax(-1), candidate.argmax(-1)
    for i, row in enumerate(rows):
        tokens = (int(expected[i]), int(actual[i]))
        is_flip = tokens[0] != tokens[1]
        yield RowComparison(
            max_diff=float(differences[i].max()),
            p99=float(p99[i]),
            kl=float(kl[i]),
            spread=float(spread[i]),
            flip=Flip(name, row, tokens, logit_margin(reference[i])) if is_flip else None,
        )


def worst_window(
    reference: FloatArray, candidate: FloatArray, probe: Probe
) -> tuple[Agreement, float, int] | None:
    """The WINDOW neighbouring rows with the largest mean KL: how they agree, the lower quartile of
    the other windows' mean KL, and their first row. None for a probe of too few rows.

    What quantization does to a row depends little on where the row stands, so a quarter of the
    windows says how large its noise is, also where a fault covers most of the context. Where it
    does depend, as of rows that attend to few tokens, the model's own noise in those rows decides,
    see `export.verify.own_noise`.
    """
    rows = list(compare_rows(reference, candidate, probe))
    n_windows = len(rows) // WINDOW
    if n_windows < MIN_PLACES:
        return None
    starts = [len(rows) - WINDOW * (n_windows - i) for i in range(n_windows)]
    means = np.array([np.mean([row.kl for row in rows[at : at + WINDOW]]) for at in starts])
    worst = int(np.nan_to_num(means, nan=np.inf).argmax())
    agreement = Agreement.of(rows[starts[worst] : starts[worst] + WINDOW])
    return agreement, float(np.percentile(means, 25)), probe.compared_rows[starts[worst]]


def logit_margin(logits: FloatArray) -> float:
    """The best of logits [V] minus the second best; 0 for one alone."""
    if logits.size < 2:
        return 0.0
    second, best = np.partition(logits, -2)[-2:]
    return float(best - second)


def probe_logits(session: Runner, probe: Probe, chunk: int | None = None) -> FloatArray:
    """Logits [rows, V] of one probe; `chunk` tokens at a time, all at once if None."""
    size = chunk or probe.ids.size
    return walk(session, probe, range(0, probe.ids.size, size))


def walk(session: Runner, probe: Probe, starts: Sequence[int]) -> FloatArray:
    """Logits [rows, V] of one probe, in calls that begin at the positions `starts`, 0 the first."""
    cache = session.new_cache()
    chosen = np.array(probe.compared_rows)
    rows = []
    for start, stop in zip(starts, [*starts[1:], probe.ids.size], strict=True):
        inside = chosen[(chosen >= start) & (chosen < stop)] - start
        wanted = "all" if inside.size == stop - start else inside.tolist() or "last"
        logits = session.forward(probe.ids[None, start:stop], cache, wanted)
        if inside.size:
            rows.append(logits[0].copy())
    return np.concatenate(rows)


def greedy_tokens(session: Runner, prompt: IntArray, n_new: int) -> list[int]:
    """The most likely continuation, one token at a time; ends where the context is full."""
    cache = session.new_cache()
    ids = prompt
    tokens: list[int] = []
    for _ in range(min(n_new, session.config.n_ctx - prompt.size)):
        tokens.append(int(session.forward(ids[None], cache, "last")[0, 0].argmax()))
        ids = np.array(tokens[-1:], np.int64)
    return tokens
