"""SamplingParams: how to choose tokens and when to stop.

Knows nothing of text or models; every value is checked when it is built.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

DEFAULT_TOP_K = 40  # what GPT-2's published samples used
DEFAULT_TEMPERATURE = 1.0
MAX_SEED = (1 << 64) - 1
MAX_STOP_STRINGS = 4
MAX_STOP_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose tokens and when to stop. The default is greedy; a temperature or a top_k makes
    it sample.

    Raises ValueError for invalid values: the message names the field and the value.
    """

    max_new_tokens: int = 256
    temperature: float | None = None  # None is 1.0 with a top_k, else greedy; 0 is greedy
    # None is 40 when sampling; the vocabulary's size or more keeps every token
    top_k: int | None = None
    seed: int | None = None  # 0 to 2**64 - 1; None draws one from the operating system
    # at most 4 strings of 1 to 64 characters; the text ends before the first match
    stop: tuple[str, ...] = ()
    ignore_end_token: bool = False  # continue past end tokens, for benchmarks

    def __post_init__(self) -> None:
        _check_whole("max_new_tokens", self.max_new_tokens, 1, None)
        if self.top_k is not None:
            _check_whole("top_k", self.top_k, 1, None)
        if self.seed is not None:
            _check_whole("seed", self.seed, 0, MAX_SEED)
        if self.temperature is not None:
            _check_temperature(self.temperature)
        _check_stop(self.stop)
        object.__setattr__(self, "stop", tuple(self.stop))

    @property
    def is_greedy(self) -> bool:
        """True when the most likely token is always taken."""
        return self.temperature == 0 or (self.temperature is None and self.top_k is None)

    @property
    def effective_top_k(self) -> int | None:
        """The top_k that sampling uses; None when greedy."""
        if self.is_greedy:
            return None
        return DEFAULT_TOP_K if self.top_k is None else self.top_k

    @property
    def effective_temperature(self) -> float | None:
        """The temperature that sampling uses; None when greedy."""
        if self.is_greedy:
            return None
        return DEFAULT_TEMPERATURE if self.temperature is None else float(self.temperature)


def _check_whole(name: str, value: object, low: int, high: int | None) -> None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or value < low or (high is not None and value > high):  # type: ignore[operator]
        bounds = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be a whole number {bounds}, got {value!r}")


def _check_temperature(value: object) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and math.isfinite(value) and value >= 0):  # type: ignore[arg-type, operator]
        raise ValueError(f"temperature must be a finite number >= 0, got {value!r}")


def _check_stop(stop: object) -> None:
    if not isinstance(stop, tuple | list):
        raise ValueError(f"stop must be a tuple of strings, got {stop!r}")
    if len(stop) > MAX_STOP_STRINGS:
        raise ValueError(f"stop takes at most {MAX_STOP_STRINGS} strings, got {len(stop)}")
    for text in stop:
        if not isinstance(text, str) or not 1 <= len(text) <= MAX_STOP_CHARACTERS:
            raise ValueError(
                f"a stop string must have 1 to {MAX_STOP_CHARACTERS} characters, got {text!r}"
            )
