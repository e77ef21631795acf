"""SamplingParams: how to choose tokens and when to stop.

Knows nothing of text or models; every value is checked when it is built.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypedDict

from gpt_edge.arguments import check_whole, is_whole
from gpt_edge.generate.constraints.constraint import Constraint, checked_constraint

DEFAULT_TOP_K = 40  # what GPT-2's published samples used
DEFAULT_TEMPERATURE = 1.0
DEFAULT_MAX_NEW_TOKENS = 400  # stories of the built-in model end earlier
MAX_SEED = (1 << 64) - 1
MAX_STOP_STRINGS = 4
MAX_STOP_CHARACTERS = 64
MAX_LOGPROBS = 100
MAX_ID = (1 << 31) - 1


class SamplingSettings(TypedDict, total=False):
    """The fields of SamplingParams as keyword arguments: `complete("…", temperature=0.8)`."""

    max_new_tokens: int
    temperature: float | None
    top_k: int | None
    seed: int | None
    stop: Sequence[str]
    ignore_end_token: bool
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    no_repeat_ngram_size: int
    logit_bias: Mapping[int, float]
    bad_words: Sequence[str | Sequence[int]]
    min_new_tokens: int
    stop_token_ids: Sequence[int]
    logprobs: int | None
    prompt_logprobs: int | None
    constraint: Constraint | Mapping[str, Any] | None
    token_healing: bool


@dataclass(frozen=True, slots=True, repr=False)
class SamplingParams:
    """How to choose tokens and when to stop. The default is greedy; a temperature, top_k, top_p,
    min_p or typical_p makes it sample.

    Raises ValueError for invalid values: the message names the field and the value.
    """

    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    temperature: float | None = None  # None is 1.0 when sampling; 0 is greedy
    # None is 40 when a temperature alone asks for sampling, else every token; the vocabulary's size
    # or more keeps every token
    top_k: int | None = None
    seed: int | None = None  # 0 to 2**64 - 1; None draws one from the operating system
    # at most 4 strings of 1 to 64 characters; the text ends before the first match
    stop: tuple[str, ...] = ()
    ignore_end_token: bool = False  # continue past end tokens, for benchmarks
    top_p: float | None = None  # above 0, at most 1: the most likely tokens that sum to it
    min_p: float | None = None  # 0 to 1: tokens at least so likely as this times the likeliest
    typical_p: float | None = None  # above 0, at most 1: the most typical tokens that sum to it
    repetition_penalty: float = 1.0  # above 0; of every token of the prompt and the text
    presence_penalty: float = 0.0  # subtracted once from each token of the text
    frequency_penalty: float = 0.0  # subtracted for each time that a token is in the text
    no_repeat_ngram_size: int = 0  # no n tokens in a row occur twice; 0 lets them
    logit_bias: tuple[tuple[int, float], ...] = ()  # a mapping from id to what is added; -inf bans
    # never generated: words as text, alone and after a space, or as token ids
    bad_words: tuple[str | tuple[int, ...], ...] = ()
    min_new_tokens: int = 0  # no end token before so many
    stop_token_ids: tuple[int, ...] = ()  # end tokens besides the model's own
    logprobs: int | None = None  # 0 to 100 alternatives with the log-probability of each token
    prompt_logprobs: int | None = None  # the same, for the tokens of the prompt
    # what the text must be, as a Constraint or its mapping, such as {"regex": "[a-z]+"}
    constraint: Constraint | None = None
    # choose the prompt's last tokens again, with what follows: see `token_healing.py`
    token_healing: bool = False

    def __post_init__(self) -> None:
        check_whole("max_new_tokens", self.max_new_tokens, 1, None)
        if self.top_k is not None:
            check_whole("top_k", self.top_k, 1, None)
        if self.seed is not None:
            check_whole("seed", self.seed, 0, MAX_SEED)
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 0, MAX_LOGPROBS)
        check_whole("no_repeat_ngram_size", self.no_repeat_ngram_size, 0, None)
        check_whole("min_new_tokens", self.min_new_tokens, 0, None)
        for name, expected, is_within in _NUMBERS:
            _check_number(name, getattr(self, name), expected, is_within)
        object.__setattr__(self, "stop", _checked_stop(self.stop))
        object.__setattr__(self, "logit_bias", _checked_bias(self.logit_bias))
        object.__setattr__(self, "bad_words", _checked_words(self.bad_words))
        object.__setattr__(self, "stop_token_ids", _checked_ids(self.stop_token_ids))
        object.__setattr__(self, "constraint", checked_constraint(self.constraint))
        if not isinstance(self.token_healing, bool):
            raise ValueError(f"token_healing must be True or False, got {self.token_healing!r}")
        if self.constraint is not None and self.stop:
            raise ValueError(
                "stop and constraint exclude each other: the constraint says where the text ends"
            )

    def __repr__(self) -> str:
        """What differs from the defaults."""
        values = {item.name: (getattr(self, item.name), item.default) for item in fields(self)}
        changed = [f"{name}={value!r}" for name, (value, plain) in values.items() if value != plain]
        return f"SamplingParams({', '.join(changed)})"

    @property
    def is_greedy(self) -> bool:
        """True when the most likely token is always taken."""
        asks = (self.temperature, self.top_k, self.top_p, self.min_p, self.typical_p)
        return self.temperature == 0 or all(value is None for value in asks)

    @property
    def effective_top_k(self) -> int | None:
        """The top_k that sampling uses; None where every token counts, and when greedy."""
        if self.is_greedy or self.top_k is not None:
            return None if self.is_greedy else self.top_k
        truncates = any(value is not None for value in (self.top_p, self.min_p, self.typical_p))
        return None if truncates else DEFAULT_TOP_K

    @property
    def effective_temperature(self) -> float | None:
        """The temperature that sampling uses; None when greedy."""
        if self.is_greedy:
            return None
        return DEFAULT_TEMPERATURE if self.temperature is None else float(self.temperature)


def params_with(
    params: SamplingParams | None, settings: SamplingSettings, others: Iterable[str] = ()
) -> SamplingParams:
    """`params`, greedy by default, with single settings in place of its own. others: names that the
    caller takes besides, for the hint at what a wrong one may have meant.

    Raises TypeError for params of another type and for a name that is no setting, ValueError for a
    value.
    """
    if params is not None and not isinstance(params, SamplingParams):
        raise TypeError(
            f"params must be SamplingParams, got {type(params).__name__}; settings may also be "
            "given by name, such as temperature=0.8"
        )
    known = [item.name for item in dataclasses.fields(SamplingParams)]
    for name in settings:
        if name not in known:
            close = difflib.get_close_matches(name, [*known, *others], 1)
            advice = f"; did you mean {close[0]}?" if close else ""
            raise TypeError(f"{name!r} is no setting of SamplingParams{advice}")
    if not settings:
        return params or SamplingParams()
    return dataclasses.replace(params or SamplingParams(), **settings)  # type: ignore[arg-type]


_NUMBERS: tuple[tuple[str, str, Callable[[float], bool]], ...] = (
    ("temperature", "a finite number >= 0", lambda value: 0 <= value < math.inf),
    ("top_p", "a number above 0, at most 1", lambda value: 0 < value <= 1),
    ("min_p", "a number from 0 to 1", lambda value: 0 <= value <= 1),
    ("typical_p", "a number above 0, at most 1", lambda value: 0 < value <= 1),
    ("repetition_penalty", "a finite number above 0", lambda value: 0 < value < math.inf),
    ("presence_penalty", "a finite number", math.isfinite),
    ("frequency_penalty", "a finite number", math.isfinite),
)
_OPTIONAL = ("temperature", "top_p", "min_p", "typical_p")


def _check_number(
    name: str, value: object, expected: str, is_within: Callable[[float], bool]
) -> None:
    if value is None and name in _OPTIONAL:
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and is_within(_as_float(value))):
        raise ValueError(f"{name} must be {expected}, got {value!r:.80}")


def _as_float(value: Any) -> float:
    """A number as a float; infinite where it is a whole number that no float reaches."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _checked_stop(stop: object) -> tuple[str, ...]:
    if not isinstance(stop, tuple | list):
        raise ValueError(f"stop must be a tuple of strings, got {stop!r}")
    if len(stop) > MAX_STOP_STRINGS:
        raise ValueError(f"stop takes at most {MAX_STOP_STRINGS} strings, got {len(stop)}")
    for text in stop:
        if not isinstance(text, str) or not 1 <= len(text) <= MAX_STOP_CHARACTERS:
            raise ValueError(
                f"a stop string must have 1 to {MAX_STOP_CHARACTERS} characters, got {text!r}"
            )
    return tuple(stop)


def _checked_bias(bias: Any) -> tuple[tuple[int, float], ...]:
    """Pairs by id, whether it came as a mapping or as pairs."""
    try:
        pairs = dict(bias)
    except (TypeError, ValueError):
        raise ValueError(f"logit_bias must map token ids to numbers, got {bias!r:.80}") from None
    for id, value in pairs.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_whole(id, 0, MAX_ID) or not (is_number and _as_float(value) < math.inf):
            raise ValueError(
                "logit_bias must map token ids to finite numbers, or to -inf for never, got "
                f"{id!r}: {value!r:.80}"
            )
    return tuple((id, _as_float(value)) for id, value in sorted(pairs.items()))


def _checked_words(words: Any) -> tuple[str | tuple[int, ...], ...]:
    if not isinstance(words, tuple | list):
        raise ValueError(f"bad_words must be a tuple of texts or of token ids, got {words!r:.80}")
    checked: list[str | tuple[int, ...]] = []
    for word in words:
        if isinstance(word, str) and word:
            checked.append(word)
        elif (
            isinstance(word, tuple | list) and word and all(is_whole(id, 0, MAX_ID) for id in word)
        ):
            checked.append(tuple(word))
        else:
            raise ValueError(f"a bad word must be a text or a tuple of token ids, got {word!r:.80}")
    return tuple(checked)


def _checked_ids(ids: Any) -> tuple[int, ...]:
    if not isinstance(ids, tuple | list) or not all(is_whole(id, 0, MAX_ID) for id in ids):
        raise ValueError(f"stop_token_ids must be a tuple of token ids, got {ids!r:.80}")
    return tuple(ids)
