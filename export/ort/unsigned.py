"""int8 weights of integer products as uint8 ones: the same products, exact on every CPU.

A program that opens an .ort file cannot ask onnxruntime for unsigned weights afterwards.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from gpt_edge.export.verify.dequantize import array_of

# where an integer product has its weights and their zero points
ZERO_POINT_INPUTS = {"MatMulInteger": 3, "MatMulIntegerToFloat": 5}
WEIGHT_INPUT = 1
MIDDLE = 128
SUFFIX = "_unsigned"


def store_unsigned(graph: ir.Graph) -> int:
    """Add 128 to the int8 weights of `graph`'s integer products, and to their zero points. Returns
    how many products it changed.
    """
    products = [node for node in graph if node.op_type in ZERO_POINT_INPUTS]
    signed = [node for node in products if _is_int8(node.inputs[WEIGHT_INPUT])]
    for node in signed:
        index = ZERO_POINT_INPUTS[node.op_type]
        if len(node.inputs) <= index:
            node.resize_inputs(index + 1)
        zero = node.inputs[index]
        zeros = np.zeros((), np.int8) if zero is None else array_of(zero)
        assert zeros is not None
        name = f"zero_point{SUFFIX}" if zero is None else f"{zero.name}{SUFFIX}"
        node.replace_input_with(index, _initializer(graph, name, zeros))
        weight = node.inputs[WEIGHT_INPUT]
        levels = array_of(weight)
        assert weight is not None
        assert levels is not None
        node.replace_input_with(WEIGHT_INPUT, _initializer(graph, f"{weight.name}{SUFFIX}", levels))
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        graph.initializers.pop(name)
    return len(signed)


def _is_int8(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None and value.dtype == ir.DataType.INT8


def _initializer(graph: ir.Graph, name: str, signed: np.ndarray) -> ir.Value:
    """The initializer of that name; made of int8 values where it is not there yet."""
    if name not in graph.initializers:
        tensor = ir.tensor((signed.astype(np.int16) + MIDDLE).astype(np.uint8), name=name)
        value = ir.Value(
            name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        graph.register_initializer(value)
    return graph.initializers[name]
