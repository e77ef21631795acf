"""Operators of a graph called one by one, without a graph: values in, values or a refusal out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from gpt_edge.bundle.gate.limits import (
    BOOL,
    FLOAT16,
    FLOAT32,
    INT4,
    INT8,
    INT32,
    INT64,
    UINT4,
    UINT8,
    GateError,
)
from gpt_edge.bundle.gate.operators import MICROSOFT, OF_MICROSOFT, STANDARD, find_rule
from gpt_edge.bundle.gate.records import Node
from gpt_edge.bundle.gate.values import Place, Value
from gpt_edge.config import GPTConfig

TYPES = (FLOAT32, UINT8, INT8, INT32, INT64, BOOL, FLOAT16, UINT4, INT4)
CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=8, n_ctx=16, vocab_size=40)
ENCODER = GPTConfig(2, 2, 8, 16, 40, n_label=3)
BIG = 1 << 40


def floats(*dims: int) -> Value:
    return Value(FLOAT32, dims)


def truths(*dims: int) -> Value:
    return Value(BOOL, dims)


def bytes_(*dims: int) -> Value:
    return Value(UINT8, dims)


def signed_bytes(*dims: int) -> Value:
    return Value(INT8, dims)


def integers(*dims: int) -> Value:
    return Value(INT32, dims)


def whole(*dims: int) -> Value:
    return Value(INT64, dims)


def known(*content: int, is_constant: bool = True, origin: str = "") -> Value:
    """A list of whole numbers that the gate knows."""
    return Value(INT64, (len(content),), content, is_constant, origin)


def scalar(number: int, is_constant: bool = True) -> Value:
    return Value(INT64, (), (number,), is_constant)


@dataclass(frozen=True)
class Call:
    """One node; of com.microsoft where only that domain has its operator."""

    op: str
    inputs: tuple[Value | None, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("out",)
    config: GPTConfig = CONFIG
    domain: str | None = None

    def __str__(self) -> str:
        return self.op

    def results(self, is_edge: bool = True) -> list[Value]:
        """What it makes. Raises GateError."""
        own = MICROSOFT if self.op in OF_MICROSOFT and self.op not in STANDARD else ""
        domain = own if self.domain is None else self.domain
        names = tuple("" if value is None else f"in{at}" for at, value in enumerate(self.inputs))
        node = Node(self.op, domain, names, self.outputs, self.attributes, "", b"")
        place = Place(self.config, is_edge, 4, BIG)
        return find_rule(node, is_edge).infer(node, self.inputs, place)

    def but(self, at: int, value: Value | None) -> Call:
        """The call with another input."""
        inputs = (*self.inputs[:at], value, *self.inputs[at + 1 :])
        return Call(self.op, inputs, self.attributes, self.outputs, self.config, self.domain)

    def having(self, **attributes: Any) -> Call:
        """The call with other attributes; None leaves one out."""
        merged = {**self.attributes, **attributes}
        kept = {name: value for name, value in merged.items() if value is not None}
        return Call(self.op, self.inputs, kept, self.outputs, self.config, self.domain)


def call(op: str, *inputs: Value | None, **attributes: Any) -> Call:
    return Call(op, inputs, attributes)


def refused(one: Call, words: str = "") -> None:
    """The call is refused, for that reason."""
    with pytest.raises(GateError, match=words):
        one.results()


def check_types(good: Call, *allowed: tuple[int, ...]) -> None:
    """Of each input, the call takes those types and no other."""
    for at, types in enumerate(allowed):
        value = good.inputs[at]
        assert value is not None
        for kind in TYPES:
            changed = good.but(at, value._replace(type=kind))
            if kind in types:
                changed.results()
            else:
                refused(changed, "an input is|casts between")
