"""GenerationDefaults: how a model's maker wants it to generate, as a manifest or a Hugging Face
generation_config.json says it.

The values are untrusted: types and bounds are checked here, ids against the vocabulary by whoever
knows it. Knows nothing of how a token is drawn.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_END_TOKENS = 64
MAX_TOP_K = 1 << 31
# what transformers' generate takes where a generation_config.json with do_sample has no top_k
TRANSFORMERS_TOP_K = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationDefaults:
    """The defaults of one model; None: not given. Raises ValueError naming the field and value."""

    do_sample: bool | None = None  # without it, the most likely token is taken
    temperature: float | None = None  # finite, 0 or more; 0 takes the most likely token
    top_k: int | None = None  # 0 keeps every token
    top_p: float | None = None  # above 0, at most 1
    min_p: float | None = None  # 0 to 1
    typical_p: float | None = None  # above 0, at most 1
    repetition_penalty: float | None = None  # above 0
    no_repeat_ngram_size: int | None = None  # 0 lets them repeat
    eos_token_id: tuple[int, ...] = ()  # generation ends at any of them

    def __post_init__(self) -> None:
        if self.do_sample is not None and not isinstance(self.do_sample, bool):
            raise ValueError(f"do_sample must be true or false, got {_shown(self.do_sample)}")
        _check_number(
            "temperature", self.temperature, "a finite number of 0 or more", lambda t: t >= 0
        )
        for name in ("top_p", "typical_p"):
            value = getattr(self, name)
            _check_number(name, value, "a number above 0, at most 1", lambda p: 0 < p <= 1)
        _check_number("min_p", self.min_p, "a number from 0 to 1", lambda p: 0 <= p <= 1)
        _check_number(
            "repetition_penalty",
            self.repetition_penalty,
            "a finite number above 0",
            lambda penalty: penalty > 0,
        )
        for name in ("top_k", "no_repeat_ngram_size"):
            value = getattr(self, name)
            if value is not None and not _is_whole(value, MAX_TOP_K):
                raise ValueError(
                    f"{name} must be a whole number from 0 to {MAX_TOP_K}, got {_shown(value)}"
                )
        ids = self.eos_token_id
        if len(ids) > MAX_END_TOKENS or not all(_is_whole(id, MAX_TOP_K) for id in ids):
            raise ValueError(
                f"eos_token_id must be a token id or a list of up to {MAX_END_TOKENS}, got "
                f"{_shown(list(ids))}"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GenerationDefaults:
        """From plain JSON values; eos_token_id is one id or a list of ids. Raises ValueError, also
        for a field that is unknown or null, and for none at all.
        """
        known = {item.name for item in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown fields: {', '.join(map(ascii, unknown))[:200]}")
        if nulls := [name for name, value in values.items() if value is None]:
            raise ValueError(f"{nulls[0]} must not be null")
        if not values or values.get("eos_token_id") == []:
            raise ValueError("at least one field, and of eos_token_id one id, is expected")
        return cls(**{**values, "eos_token_id": _ids(values.get("eos_token_id", []))})

    @classmethod
    def from_generation_config(
        cls, values: Mapping[str, Any], vocab_size: int
    ) -> GenerationDefaults | None:
        """From a generation_config.json, whose other keys are ignored; None where it says nothing.

        A null is the same as no value, as for transformers. End tokens outside the vocabulary are
        left out: no model generates them, and GPT-2's configurations say 50256 whatever the
        vocabulary. Where it samples without a top_k, transformers' own default is made explicit.
        Raises ValueError naming the field and the value.
        """
        known = [item.name for item in dataclasses.fields(cls)]
        given = {name: values[name] for name in known if values.get(name) is not None}
        defaults = cls(**{**given, "eos_token_id": _ids(given.get("eos_token_id", []))})
        ids = tuple(id for id in defaults.eos_token_id if id < vocab_size)
        defaults = dataclasses.replace(defaults, eos_token_id=ids)
        if defaults.do_sample and defaults.top_k is None:
            defaults = dataclasses.replace(defaults, top_k=TRANSFORMERS_TOP_K)
        return defaults if defaults.to_dict() else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values of what is given; one end token as a number, several as a list."""
        values: dict[str, Any] = {
            name: getattr(self, name)
            for name in (item.name for item in dataclasses.fields(self))
            if name != "eos_token_id" and getattr(self, name) is not None
        }
        if self.eos_token_id:
            ids = list(self.eos_token_id)
            values["eos_token_id"] = ids[0] if len(ids) == 1 else ids
        return values


def _ids(value: object) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list) else (value,)


def _is_whole(value: object, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= high


def _check_number(name: str, value: object, expected: str, is_within: Any) -> None:
    if value is None:
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and math.isfinite(value) and is_within(value)):  # type: ignore[arg-type]
        raise ValueError(f"{name} must be {expected}, got {_shown(value)}")


def _shown(value: object) -> str:
    return ascii(value)[:80]
