"""The results of a benchmark: Spread, the rows of its tables, and the BenchReport that holds them.
Plain values, no measuring.
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
        """The middle value, which one disturbed round does not move."""
        return statistics.median(self.values)

    @property
    def mad(self) -> float:
        """Median absolute deviation from the median."""
        center = self.median
        return statistics.median(abs(value - center) for value in self.values)

    def over(self, other: Spread) -> Spread:
        """Return the ratio to `other`, round by round: what slows a whole round cancels."""
        return Spread(tuple(own / its for own, its in zip(self.values, other.values, strict=True)))

    def per(self, amount: float) -> Spread:
        """Return `amount` divided by every value: tokens and seconds give tokens per second."""
        return Spread(tuple(amount / value for value in self.values))


def spread(values: Iterable[float]) -> Spread:
    """Return the values of the rounds as a Spread."""
    return Spread(tuple(values))


@dataclass(frozen=True, slots=True)
class Engine:
    """A bundle with a number of threads: the first columns of every row."""

    bundle: str
    scheme: str
    graph: str
    threads: int


@dataclass(frozen=True, slots=True)
class SpeedRow:
    """One case. `seconds` of a prompt in an empty context are the time to the first token, chosen
    greedily.
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
    roofline_share: float | None  # decode: bytes per second as a fraction of the bandwidth
    # how many times as fast as the first bundle, round by round; None for that one
    ratio: Spread | None


@dataclass(frozen=True, slots=True)
class StartRow:
    """A fresh process in each round, with its files in the page cache: seconds until it is ready
    and until the first token, and its memory.

    interpreter + imports + model = ready.
    """

    engine: Engine
    ready_seconds: Spread
    interpreter_seconds: Spread
    imports_seconds: Spread
    model_seconds: Spread  # hashes, tokenizer and session, side by side
    first_token_seconds: Spread  # from the start of the process, with a prompt of `prompt_tokens`
    prompt_tokens: int
    # resident, after `context_tokens` were processed; None where the system does not report it
    peak_bytes: Spread | None
    context_tokens: int
    ratio: Spread | None  # how many times as fast ready as the first bundle; None for that one


@dataclass(frozen=True, slots=True)
class LoopRow:
    """The time of a token outside onnxruntime, and how fast this machine reads as many bytes as the
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
    """Time of one kind of operator, by onnxruntime's profiler, which itself adds a little to every
    operator.
    """

    engine: Engine
    phase: str  # the test's name
    operator: str
    calls: float  # in one token, or in one prompt
    seconds: float  # likewise
    share: float


@dataclass(frozen=True, slots=True)
class EnergyRow:
    """Energy of decoding, of all processor packages."""

    engine: Engine
    joules_per_token: float


Row = SpeedRow | StartRow | LoopRow | ProfileRow | EnergyRow


@dataclass(frozen=True, slots=True)
class BenchReport:
    """All results, the machine and the plan. `profile` and `energy` are empty unless they were
    requested; `no_energy` says why nothing could be measured.
    """

    machine: Mapping[str, Any]
    plan: Plan
    speed: tuple[SpeedRow, ...]
    start: tuple[StartRow, ...]
    loop: tuple[LoopRow, ...]
    profile: tuple[ProfileRow, ...] = ()
    energy: tuple[EnergyRow, ...] = ()
    no_energy: str = ""

    def tables(self) -> dict[str, Sequence[Row]]:
        """Return the rows by the name of their table."""
        return {
            "speed": self.speed,
            "start": self.start,
            "loop": self.loop,
            "profile": self.profile,
            "energy": self.energy,
        }


def flat(row: Row) -> dict[str, Any]:
    """Return the row as plain JSON values. A Spread becomes its median, and `_mad`, `_min` and
    `_max` beside it.
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
