"""Plan: the cases of a benchmark. The terms are llama-bench's: pp processes a prompt, tg generates
tokens, d is the number of tokens in the context before that. Measures nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from gpt_edge.errors import ContextLengthError
from gpt_edge.system.threads import check_threads, default_threads

DEFAULT_PROMPTS = (32, 512)
DEFAULT_NEW_TOKENS = 128
CURVE_POINTS = 9  # depths of a plot, from an empty context to a full one
MAX_VALUES = 64  # of one list
MAX_BATCH = 1024
MAX_REPETITIONS = 1000

NUMBER = re.compile(r"[0-9]{1,7}")
RANGE = re.compile(r"([0-9]{1,7})-([0-9]{1,7})([+*])([0-9]{1,7})")


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement. `n_tokens` are processed at once ("prefill") or generated one by one
    ("decode"), in every row.
    """

    kind: Literal["prefill", "decode"]
    n_tokens: int
    # tokens in the context before; decode needs one to start from, so that 0 counts as 1 there
    depth: int = 0
    batch: int = 1

    @property
    def name(self) -> str:
        """As llama-bench writes it: pp512, tg128, tg128 @ d512."""
        test = "pp" if self.kind == "prefill" else "tg"
        depth = f" @ d{self.depth}" if self.depth else ""
        return f"{test}{self.n_tokens}{depth}"

    @property
    def n_past(self) -> int:
        """Tokens that are processed before the measurement starts."""
        return max(self.depth, 1) if self.kind == "decode" else self.depth

    @property
    def n_context(self) -> int:
        """Tokens in the context at the end."""
        return self.n_past + self.n_tokens


@dataclass(frozen=True, slots=True)
class Plan:
    """Every combination of the lists, to be measured `repetitions` times after `warmup` rounds.

    prompts and new_tokens: lengths; an empty list skips prefill or decode. Raises ValueError for
    invalid values.
    """

    prompts: tuple[int, ...]
    new_tokens: tuple[int, ...]
    depths: tuple[int, ...] = (0,)
    threads: tuple[int, ...] = (1,)
    batches: tuple[int, ...] = (1,)
    repetitions: int = 5
    warmup: int = 1

    def __post_init__(self) -> None:
        if not self.prompts and not self.new_tokens:
            raise ValueError("nothing to measure: both prompt and new tokens are 0")
        if not (self.depths and self.threads and self.batches):
            raise ValueError("depths, threads and batches must have at least one value each")
        for name, values, low, high in (
            ("prompt tokens", self.prompts, 1, None),
            ("new tokens", self.new_tokens, 1, None),
            ("depth", self.depths, 0, None),
            ("batch", self.batches, 1, MAX_BATCH),
            ("repetitions", (self.repetitions,), 1, MAX_REPETITIONS),
            ("warm-up rounds", (self.warmup,), 0, MAX_REPETITIONS),
        ):
            for value in values:
                _check_whole(name, value, low, high)
        for threads in self.threads:
            check_threads(threads)

    def cases(self) -> tuple[Case, ...]:
        """Return the cases in the order of measurement: prefill before decode, small depths and
        batches before large.
        """
        lengths: list[tuple[Literal["prefill", "decode"], int]] = [
            ("prefill", n) for n in self.prompts
        ]
        lengths += [("decode", n) for n in self.new_tokens]
        return tuple(
            Case(kind, n_tokens, depth, batch)
            for kind, n_tokens in lengths
            for depth in self.depths
            for batch in self.batches
        )

    @property
    def first_prompt(self) -> int:
        """Tokens of the first prompt of a fresh process."""
        return min(self.prompts, default=min(DEFAULT_PROMPTS[0], self.n_context))

    @property
    def n_context(self) -> int:
        """Tokens of the longest context."""
        return max(case.n_context for case in self.cases())

    def check_fits(self, name: str, n_ctx: int) -> None:
        """Raise ContextLengthError unless every case fits into the context of the bundle called
        `name`.
        """
        longest = max(self.cases(), key=lambda case: case.n_context)
        if longest.n_context > n_ctx:
            raise ContextLengthError(
                f"{longest.name} needs a context of {longest.n_context} tokens, {name} has {n_ctx}",
                hint="give smaller lengths or a smaller depth",
                cli_hint="give smaller lengths with -p and -n, or a smaller depth with -d",
            )


def make_plan(
    n_ctx: int,
    *,
    prompts: Sequence[int] | None = None,
    new_tokens: Sequence[int] | None = None,
    depths: Sequence[int] | None = None,
    threads: Sequence[int] | None = None,
    batches: Sequence[int] = (1,),
    repetitions: int = 5,
    warmup: int = 1,
    is_curve: bool = False,
) -> Plan:
    """Return a plan for bundles whose smallest context is `n_ctx`. A value of None is chosen so
    that it fits.

    A length of 0 skips that kind, as in llama-bench. threads: None takes a session's default.
    is_curve: without `depths`, spread them over the context.
    """
    is_curve = is_curve and depths is None
    if prompts is None:  # at every depth of a curve they would take longer than the curve itself
        prompts = [] if is_curve else [min(n, n_ctx) for n in DEFAULT_PROMPTS]
    if new_tokens is None:
        new_tokens = [max(1, min(DEFAULT_NEW_TOKENS, n_ctx // 4))]
    if is_curve:
        room = max(0, n_ctx - max([*prompts, *new_tokens]))
        depths = [room * point // (CURVE_POINTS - 1) for point in range(CURVE_POINTS)]
    return Plan(
        prompts=_without_repeats(n for n in prompts if n != 0),
        new_tokens=_without_repeats(n for n in new_tokens if n != 0),
        depths=_without_repeats(depths if depths is not None else (0,)),
        threads=_without_repeats(threads or (default_threads(),)),
        batches=_without_repeats(batches),
        repetitions=repetitions,
        warmup=warmup,
    )


def parse_numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of "32,512"; "128-512+128" counts by adding, "1-8*2" by multiplying, as in
    llama-bench.

    Raises ValueError for anything else, and for more than 64 values.
    """
    values: list[int] = []
    for item in map(str.strip, text.split(",")):
        if NUMBER.fullmatch(item):
            values.append(int(item))
        elif match := RANGE.fullmatch(item):
            values += _count(int(match[1]), int(match[2]), match[3], int(match[4]))
        else:
            raise ValueError(f"expected numbers such as 32,512 or 128-512+128, got {text!r:.60}")
        if len(values) > MAX_VALUES:
            raise ValueError(f"expected at most {MAX_VALUES} numbers, got more in {text!r:.60}")
    return _without_repeats(values)


def _count(first: int, last: int, sign: str, step: int) -> list[int]:
    if step < (1 if sign == "+" else 2) or first > last or (sign == "*" and first == 0):
        raise ValueError(
            f"the range {first}-{last}{sign}{step} does not lead from {first} to {last}"
        )
    following: Callable[[int], int] = (lambda n: n + step) if sign == "+" else (lambda n: n * step)
    values: list[int] = []
    while first <= last and len(values) <= MAX_VALUES:
        values.append(first)
        first = following(first)
    return values


def _without_repeats(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(values))


def _check_whole(name: str, value: object, low: int, high: int | None) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or value < low
        or (high is not None and value > high)
    ):
        bounds = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be a whole number {bounds}, got {value!r}")
