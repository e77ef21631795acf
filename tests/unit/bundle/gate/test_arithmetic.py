"""Operators in the gate that compute element by element or reduce."""

from __future__ import annotations

import dataclasses

import pytest

from gpt_edge.bundle.gate.limits import (
    BOOL,
    FLOAT32,
    INT4,
    INT8,
    INT64,
    MAX_BLOCK,
    MAX_CONTENT,
    UINT8,
)
from gpt_edge.bundle.gate.values import Value
from tests.unit.bundle.gate.calls import (
    CONFIG,
    Call,
    bytes_,
    call,
    check_types,
    floats,
    known,
    refused,
    scalar,
    signed_bytes,
    truths,
    whole,
)

HIGHEST = (1 << 63) - 1


def stored(*dims: int) -> Value:
    return Value(UINT8, dims, is_constant=True)


def of(activation: str, one: Call) -> Call:
    return dataclasses.replace(one, config=dataclasses.replace(CONFIG, activation=activation))


REDUCED = call("ReduceSum", floats(2, 3, 4), known(1), keepdims=1)
NORM = call("LayerNormalization", floats(2, 3, 8), floats(8), floats(8), epsilon=1e-5)
QUANTIZED = call(
    "QuantizeLinear", floats(2, 64), floats(2, 2), bytes_(2, 2), axis=-1, block_size=32
)
WEIGHTS = call("DequantizeLinear", signed_bytes(4, 6), floats(6), signed_bytes(6))
BLOCKS = call(
    "DequantizeLinear", signed_bytes(3, 9, 6), floats(3, 3, 6), signed_bytes(3, 3, 6),
    axis=1, block_size=4,
)  # fmt: skip
BITS = call("BitwiseAnd", stored(3, 4), stored())
MADE: list[tuple[Call, list[Value]]] = [
    (call("Add", floats(2, 3), floats(2, 3)), [floats(2, 3)]),
    (call("Add", floats(2, 3), floats(3)), [floats(2, 3)]),
    (call("Add", floats(3), floats(2, 3)), [floats(2, 3)]),
    (call("Mul", floats(2, 1), floats(1, 3)), [floats(2, 3)]),
    (call("Mul", floats(), floats(2, 3)), [floats(2, 3)]),
    (call("Add", known(1, 2), known(3, 5)), [known(4, 7)]),
    (call("Sub", known(9, 2), scalar(3)), [known(6, -1)]),
    (call("Mul", scalar(3), known(4, 5)), [known(12, 15)]),
    (call("Max", scalar(3), scalar(4)), [scalar(4)]),
    (call("Add", known(1), known(3, 5)), [known(4, 6)]),
    (call("Add", known(1, is_constant=False), known(3)), [known(4, is_constant=False)]),
    (call("Add", known(1), known(3, is_constant=False)), [known(4, is_constant=False)]),
    (call("Add", known(1), whole(1)), [whole(1)]),
    (call("Add", whole(1), known(1)), [whole(1)]),
    (call("Add", Value(INT64, (1, 1), (2,), True), scalar(1)),
     [Value(INT64, (1, 1), None, True)]),
    (call("Add", known(*range(MAX_CONTENT)), scalar(1)), [known(*range(1, MAX_CONTENT + 1))]),
    (call("Add", known(*range(MAX_CONTENT + 1)), scalar(1)),
     [Value(INT64, (MAX_CONTENT + 1,), None, True)]),
    (call("Add", scalar(HIGHEST - 1), scalar(1)), [scalar(HIGHEST)]),
    (call("Sub", scalar(-HIGHEST), scalar(1)), [scalar(-HIGHEST - 1)]),
    (BITS, [stored(3, 4)]),
    (dataclasses.replace(BITS, op="BitShift").having(direction="RIGHT"), [stored(3, 4)]),
    (call("Equal", whole(2, 1), whole(3)), [truths(2, 3)]),
    (call("And", truths(2, 1), truths(3)), [truths(2, 3)]),
    (call("Not", truths(2, 1)), [truths(2, 1)]),
    (call("Abs", floats(2, 1)), [floats(2, 1)]),
    (call("FastGelu", floats(2, 8)), [floats(2, 8)]),
    (call("FastGelu", floats(2, 8), None), [floats(2, 8)]),
    (call("FastGelu", floats(2, 8), floats(8)), [floats(2, 8)]),
    (call("Gelu", floats(2, 8), approximate="tanh"), [floats(2, 8)]),
    (of("gelu", call("Gelu", floats(2, 8))), [floats(2, 8)]),
    (of("gelu", call("Gelu", floats(2, 8), approximate="none")), [floats(2, 8)]),
    (of("relu", call("Relu", floats(2, 8))), [floats(2, 8)]),
    (REDUCED, [floats(2, 1, 4)]),
    (REDUCED.having(keepdims=None), [floats(2, 1, 4)]),
    (REDUCED.having(keepdims=0), [floats(2, 4)]),
    (REDUCED.but(1, known(-1)), [floats(2, 3, 1)]),
    (REDUCED.but(1, known(0, 2)), [floats(1, 3, 1)]),
    (REDUCED.but(1, known(0, 2)).having(keepdims=0), [floats(3)]),
    (call("ReduceMax", whole(2, 3), known(1)), [whole(2, 1)]),
    (NORM, [floats(2, 3, 8)]),
    (NORM.having(epsilon=1.0000009e-5), [floats(2, 3, 8)]),
    (QUANTIZED, [bytes_(2, 64)]),
    (QUANTIZED.having(axis=None), [bytes_(2, 64)]),
    (QUANTIZED.but(0, floats(2, 33)), [bytes_(2, 33)]),
    (call("QuantizeLinear", floats(2, 3), floats(2, 3), bytes_(2, 3), axis=-1, block_size=1),
     [bytes_(2, 3)]),
    (call("QuantizeLinear", floats(2, 3), floats(2, 1), bytes_(2, 1), axis=-1,
          block_size=MAX_BLOCK), [bytes_(2, 3)]),
    (WEIGHTS, [floats(4, 6)]),
    (call("DequantizeLinear", signed_bytes(4, 6), floats()), [floats(4, 6)]),
    (call("DequantizeLinear", signed_bytes(4, 6), floats(4), axis=0), [floats(4, 6)]),
    (call("DequantizeLinear", signed_bytes(4, 6), floats(6), axis=-1), [floats(4, 6)]),
    (BLOCKS, [floats(3, 9, 6)]),
    (call("DynamicQuantizeLinear", floats(2, 3)), [bytes_(2, 3), floats(), bytes_()]),
]  # fmt: skip


def results(one: Call) -> list[Value]:
    several = ("out", "scale", "zero") if one.op == "DynamicQuantizeLinear" else one.outputs
    return dataclasses.replace(one, outputs=several).results()


@pytest.mark.parametrize(("good", "made"), MADE, ids=str)
def test_an_operator_makes_what_its_inputs_say(good: Call, made: list[Value]) -> None:
    assert results(good) == made


def test_every_input_has_its_type() -> None:
    f, u, b, w = (FLOAT32,), (UINT8,), (BOOL,), (INT64,)
    for kind in (FLOAT32, INT64):
        same = Value(kind, (2, 3))
        check_types(call("Add", same, same), (kind,), (kind,))
    refused(call("Add", truths(2), truths(2)), "an input is BOOL, expected FLOAT32 or INT64")
    check_types(BITS, u, u)
    check_types(call("Equal", whole(2), whole(2)), w, w)
    check_types(call("And", truths(2), truths(2)), b, b)
    check_types(call("Not", truths(2)), b)
    check_types(call("Abs", floats(2)), f)
    check_types(call("FastGelu", floats(2, 8), floats(8)), f, f)
    check_types(REDUCED, (FLOAT32, INT64))
    check_types(NORM, f, f, f)
    check_types(QUANTIZED, f, f, u)
    check_types(WEIGHTS, (INT8,), f, (INT8,))
    check_types(call("DequantizeLinear", signed_bytes(4, 6), floats()), (INT8, INT4, UINT8), f)
    with pytest.raises(ValueError, match="an input is INT64"):
        results(call("DynamicQuantizeLinear", whole(2)))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (call("Add", floats(2), floats(3)), "do not fit"),
        (call("Add", floats(2, 3), floats(2)), "do not fit"),
        (call("Equal", whole(2), whole(3)), "do not fit"),
        (call("Or", truths(2), truths(3)), "do not fit"),
        (call("Add", scalar(HIGHEST), scalar(1)), "over 64 bits"),
        (call("Sub", scalar(-HIGHEST), scalar(2)), "over 64 bits"),
        (BITS.but(0, bytes_(3, 4)), "not stored"),
        (BITS.but(1, bytes_()), "not stored"),
        (BITS.but(1, stored(4)), "has the shape"),
        (of("gelu", call("FastGelu", floats(2, 8))), "its activation is gelu_tanh"),
        (call("Gelu", floats(2, 8)), "its activation is gelu,"),
        (call("Gelu", floats(2, 8), approximate="none"), "its activation is gelu,"),
        (call("Relu", floats(2, 8)), "its activation is relu"),
        (call("FastGelu", floats(2, 8), floats(2)), "has the shape"),
        (call("FastGelu", floats(2, 8), floats(1, 8)), "has the shape"),
        (REDUCED.but(1, known()), "reduces no axis"),
        (REDUCED.but(1, known(1, -2)), "reduces no axis"),
        (REDUCED.but(1, known(3)), "not one of 3"),
        (REDUCED.but(1, known(-4)), "not one of 3"),
        (REDUCED.but(1, known(1, is_constant=False)), "not stored"),
        (REDUCED.but(1, whole(1)._replace(is_constant=True)), "only a call knows"),
        (NORM.but(1, floats(3)), "has the shape"),
        (NORM.but(2, floats(3)), "has the shape"),
        (NORM.having(epsilon=1.000002e-5), "its epsilon is"),
        (NORM.having(epsilon=None), "its epsilon is None"),
        (QUANTIZED.having(block_size=None), "unexpected axis"),
        (QUANTIZED.having(block_size=2 * MAX_BLOCK), "too large"),
        (QUANTIZED.having(axis=None).but(0, floats(2, 3, 64)), "unexpected axis"),
        (QUANTIZED.but(1, floats(2, 3)), "has the shape"),
        (QUANTIZED.but(2, bytes_(2, 1)), "has the shape"),
        (QUANTIZED.but(0, floats(2, 65)), "has the shape"),
        (WEIGHTS.but(1, floats(4)), "has the shape"),
        (WEIGHTS.but(1, floats(4, 6)), "has the shape"),
        (WEIGHTS.but(2, signed_bytes()), "has the shape"),
        (WEIGHTS.having(axis=2), "not one of 2"),
        (BLOCKS.but(1, floats(3, 2, 6)), "has the shape"),
        (BLOCKS.but(2, signed_bytes(3, 9, 6)), "has the shape"),
        (BLOCKS.having(axis=0), "has the shape"),
    ],
    ids=str,
)
def test_an_operator_whose_inputs_do_not_fit_is_refused(bad: Call, words: str) -> None:
    refused(bad, words)
