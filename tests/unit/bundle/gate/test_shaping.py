"""Operators in the gate that cut, join and turn values."""

from __future__ import annotations

import struct

import pytest

from gpt_edge.bundle.gate.limits import (
    BOOL,
    FLOAT16,
    FLOAT32,
    INT8,
    INT32,
    INT64,
    UINT8,
)
from gpt_edge.bundle.gate.records import Tensor
from gpt_edge.bundle.gate.shaping import tensor_value
from gpt_edge.bundle.gate.values import IDS, POSITIONS, Value
from tests.unit.bundle.gate.calls import (
    TYPES,
    Call,
    call,
    check_types,
    floats,
    known,
    refused,
    scalar,
    whole,
)

LONG = Tensor("x", INT64, (2,), struct.pack("<2q", 1 << 62, -2))
CASTS = {
    INT64: {FLOAT32, INT32, BOOL, INT64},
    INT32: {INT64, FLOAT32},
    INT8: {FLOAT32},
    UINT8: {FLOAT32},
    FLOAT16: {FLOAT32},
    FLOAT32: {FLOAT16, FLOAT32},
    BOOL: {FLOAT32, INT64},
}
SEQUENCE = known(10, 11, 12, 13, 14, is_constant=False, origin=POSITIONS)
CONCAT = call("Concat", floats(2, 3, 4), floats(2, 5, 4), axis=1)
GATHERED = call("Gather", floats(40, 8), whole(2, 3)._replace(origin=IDS))
ROWS = call("GatherND", floats(2, 5, 8), whole(2, 3, 1), batch_dims=1)
RANGE = call("Range", scalar(2), scalar(7), scalar(1))
SLICED = call("Slice", floats(4, 9), known(1), known(7), known(1), known(2))
MADE: list[tuple[Call, list[Value]]] = [
    (call("Constant", value=LONG), [known(1 << 62, -2)]),
    (call("Constant", value_ints=(5, 6, 7)), [known(5, 6, 7)]),
    (call("Cast", SEQUENCE, to=INT64), [SEQUENCE]),
    (call("Cast", known(3)._replace(type=INT32, origin=IDS), to=INT64), [known(3, origin=IDS)]),
    (call("Cast", SEQUENCE, to=INT32), [SEQUENCE._replace(type=INT32, content=None)]),
    (call("Cast", floats(2, 3), to=FLOAT16), [Value(FLOAT16, (2, 3))]),
    (CONCAT, [floats(2, 8, 4)]),
    (CONCAT.having(axis=-2), [floats(2, 8, 4)]),
    (call("Concat", known(1, 2), axis=0), [known(1, 2)]),
    (call("Concat", known(1, 2), known(3), axis=0), [known(1, 2, 3)]),
    (call("Concat", known(1), whole(1), axis=0), [whole(2)]),
    (call("Concat", known(1), known(2, is_constant=False), axis=0),
     [known(1, 2, is_constant=False)]),
    (call("Concat", known(*range(9)), known(*range(8)), axis=0),
     [Value(INT64, (17,), None, True)]),
    (call("Concat", Value(INT64, (1, 1), (4,)), Value(INT64, (1, 1), (4,)), axis=1), [whole(1, 2)]),
    (call("Expand", floats(2, 1), known(3, 1, 5)), [floats(3, 2, 5)]),
    (call("Expand", floats(3, 2, 5), known(2, 1)), [floats(3, 2, 5)]),
    (call("Expand", floats(), known(2, 3)), [floats(2, 3)]),
    (call("Expand", whole(1, 4)._replace(origin=POSITIONS), known(6, 4)),
     [whole(6, 4)._replace(origin=POSITIONS)]),
    (GATHERED, [floats(2, 3, 8)]),
    (GATHERED.but(1, whole(2, 3)), [floats(2, 3, 8)]),
    (call("Gather", floats(16, 8), whole(3)._replace(origin=POSITIONS)), [floats(3, 8)]),
    (call("Gather", floats(7, 8), whole(3), axis=1), [floats(7, 3)]),
    (call("Gather", known(5, 6, 7), scalar(1)), [Value(INT64, (), (6,))]),
    (call("Gather", known(5, 6, 7), known(2, 0)), [known(7, 5, is_constant=False)]),
    (call("Gather", known(5, 6, 7), known(-3)), [known(5, is_constant=False)]),
    (call("Gather", floats(3, 8), known(2)), [floats(1, 8)]),
    (call("Gather", known(5, 6, 7), whole(2)), [whole(2)]),
    (ROWS, [floats(2, 3, 8)]),
    (ROWS.but(1, whole(2, 1)), [floats(2, 8)]),
    (RANGE, [Value(INT64, (5,), origin=POSITIONS)]),
    (RANGE.but(0, scalar(0)).but(1, scalar(0)), [Value(INT64, (0,), origin=POSITIONS)]),
    (call("Reshape", floats(2, 3, 4), known(6, 4)), [floats(6, 4)]),
    (call("Reshape", floats(2, 3, 4), known(0, -1)), [floats(2, 12)]),
    (call("Reshape", floats(2, 3, 4), known(0, 0, 2, 2)), [floats(2, 3, 2, 2)]),
    (call("Reshape", floats(2, 3, 4), known(-1, 3)), [floats(8, 3)]),
    (call("Reshape", floats(2, 3), known(6), allowzero=1), [floats(6)]),
    (call("Reshape", SEQUENCE, known(1, 5)), [SEQUENCE._replace(dims=(1, 5))]),
    (call("Reshape", scalar(4), known(1)), [known(4)]),
    (call("Shape", floats(2, 3, 4)), [known(2, 3, 4, is_constant=False)]),
    (call("Shape", floats(2, 3, 4), start=1), [known(3, 4, is_constant=False)]),
    (call("Shape", floats(2, 3, 4), start=1, end=2), [known(3, is_constant=False)]),
    (call("Shape", floats(2, 3, 4), start=0, end=3), [known(2, 3, 4, is_constant=False)]),
    (SLICED, [floats(4, 3)]),
    (call("Slice", floats(4, 9), known(1), known(3)), [floats(2, 9)]),
    (call("Slice", floats(4, 9), known(1, 0), known(3, 9), known(0, 1), known(1, 2)),
     [floats(2, 5)]),
    (call("Slice", floats(4, 9), known(1, 0), known(3, 2)), [floats(2, 2)]),
    (call("Slice", floats(4, 9), known(-2), known(99), known(-1)), [floats(4, 2)]),
    (call("Slice", SEQUENCE, known(1), known(4)),
     [known(11, 12, 13, is_constant=False, origin=POSITIONS)]),
    (call("Slice", SEQUENCE, known(1), known(5), known(0), known(2)),
     [known(11, 13, is_constant=False, origin=POSITIONS)]),
    (call("Slice", Value(INT64, (1, 3), (1, 2, 3)), known(0), known(2), known(1)), [whole(1, 2)]),
    (call("Slice", known(1, 2, 3), known(0), known(2)), [known(1, 2)]),
    (call("Squeeze", floats(1, 3, 1, 4)), [floats(3, 4)]),
    (call("Squeeze", floats(1, 3, 1, 4), known(2)), [floats(1, 3, 4)]),
    (call("Squeeze", floats(1, 3, 1, 4), known(-4)), [floats(3, 1, 4)]),
    (call("Squeeze", known(9, origin=IDS), known(0)), [Value(INT64, (), (9,), True, IDS)]),
    (call("Unsqueeze", floats(3, 4), known(1)), [floats(3, 1, 4)]),
    (call("Unsqueeze", floats(3, 4), known(0, -1)), [floats(1, 3, 4, 1)]),
    (call("Unsqueeze", scalar(9)._replace(origin=IDS), known(0)), [known(9, origin=IDS)]),
    (call("Transpose", floats(2, 3, 4), perm=(2, 0, 1)), [floats(4, 2, 3)]),
]  # fmt: skip


@pytest.mark.parametrize(("good", "made"), MADE, ids=str)
def test_an_operator_makes_what_its_inputs_say(good: Call, made: list[Value]) -> None:
    assert good.results() == made


def test_casts_are_those_of_exports() -> None:
    for before in TYPES:
        for after in range(1, 17):
            one = call("Cast", Value(before, (3,)), to=after)
            if after in CASTS.get(before, ()):
                assert one.results() == [Value(after, (3,))]
            else:
                refused(one, "casts between")
    refused(call("Cast", floats(3)), "casts between")


def test_every_input_has_its_type() -> None:
    check_types(GATHERED.but(1, whole(2)), TYPES, (INT64,))
    check_types(ROWS, TYPES, (INT64,))
    check_types(RANGE, (INT64,), (INT64,), (INT64,))
    for kind in TYPES:
        same = Value(kind, (2, 3))
        assert call("Concat", same, same, axis=0).results() == [Value(kind, (4, 3))]
        if kind != FLOAT32:
            refused(CONCAT.but(1, Value(kind, (2, 5, 4))), "an input is")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (call("Constant"), "no value, or two"),
        (call("Constant", value=LONG, value_ints=(1,)), "no value, or two"),
        (CONCAT.having(axis=None), "it has no axis"),
        (CONCAT.having(axis=3), "not one of 3"),
        (CONCAT.having(axis=0), "do not fit"),
        (CONCAT.having(axis=2), "do not fit"),
        (CONCAT.but(1, floats(2, 5)), "different ranks"),
        (CONCAT.but(1, floats(2, 5, 4, 1)), "different ranks"),
        (call("Expand", floats(2), known(3)), "does not expand"),
        (call("Expand", floats(2, 3), known(3, 2)), "does not expand"),
        (call("Expand", floats(1), known(0)), "expands to nothing"),
        (call("Expand", floats(1), known(-1)), "expands to nothing"),
        (call("Expand", floats(1), whole(1)), "only a call knows"),
        (GATHERED.but(0, floats(41, 8)), "41 rows, the vocabulary has 40"),
        (GATHERED.but(1, whole(3)._replace(origin=POSITIONS)), "40 rows, the context has 16"),
        (GATHERED.having(axis=1), "8 rows"),
        (GATHERED.having(axis=2), "not one of 2"),
        (call("Gather", floats(3, 8), known(3)), "beyond its table"),
        (call("Gather", floats(3, 8), known(-4)), "beyond its table"),
        (ROWS.having(batch_dims=None), "batch_dims is not 1"),
        (ROWS.but(0, floats(2, 5)), "unexpected ranks"),
        (ROWS.but(0, floats(2, 5, 8, 1)), "unexpected ranks"),
        (ROWS.but(1, whole(2)), "unexpected ranks"),
        (ROWS.but(1, whole(3, 3, 1)), "do not fit"),
        (ROWS.but(1, whole(2, 3, 2)), "do not fit"),
        (RANGE.but(0, known(2)), "has the shape"),
        (RANGE.but(1, known(7)), "has the shape"),
        (RANGE.but(2, known(1)), "has the shape"),
        (RANGE.but(0, whole()), "only a call knows"),
        (RANGE.but(0, scalar(8)), "count upwards"),
        (RANGE.but(0, scalar(-1)), "count upwards"),
        (RANGE.but(2, scalar(2)), "count upwards"),
        (RANGE.but(2, scalar(-1)), "count upwards"),
        (call("Reshape", floats(2, 3, 4), known(5, 5)), "does not fit"),
        (call("Reshape", floats(2, 3, 4), known(5, -1)), "does not fit"),
        (call("Reshape", floats(2, 3), known(2, 3, 0)), "not there"),
        (call("Reshape", floats(2, 3), known(-1, -1)), "two sizes open"),
        (call("Reshape", floats(2, 3), known(-2, 3)), "below one"),
        (call("Reshape", floats(2, 3), known(0, 3), allowzero=1), "below one"),
        (call("Reshape", floats(2, 3), whole(2)), "only a call knows"),
        (call("Shape", floats(2, 3), start=2), "not there"),
        (call("Shape", floats(2, 3), start=-1), "not there"),
        (call("Shape", floats(2, 3), end=3), "not there"),
        (call("Shape", floats(2, 3), start=1, end=1), "not there"),
        (call("Slice", floats(), known(), known()), "do not fit"),
        (call("Slice", floats(4, 9), known(1), known(7, 8)), "do not fit"),
        (call("Slice", floats(4, 9), known(1), known(3), known(0, 1)), "do not fit"),
        (call("Slice", floats(4, 9), known(1), known(3), known(0), known(1, 1)), "do not fit"),
        (SLICED.but(4, known(3)), "do not fit"),
        (SLICED.but(4, known(-1)), "do not fit"),
        (SLICED.but(4, known(0)), "do not fit"),
        (SLICED.but(3, known(2)), "not one of 2"),
        (SLICED.but(3, known(1, is_constant=False)), "not stored"),
        (SLICED.but(1, known(7)), "leaves nothing"),
        (SLICED.but(1, whole(1)), "only a call knows"),
        (call("Squeeze", floats(1, 3), known(1)), "several elements"),
        (call("Squeeze", floats(1, 3), known(0, 1)), "several elements"),
        (call("Squeeze", floats(1, 3), known(2)), "not one of 2"),
        (call("Squeeze", floats(1, 3), known(0, is_constant=False)), "not stored"),
        (call("Unsqueeze", floats(3), known(0, 0)), "adds an axis twice"),
        (call("Unsqueeze", floats(3), known(0, -3)), "adds an axis twice"),
        (call("Unsqueeze", floats(3), known(2)), "not one of 2"),
        (call("Transpose", floats(2, 3)), "no order"),
        (call("Transpose", floats(2, 3), perm=(0, 0)), "not one of its axes"),
        (call("Transpose", floats(2, 3), perm=(0,)), "not one of its axes"),
        (call("Transpose", floats(2, 3), perm=(0, 1, 2)), "not one of its axes"),
    ],
    ids=str,
)
def test_an_operator_whose_inputs_do_not_fit_is_refused(bad: Call, words: str) -> None:
    refused(bad, words)


def test_the_numbers_of_a_stored_tensor_are_known_where_they_are_whole_and_few() -> None:
    sixteen = Tensor("x", INT64, (16,), bytes(128))
    assert tensor_value(sixteen) == Value(INT64, (16,), (0,) * 16, is_constant=True)
    seventeen = Tensor("x", INT64, (17,), bytes(136))
    assert tensor_value(seventeen) == Value(INT64, (17,), None, is_constant=True)
    beside = Tensor("x", INT64, (1,), None, "model.onnx.data", 0, 8)
    assert tensor_value(beside) == Value(INT64, (1,), None, is_constant=True)
    other = Tensor("x", INT32, (2,), bytes(8))
    assert tensor_value(other) == Value(INT32, (2,), None, is_constant=True)
