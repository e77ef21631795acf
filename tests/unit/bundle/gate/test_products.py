"""Products and attention in the gate: what each makes of shapes that fit, and each size that does
not fit is refused.
"""

from __future__ import annotations

import dataclasses

import pytest

from gpt_edge.bundle.gate.limits import (
    BOOL,
    FLOAT32,
    INT8,
    INT32,
    INT64,
    MAX_BLOCK,
    UINT8,
)
from gpt_edge.bundle.gate.values import IDS, Value
from tests.unit.bundle.gate.calls import (
    ENCODER,
    Call,
    bytes_,
    call,
    check_types,
    floats,
    integers,
    refused,
    signed_bytes,
    truths,
    whole,
)

MATMUL = call("MatMul", floats(2, 3, 8), floats(8, 5))
GEMM = call("Gemm", floats(3, 8), floats(8, 5), floats(5))
INTEGER = call("MatMulInteger", bytes_(2, 8), signed_bytes(8, 5), bytes_(), signed_bytes())
TO_FLOAT = call(
    "MatMulIntegerToFloat", bytes_(2, 8), signed_bytes(8, 5), floats(), floats(), bytes_()
)
N_BITS = call(
    "MatMulNBits", floats(3, 96), bytes_(5, 3, 16), floats(15), bytes_(5, 2), None, floats(5),
    K=96, N=5, bits=4, block_size=32,
)  # fmt: skip
TABLE = call(
    "GatherBlockQuantized", bytes_(40, 3, 16), whole(2, 7), floats(40, 3, 1), bytes_(120),
    bits=4, block_size=32, gather_axis=0, quantize_axis=2,
)  # fmt: skip
GROUPED = call(
    "GroupQueryAttention", floats(3, 5, 24), None, None, floats(3, 2, 9, 4), floats(3, 2, 9, 4),
    integers(3), integers(1), num_heads=2, kv_num_heads=2,
)  # fmt: skip
OF_ENCODER = dataclasses.replace(GROUPED.but(3, None).but(4, None), config=ENCODER)
ATTENTION = call(
    "Attention", floats(3, 2, 5, 4), floats(3, 2, 9, 4), floats(3, 2, 9, 4), truths(3, 1, 5, 9),
    scale=0.5,
)  # fmt: skip
SKIP = dataclasses.replace(
    call(
        "SkipLayerNormalization", floats(2, 3, 8), floats(2, 3, 8), floats(8), floats(8),
        floats(8), epsilon=1e-5,
    ),
    outputs=("out", "", "", "sum"),
)  # fmt: skip
MADE: list[tuple[Call, list[Value]]] = [
    (MATMUL, [floats(2, 3, 5)]),
    (call("MatMul", floats(8), floats(8, 5)), [floats(5)]),
    (call("FusedMatMul", floats(2, 3, 8), floats(5, 8), transB=1), [floats(2, 3, 5)]),
    (call("FusedMatMul", floats(2, 3, 8), floats(8, 5), transB=0), [floats(2, 3, 5)]),
    (GEMM, [floats(3, 5)]),
    (GEMM.but(1, floats(5, 8)).having(transB=1), [floats(3, 5)]),
    (INTEGER, [integers(2, 5)]),
    (INTEGER.but(2, bytes_(1)).but(3, signed_bytes(5)), [integers(2, 5)]),
    (INTEGER.but(1, bytes_(8, 5)).but(3, bytes_(1)), [integers(2, 5)]),
    (TO_FLOAT, [floats(2, 5)]),
    (TO_FLOAT.but(2, floats(1)).but(3, floats(5)).but(4, bytes_(1)), [floats(2, 5)]),
    (TO_FLOAT.but(3, floats(1)).but(5, signed_bytes()), [floats(2, 5)]),
    (TO_FLOAT.but(5, signed_bytes(1)).but(6, floats(5)), [floats(2, 5)]),
    (TO_FLOAT.but(5, signed_bytes(5)).but(6, None), [floats(2, 5)]),
    (TO_FLOAT.but(5, None).but(6, floats(5)), [floats(2, 5)]),
    (N_BITS, [floats(3, 5)]),
    (N_BITS.but(3, None).but(5, None), [floats(3, 5)]),
    (dataclasses.replace(N_BITS, inputs=N_BITS.inputs[:3]), [floats(3, 5)]),
    (dataclasses.replace(N_BITS, inputs=N_BITS.inputs[:4]), [floats(3, 5)]),
    (dataclasses.replace(N_BITS, inputs=N_BITS.inputs[:5]), [floats(3, 5)]),
    (N_BITS.having(bits=8).but(1, bytes_(5, 3, 32)).but(3, bytes_(15)), [floats(3, 5)]),
    (N_BITS.having(K=288).but(0, floats(3, 288)).but(1, bytes_(5, 9, 16)).but(2, floats(45))
     .but(3, bytes_(5, 5)), [floats(3, 5)]),
    # the last block of a row may be cut short
    (N_BITS.having(K=65).but(0, floats(3, 65)), [floats(3, 5)]),
    (TABLE, [floats(2, 7, 3, 32)]),
    (TABLE.but(3, bytes_(60)), [floats(2, 7, 3, 32)]),
    (dataclasses.replace(TABLE, inputs=TABLE.inputs[:3]), [floats(2, 7, 3, 32)]),
    (TABLE.having(block_size=16).but(2, floats(40, 3, 2)), [floats(2, 7, 3, 32)]),
    (TABLE.having(bits=8, block_size=16), [floats(2, 7, 3, 16)]),
    (TABLE.but(0, bytes_(40, 3, 17)).but(2, floats(40, 3, 2)), [floats(2, 7, 3, 34)]),
    (GROUPED, [floats(3, 5, 8), floats(3, 2, 9, 4), floats(3, 2, 9, 4)]),
    (OF_ENCODER, [floats(3, 5, 8), floats(3, 2, 5, 4), floats(3, 2, 5, 4)]),
    (ATTENTION, [floats(3, 2, 5, 4)]),
    (ATTENTION.but(3, floats(5, 9)), [floats(3, 2, 5, 4)]),
    (ATTENTION.but(3, floats(1, 1, 1, 1)), [floats(3, 2, 5, 4)]),
    (dataclasses.replace(ATTENTION, inputs=ATTENTION.inputs[:3]), [floats(3, 2, 5, 4)]),
    (ATTENTION.but(1, floats(3, 2, 5, 4)).but(2, floats(3, 2, 5, 4)).but(3, truths(5, 5)),
     [floats(3, 2, 5, 4)]),
    (SKIP, [floats(2, 3, 8), floats(2, 3, 1), floats(2, 3, 1), floats(2, 3, 8)]),
    (SKIP.but(1, floats(3, 8)), [floats(2, 3, 8), *[floats(2, 3, 1)] * 2, floats(2, 3, 8)]),
    (SKIP.but(1, floats(1, 3, 8)), [floats(2, 3, 8), *[floats(2, 3, 1)] * 2, floats(2, 3, 8)]),
    (SKIP.but(4, None), [floats(2, 3, 8), *[floats(2, 3, 1)] * 2, floats(2, 3, 8)]),
    (dataclasses.replace(SKIP, inputs=SKIP.inputs[:4]),
     [floats(2, 3, 8), *[floats(2, 3, 1)] * 2, floats(2, 3, 8)]),
]  # fmt: skip


@pytest.mark.parametrize(("good", "made"), MADE, ids=str)
def test_a_product_makes_what_its_shapes_say(good: Call, made: list[Value]) -> None:
    assert good.results() == made


def test_every_input_has_its_type() -> None:
    f, u, i, q, w = (FLOAT32,), (UINT8,), (INT8,), (INT32,), (INT64,)
    check_types(MATMUL, f, f)
    check_types(GEMM, f, f, f)
    check_types(INTEGER, u, i, u, i)
    check_types(INTEGER.but(1, bytes_(8, 5)).but(3, bytes_()), u, u, u, u)
    check_types(TO_FLOAT.but(5, signed_bytes()).but(6, floats(5)), u, i, f, f, u, i, f)
    check_types(N_BITS, f, u, f, u)
    assert N_BITS.inputs[5] is not None
    refused(N_BITS.but(5, whole(5)), "an input is INT64")
    check_types(TABLE, u, w, f, u)
    check_types(ATTENTION, f, f, f, (BOOL, FLOAT32))
    check_types(SKIP, f, f, f, f, f)
    for at, right in ((0, f), (3, f), (4, f), (5, q), (6, q)):
        value = GROUPED.inputs[at]
        assert value is not None
        for kind in {FLOAT32, INT32, INT64, UINT8}.difference(right):
            refused(GROUPED.but(at, value._replace(type=kind)), "an input is")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (MATMUL.but(0, floats(2, 8, 3)), "cannot be multiplied"),
        (MATMUL.but(1, floats(5, 8)), "cannot be multiplied"),
        (MATMUL.but(1, floats(1, 8, 5)), "must be a matrix"),
        (MATMUL.but(1, floats(8)), "must be a matrix"),
        (MATMUL.but(0, floats()), "must be a matrix"),
        (GEMM.but(0, floats(1, 3, 8)), "rows are no matrix"),
        (GEMM.but(0, floats(8)), "rows are no matrix"),
        (GEMM.but(1, floats(5, 8)), "cannot be multiplied"),
        (GEMM.but(2, floats(8)), "has the shape"),
        (GEMM.but(2, floats(3, 5)), "has the shape"),
        (INTEGER.but(2, bytes_(2)), "has the shape"),
        (INTEGER.but(2, bytes_(1, 1)), "has the shape"),
        (INTEGER.but(3, signed_bytes(2)), "has the shape"),
        (INTEGER.but(3, signed_bytes(8)), "has the shape"),
        (INTEGER.but(1, integers(8, 5)).but(3, integers()), "an input is INT32"),
        (TO_FLOAT.but(2, floats(2)), "has the shape"),
        (TO_FLOAT.but(3, floats(2)), "has the shape"),
        (TO_FLOAT.but(4, bytes_(2)), "has the shape"),
        (TO_FLOAT.but(5, signed_bytes(2)), "has the shape"),
        (TO_FLOAT.but(5, None).but(6, floats(2)), "has the shape"),
        (TO_FLOAT.but(5, None).but(6, floats()), "has the shape"),
        (N_BITS.but(0, floats(3, 95)), "its K is 96"),
        (N_BITS.having(K=95), "its K is 95"),
        (N_BITS.having(K=None), "it has no K"),
        (N_BITS.having(block_size=64).but(1, bytes_(5, 3, 16)), "weights do not fit"),
        (N_BITS.having(N=4), "weights do not fit"),
        (N_BITS.but(1, bytes_(5, 3, 15)), "weights do not fit"),
        (N_BITS.but(1, bytes_(15, 1, 16)), "weights do not fit"),
        (N_BITS.having(bits=8), "weights do not fit"),
        (N_BITS.but(2, floats(14)), "scales do not fit"),
        (N_BITS.but(2, floats(16)), "scales do not fit"),
        (N_BITS.but(3, bytes_(5, 1)), "zero points do not fit"),
        (N_BITS.but(3, bytes_(15)), "zero points do not fit"),
        (dataclasses.replace(N_BITS, inputs=(*N_BITS.inputs[:3], bytes_(5, 1))),
         "zero points do not fit"),
        (N_BITS.but(4, integers(96)), "orders its groups"),
        (dataclasses.replace(N_BITS.but(4, integers(96)), inputs=(*N_BITS.inputs[:4], whole(96))),
         "orders its groups"),
        (N_BITS.but(5, floats(3)), "has the shape"),
        (TABLE.having(block_size=8).but(2, floats(40, 3, 4)), "its blocks have"),
        (TABLE.but(0, bytes_(40, 16)), "unexpected rank"),
        (TABLE.but(0, bytes_(40, 3, 8, 2)), "unexpected rank"),
        (TABLE.but(2, floats(40, 3, 2)), "has the shape"),
        (TABLE.but(2, floats(40, 3)), "has the shape"),
        (TABLE.but(3, bytes_(61)), "zero points"),
        (TABLE.but(3, bytes_(119)), "zero points"),
        (TABLE.but(1, whole(2, 7)._replace(origin=IDS)).but(0, bytes_(41, 3, 16))
         .but(2, floats(41, 3, 1)), "41 rows"),
        (GROUPED.having(num_heads=4), "it has 4 heads"),
        (GROUPED.having(kv_num_heads=1), "it has 2 heads"),
        (GROUPED.having(num_heads=None), "no num_heads"),
        (dataclasses.replace(GROUPED, outputs=("", "key", "value")), "it has 3 outputs"),
        (dataclasses.replace(GROUPED, outputs=("out", "key", "value", "more")), "it has 4 outputs"),
        (GROUPED.but(5, None), "its input 5 is empty"),
        (GROUPED.but(0, floats(3, 5, 8)), "width differs"),
        (GROUPED.but(0, floats(3, 5, 24, 1)), "width differs"),
        (GROUPED.but(0, floats(15, 24)), "width differs"),
        (GROUPED.but(3, None), "not those of its kind"),
        (GROUPED.but(4, None), "not those of its kind"),
        (OF_ENCODER.but(3, floats(3, 2, 9, 4)).but(4, floats(3, 2, 9, 4)), "not those of its kind"),
        (OF_ENCODER.but(3, floats(3, 2, 9, 4)), "keys without values"),
        (OF_ENCODER.but(4, floats(3, 2, 9, 4)), "keys without values"),
        (GROUPED.but(1, floats(3, 5, 8)), "unexpected inputs"),
        (GROUPED.but(2, floats(3, 5, 8)), "unexpected inputs"),
        (GROUPED.but(5, integers(2)), "has the shape"),
        (GROUPED.but(5, integers(1)), "has the shape"),
        (GROUPED.but(6, integers(3)), "has the shape"),
        (GROUPED.but(6, integers()), "has the shape"),
        (GROUPED.but(3, floats(3, 2, 8, 4)), "differ in shape"),
        (GROUPED.but(3, floats(3, 2, 36)).but(4, floats(3, 2, 36)), "differ in shape"),
        (GROUPED.but(3, floats(3, 4, 9, 4)).but(4, floats(3, 4, 9, 4)), "keys do not fit"),
        (GROUPED.but(3, floats(2, 2, 9, 4)).but(4, floats(2, 2, 9, 4)), "keys do not fit"),
        (GROUPED.but(3, floats(3, 2, 9, 8)).but(4, floats(3, 2, 9, 8)), "keys do not fit"),
        (ATTENTION.but(0, floats(3, 2, 20)), "unexpected rank"),
        (ATTENTION.but(1, floats(3, 2, 36)), "unexpected rank"),
        (ATTENTION.but(2, floats(3, 2, 9, 4, 1)), "unexpected rank"),
        (ATTENTION.but(0, floats(3, 4, 5, 2)), "not the config's"),
        (ATTENTION.but(0, floats(3, 1, 5, 4)), "not the config's"),
        (ATTENTION.but(0, floats(3, 2, 5, 8)), "not the config's"),
        (ATTENTION.but(1, floats(3, 2, 8, 4)), "keys do not fit"),
        (ATTENTION.but(1, floats(2, 2, 9, 4)).but(2, floats(2, 2, 9, 4)), "keys do not fit"),
        (ATTENTION.but(1, floats(3, 1, 9, 4)).but(2, floats(3, 1, 9, 4)), "keys do not fit"),
        (ATTENTION.but(1, floats(3, 2, 9, 8)).but(2, floats(3, 2, 9, 8)), "keys do not fit"),
        (ATTENTION.but(1, floats(3, 2, 4, 4)).but(2, floats(3, 2, 4, 4)), "keys do not fit"),
        (ATTENTION.but(3, truths(1, 3, 1, 5, 9)), "mask has an unexpected rank"),
        (ATTENTION.but(3, truths(5, 8)), "mask does not fit"),
        (ATTENTION.but(3, truths(4, 9)), "mask does not fit"),
        (ATTENTION.but(3, truths(3, 5, 9)), "mask does not fit"),
        (ATTENTION.but(3, truths(2, 2, 5, 9)), "mask does not fit"),
        (ATTENTION.having(scale=0.5001), "its scale is"),
        (ATTENTION.having(scale=None), "its scale is None"),
        (SKIP.but(0, floats(6, 8)).but(1, floats(6, 8)), "unexpected rank"),
        (SKIP.but(1, floats(2, 1, 8)), "its sum does not fit"),
        (SKIP.but(1, floats(8)), "its sum does not fit"),
        (SKIP.but(1, floats(1, 1, 3, 8)), "its sum does not fit"),
        (SKIP.but(2, floats(3)), "has the shape"),
        (SKIP.but(3, floats(3)), "has the shape"),
        (dataclasses.replace(SKIP, inputs=(*SKIP.inputs[:3], floats(3))), "has the shape"),
        (SKIP.but(4, floats(3)), "has the shape"),
        (SKIP.having(epsilon=1e-6), "its epsilon is"),
        (dataclasses.replace(SKIP, outputs=("out", "mean", "", "sum")), "no export asks for"),
        (dataclasses.replace(SKIP, outputs=("out", "", "spread", "sum")), "no export asks for"),
    ],
    ids=str,
)  # fmt: skip
def test_a_product_whose_sizes_do_not_fit_is_refused(bad: Call, words: str) -> None:
    refused(bad, words)


@pytest.mark.parametrize("block", [16, 32, MAX_BLOCK])
def test_blocks_are_powers_of_two_within_bounds(block: int) -> None:
    good = call(
        "MatMulNBits", floats(3, block), bytes_(5, 1, block // 2), floats(5),
        K=block, N=5, bits=4, block_size=block,
    )  # fmt: skip
    assert good.results() == [floats(3, 5)]
    refused(good.having(bits=6), "its blocks have")
    refused(good.having(block_size=block + 1), "its blocks have")
    refused(good.having(block_size=block // 2 * 3), "its blocks have")
    refused(good.having(block_size=8), "its blocks have")
    refused(good.having(block_size=2 * MAX_BLOCK), "its blocks have")
