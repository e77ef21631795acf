"""What a benchmark found: Spread, the rows of its tables, and the BenchReport that holds them. Plain
values, no measuring.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpt_edge.bench.plan import Plan


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure, measured once in each round."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one: a round that something disturbed does not move it."""
        return statistics.median(self.values)

    @property
    def mad(self) -> float:
        """Median absolute deviation from the median."""
        middle = self.median
        return statistics.median(abs(value - middle) for value in self.values)

    def over(self, other: Spread) -> Spread:
        """The ratio to `other`, round by round: what slows a whole round down cancels."""
        return Spread(tuple(own / its for own, its in zip(self.values, other.values, strict=True)))

    def per(self, amount: float) -> Spread:
        """`amount` divided by every value: tokens and seconds become tokens per second."""
        return Spread(tuple(amount / value for value in self.values))


def spread(values: Iterable[float]) -> Spread:
    """A Spread of the rounds' values."""
    return Spread(tuple(values))


@dataclass(frozen=True, slots=True)
class Engine:
    """A bundle with a number of threads: what stands at the start of every row."""

    bundle: str
    scheme: str
    graph: str
    threads: int


@dataclass(frozen=True, slots=True)
class SpeedRow:
    """One case. `seconds` of a prompt that starts an empty context are the time to its first token,
    chosen greedily.
    """

    engine: Engine
    batch: int
    test: str  # pp512, tg128, tg128 @ d512
    depth: int
    n_tokens: int
    tokens_per_second: Spread  # of all rows of the batch together
    seconds: Spread
    # decode: weights, shared by the batch, and keys and values, the mean over the tokens
    bytes_per_token: float | None
    roofline_share: float | None  # decode: bytes per second as a part of the bandwidth
    # how many times as fast as the first bundle, round by round; None for that one
    ratio: Spread | None


@dataclass(frozen=True, slots=True)
class StartRow:
    """A fresh process each round, its files in the page cache: from its start to ready, to the
    first token, and its memory.

    interpreter + imports + model = ready, but for what it takes to say so.
    """

    engine: Engine
    ready_seconds: Spread
    interpreter_seconds: Spread
    imports_seconds: Spread
    model_seconds: Spread  # hashes, tokenizer and session, side by side
    first_token_seconds: Spread  # from the start of the process, with a prompt of `prompt_tokens`
    prompt_tokens: int
    # resident, after `context_tokens` were read and written; None where nobody tells
    peak_bytes: Spread | None
    context_tokens: int
    ratio: Spread | None  # how many times as fast ready as the first bundle; None for that one


@dataclass(frozen=True, slots=True)
class LoopRow:
    """What a token costs outside onnxruntime, and how fast this machine reads as many bytes as the
    weights have.
    """

    engine: Engine
    greedy_seconds: Spread
    top_k_seconds: Spread
    # bytes per second: the best round of numpy.maximum.reduce over `buffer_bytes` of float32
    bandwidth: float
    buffer_bytes: int


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """Time of one kind of operator, by onnxruntime's profiler, which itself costs a little for
    every operator.
    """

    engine: Engine
    phase: str  # the test's name
    operator: str
    calls: float  # in one token, or in one prompt
    seconds: float  # likewise
    share: float


Row = SpeedRow | StartRow | LoopRow | ProfileRow


@dataclass(frozen=True, slots=True)
class BenchReport:
    """Everything measured, and where. `profile` is empty unless it was asked for."""

    machine: Mapping[str, Any]
    plan: Plan
    speed: tuple[SpeedRow, ...]
    start: tuple[StartRow, ...]
    loop: tuple[LoopRow, ...]
    profile: tuple[ProfileRow, ...] = ()

    def tables(self) -> dict[str, Sequence[Row]]:
        """The rows by the name of their table."""
        return {
            "speed": self.speed,
            "start": self.start,
            "loop": self.loop,
            "profile": self.profile,
        }


def flat(row: Row) -> dict[str, Any]:
    """The row as plain JSON values: a Spread is its median, and beside it `_mad`, `_min` and
    `_max`.
    """
    values: dict[str, Any] = dataclasses.asdict(row.engine)
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        if field.name == "engine":
            continue
        if isinstance(value, Spread):
            values[field.name] = value.median
            values[f"{field.name}_mad"] = value.mad
            values[f"{field.name}_min"] = min(value.values)
            values[f"{field.name}_max"] = max(value.values)
        else:
            values[field.name] = value
    return values
