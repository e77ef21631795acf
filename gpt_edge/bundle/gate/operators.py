"""The allow-list: every operator that an export writes, with how many inputs and outputs it has,
which of its attributes may have which values, and what it makes of its inputs.

`tests/parity/test_gate.py` collects the operators of real exports and holds this list
against them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gpt_edge.bundle.gate import arithmetic, products, shaping
from gpt_edge.bundle.gate.limits import GateError, shown
from gpt_edge.bundle.gate.records import Attribute, Node, Tensor
from gpt_edge.bundle.gate.values import Inputs, Place, Value

Infer = Callable[[Node, Inputs, Place], list[Value]]
Allowed = tuple[float, float] | frozenset[str] | type
MICROSOFT = "com.microsoft"
FLAG, AXIS, SIZE = (0, 1), (-8, 7), (1, 1 << 24)


@dataclass(frozen=True, slots=True)
class Rule:
    """n_inputs, n_outputs: fewest and most. attributes: the range of a number, the choices of a
    text, or the type of anything else. optional: the inputs that may be empty.
    """

    infer: Infer
    n_inputs: tuple[int, int] = (1, 1)
    n_outputs: tuple[int, int] = (1, 1)
    attributes: Mapping[str, Allowed] = field(default_factory=dict)
    optional: frozenset[int] = frozenset()


def _rule(
    infer: Infer,
    fewest: int = 1,
    most: int | None = None,
    optional: tuple[int, ...] = (),
    n_outputs: tuple[int, int] = (1, 1),
    **attributes: Allowed,
) -> Rule:
    return Rule(infer, (fewest, most or fewest), n_outputs, attributes, frozenset(optional))


STANDARD: dict[str, Rule] = {
    "Abs": _rule(arithmetic.same),
    "Add": _rule(arithmetic.combine, 2),
    "And": _rule(arithmetic.logic, 2),
    "Attention": _rule(
        products.attention,
        3,
        4,
        qk_matmul_output_mode=(0, 0),
        softcap=(0.0, 0.0),
        scale=(1e-6, 1.0),
        is_causal=FLAG,
    ),
    # the two levels of a byte, in graphs that `gpt-edge web` arranged
    "BitShift": _rule(arithmetic.bits, 2, direction=frozenset({"RIGHT"})),
    "BitwiseAnd": _rule(arithmetic.bits, 2),
    "Cast": _rule(shaping.cast, to=(1, 16)),
    "Concat": _rule(shaping.concat, 1, 8, axis=AXIS),
    "Constant": Rule(shaping.constant, (0, 0), (1, 1), {"value": Tensor, "value_ints": tuple}),
    "DequantizeLinear": _rule(arithmetic.dequantize, 2, 3, axis=AXIS, block_size=SIZE),
    "DynamicQuantizeLinear": _rule(arithmetic.dynamic_quantize, n_outputs=(3, 3)),
    "Equal": _rule(arithmetic.compare, 2),
    "Expand": _rule(shaping.expand, 2),
    "Gather": _rule(shaping.gather, 2, axis=AXIS),
    "GatherND": _rule(shaping.gather_nd, 2, batch_dims=(1, 1)),
    "Gelu": _rule(arithmetic.activation, approximate=frozenset({"tanh", "none"})),
    "Gemm": _rule(products.gemm, 3, alpha=(1.0, 1.0), beta=(1.0, 1.0), transA=(0, 0), transB=FLAG),
    "Greater": _rule(arithmetic.compare, 2),
    "LayerNormalization": _rule(
        arithmetic.layer_norm, 3, axis=(-1, -1), epsilon=(1e-12, 1.0), stash_type=(1, 1)
    ),
    "LessOrEqual": _rule(arithmetic.compare, 2),
    "MatMul": _rule(products.matmul, 2),
    "MatMulInteger": _rule(products.matmul_integer, 4),
    "Max": _rule(arithmetic.combine, 2),
    "Mul": _rule(arithmetic.combine, 2),
    "Not": _rule(arithmetic.not_),
    "Or": _rule(arithmetic.logic, 2),
    "QuantizeLinear": _rule(arithmetic.quantize, 3, axis=(-1, -1), block_size=SIZE),
    "Range": _rule(shaping.range_, 3),
    "ReduceMax": _rule(arithmetic.reduce_, 2),
    "ReduceMin": _rule(arithmetic.reduce_, 2),
    "ReduceSum": _rule(arithmetic.reduce_, 2, keepdims=FLAG, noop_with_empty_axes=(0, 0)),
    "Relu": _rule(arithmetic.activation),
    "Reshape": _rule(shaping.reshape, 2, allowzero=FLAG),
    "Shape": _rule(shaping.shape, start=AXIS, end=AXIS),
    "Slice": _rule(shaping.slice_, 3, 5),
    "Squeeze": _rule(shaping.squeeze, 1, 2),
    "Sub": _rule(arithmetic.combine, 2),
    "Transpose": _rule(shaping.transpose, perm=tuple),
    "Unsqueeze": _rule(shaping.unsqueeze, 2),
}
OF_MICROSOFT: dict[str, Rule] = {
    "FastGelu": _rule(arithmetic.activation, 1, 2, (1,)),
    "FusedMatMul": _rule(products.matmul, 2, transB=FLAG),
    "GatherBlockQuantized": _rule(
        products.gather_block_quantized,
        3,
        4,
        bits=(4, 8),
        block_size=SIZE,
        gather_axis=(0, 0),
        quantize_axis=(2, 2),
    ),
    "GroupQueryAttention": _rule(
        products.grouped_attention,
        7,
        7,
        (1, 2, 3, 4),
        (1, 3),
        num_heads=SIZE,
        kv_num_heads=SIZE,
        scale=(1e-6, 1.0),
        local_window_size=(-1, 1 << 24),
    ),
    "MatMulIntegerToFloat": _rule(products.matmul_integer_to_float, 5, 7, (5, 6)),
    "MatMulNBits": _rule(
        products.matmul_nbits,
        3,
        6,
        (3, 4, 5),
        K=SIZE,
        N=SIZE,
        bits=(4, 8),
        block_size=SIZE,
        accuracy_level=(0, 4),
    ),
    "SkipLayerNormalization": _rule(
        products.skip_layer_norm, 4, 5, (4,), (1, 4), epsilon=(1e-12, 1.0)
    ),
}


def find_rule(node: Node, is_edge: bool) -> Rule:
    """The rule of a node's operator, whose inputs, outputs and attributes are as it says.

    Raises GateError for an operator that exports of this kind do not have.
    """
    table = STANDARD if node.domain == "" else OF_MICROSOFT if node.domain == MICROSOFT else {}
    rule = table.get(node.op)
    if rule is None or (node.domain == MICROSOFT and not is_edge):
        raise GateError(f"no export has it (domain {shown(node.domain)})")
    fewest, most = rule.n_inputs
    if not fewest <= len(node.inputs) <= most:
        raise GateError(f"it has {len(node.inputs)} inputs, expected {fewest} to {most}")
    if "" in node.inputs:
        for at, name in enumerate(node.inputs):
            if not name and at not in rule.optional:
                raise GateError(f"its input {at} is empty")
    fewest, most = rule.n_outputs
    if not fewest <= len(node.outputs) <= most or not node.outputs[0]:
        raise GateError(f"it has {len(node.outputs)} outputs, expected {fewest} to {most}")
    for name, value in node.attributes.items():
        _check_attribute(name, value, rule.attributes.get(name))
    return rule


def _check_attribute(name: str, value: Attribute, allowed: Allowed | None) -> None:
    if isinstance(allowed, tuple):
        is_number = isinstance(value, int if isinstance(allowed[0], int) else float)
        is_right = is_number and isinstance(value, int | float)
        is_right = is_right and allowed[0] <= value <= allowed[1]  # type: ignore[operator]
    elif isinstance(allowed, frozenset):
        is_right = isinstance(value, str) and value in allowed
    else:
        is_right = allowed is not None and isinstance(value, allowed)
    if not is_right:
        found = shown(value) if isinstance(value, str | int | float) else "a list or a tensor"
        raise GateError(f"its attribute {shown(name)} is {found}")
