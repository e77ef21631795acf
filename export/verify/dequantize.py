"""Weights as a graph computes with them, whatever operators hold them: dequantized to float32 and
laid out as in the reference.

`DequantizedWeight` keeps beside each value the step of its quantization. The one place that knows
the layouts of weights in graphs; `lower_edge.py` and `lower_portable.py` write them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from gpt_edge.arrays import BoolArray, FloatArray

# where an operator has its bias, if it has one
BIAS_INPUTS = {"MatMulNBits": 5, "MatMulIntegerToFloat": 6, "Gemm": 2}


class UnknownLayout(Exception):
    """The weights are there, but stored in a way that this file does not know."""


@dataclass(frozen=True, slots=True)
class DequantizedWeight:
    """A matrix [N, K] as a graph has it.

    step: distance of two neighbouring quantization levels, broadcastable to [N, K], 0 for floats.
    is_end: where the level is the first or last one, so that a larger weight was clipped; None:
    nowhere.
    """

    values: FloatArray
    step: FloatArray
    is_end: BoolArray | None = None

    def map(self, change: Callable[[Any], Any]) -> DequantizedWeight:
        """The same with `change` applied to every array of the full shape."""
        step = np.broadcast_to(self.step, self.values.shape)
        is_end = None if self.is_end is None else change(self.is_end)
        return DequantizedWeight(change(self.values), change(step), is_end)


def array_of(value: ir.Value | None) -> NDArray[Any] | None:
    """A copy of an initializer's content; None where there is none. int4 is returned as one int8
    each.
    """
    if value is None or value.const_value is None:
        return None
    tensor = value.const_value
    array = np.array(tensor.numpy())
    if isinstance(tensor, ir.ExternalTensor):
        # onnx_ir maps the whole file again for each tensor, and would keep every mapping
        tensor.release()
    return array.astype(np.int8) if tensor.dtype == ir.DataType.INT4 else array


def linear_weight(nodes: Sequence[ir.Node]) -> DequantizedWeight:
    """The weight [N, K] of the one product among `nodes`. Raises UnknownLayout where there is none,
    or several.
    """
    products = [node for node in nodes if node.op_type in READERS]
    if len(products) != 1:
        raise UnknownLayout(f"{len(products)} products")
    return READERS[products[0].op_type](products[0], nodes)


def read_blocks(node: ir.Node, nodes: Sequence[ir.Node]) -> DequantizedWeight:
    """MatMulNBits: [N, blocks, block * bits / 8], low bits first, around 2**(bits - 1) where there
    are no zero points.
    """
    levels = array_of(node.inputs[1])
    scales = _value_or_shape(node.inputs[2])
    zeros = _optional(node, 3)
    if levels is None:
        raise UnknownLayout("MatMulNBits of what is computed")
    return _unblocked(
        levels, scales, zeros, node.attributes["K"].as_int(), node.attributes["bits"].as_int()
    )


def read_integer_product(node: ir.Node, nodes: Sequence[ir.Node]) -> DequantizedWeight:
    """MatMulInteger: [K, N] levels; the one float constant of a Mul is their scale."""
    scales = []
    for other in nodes:
        if other.op_type != "Mul":
            continue
        for value in other.inputs:
            scale = array_of(value) if _is_float(value) else None
            if scale is not None:
                scales.append(scale)
    if len(scales) != 1:
        raise UnknownLayout(f"{len(scales)} scales of an integer product")
    return _by_columns(array_of(node.inputs[1]), scales[0], _optional(node, 3))


def read_fused_integer_product(node: ir.Node, nodes: Sequence[ir.Node]) -> DequantizedWeight:
    """MatMulIntegerToFloat: [K, N] levels and their scales."""
    return _by_columns(array_of(node.inputs[1]), array_of(node.inputs[3]), _optional(node, 5))


def read_float_product(node: ir.Node, nodes: Sequence[ir.Node]) -> DequantizedWeight:
    """MatMul and Gemm: [K, N], or [N, K] where the product transposes it."""
    weight = _matrix(node.inputs[1])
    is_transposed = "transB" in node.attributes and node.attributes["transB"].as_int()
    return weight if is_transposed else weight.map(np.transpose)


READERS: dict[str, Callable[[ir.Node, Sequence[ir.Node]], DequantizedWeight]] = {
    "MatMulNBits": read_blocks,
    "MatMulInteger": read_integer_product,
    "MatMulIntegerToFloat": read_fused_integer_product,
    "MatMul": read_float_product,
    "FusedMatMul": read_float_product,
    "Gemm": read_float_product,
}


def linear_bias(nodes: Sequence[ir.Node]) -> NDArray[Any] | None:
    """What is added behind the product: its last input or that of an Add; None where nothing is."""
    for node in nodes:
        candidates = []
        if node.op_type in BIAS_INPUTS:
            candidates.append(_optional(node, BIAS_INPUTS[node.op_type]))
        elif node.op_type == "Add":
            candidates += [array_of(value) for value in node.inputs if _is_float(value)]
        for bias in candidates:
            if bias is not None and bias.ndim == 1:
                return np.asarray(bias)
    return None


def lookup_table(nodes: Sequence[ir.Node], source: str | None) -> DequantizedWeight:
    """The table [rows, K] that the graph's input `source` looks up among `nodes`; None: what the
    length of an input looks up, whichever it is. Raises UnknownLayout.
    """
    lookups = [
        node
        for node in nodes
        if node.op_type in ("Gather", "GatherBlockQuantized")
        and (_counts(node.inputs[1]) if source is None else _reads(node.inputs[1], source))
    ]
    if len(lookups) == 1 and lookups[0].op_type == "GatherBlockQuantized":
        return _blocked_table(lookups[0])
    arrays = [_rows_of(node) for node in lookups]
    tables = [array for array in arrays if array is not None]
    floats = [array for array in tables if array.dtype.kind == "f" and array.ndim == 2]
    if len(tables) == 1 and floats:
        return _floats(floats[0])
    levels = [array for array in tables if array.dtype.kind in "iu" and array.ndim == 2]
    scales = [array for array in tables if array.dtype.kind == "f" and array.ndim == 1]
    if len(tables) == 2 and levels and scales:
        scale = scales[0].astype(np.float32)[:, None]
        return DequantizedWeight(levels[0].astype(np.float32) * scale, np.abs(scale))
    raise UnknownLayout(f"{len(tables)} tables")


def _rows_of(lookup: ir.Node) -> NDArray[Any] | None:
    """The array of a Gather, the looked-up axis first."""
    array = array_of(lookup.inputs[0])
    axis = lookup.attributes["axis"].as_int() if "axis" in lookup.attributes else 0
    return array if array is None else np.moveaxis(array, axis, 0)


def _blocked_table(node: ir.Node) -> DequantizedWeight:
    """GatherBlockQuantized, whose rows may be padded to whole blocks."""
    levels = array_of(node.inputs[0])
    assert levels is not None
    scales = _value_or_shape(node.inputs[2])
    return _unblocked(levels, scales, _optional(node, 3), 0, node.attributes["bits"].as_int())


def _reads(index: ir.Value | None, source: str) -> bool:
    """Whether a value is computed from what the graph's input of that name holds."""
    return source in _inputs_of(index)


def _counts(index: ir.Value | None) -> bool:
    """Whether a value is computed from shapes of the graph's inputs alone."""
    return not _inputs_of(index) and bool(_inputs_of(index, through_shapes=True))


def _inputs_of(value: ir.Value | None, *, through_shapes: bool = False) -> set[str]:
    """The graph's inputs that a value is computed from; through_shapes: or from their shapes."""
    found: set[str] = set()
    pending = [value]
    while pending:
        value = pending.pop()
        if value is None:
            continue
        if value.is_graph_input():
            found.add(str(value.name))
        node = value.producer()
        if node is not None and (through_shapes or node.op_type not in ("Shape", "Size")):
            pending += node.inputs
    return found


def _optional(node: ir.Node, index: int) -> Any:
    return array_of(node.inputs[index]) if index < len(node.inputs) else None


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer() and value.dtype == ir.DataType.FLOAT


def _value_or_shape(value: ir.Value | None) -> NDArray[Any]:
    """An initializer, also behind an Unsqueeze or Reshape: its elements, in their order."""
    while value is not None:
        node = value.producer()
        if node is None or node.op_type not in ("Unsqueeze", "Reshape"):
            break
        value = node.inputs[0]
    array = array_of(value)
    if array is None:
        raise UnknownLayout("scales that are computed")
    return array


def _floats(array: NDArray[Any]) -> DequantizedWeight:
    """fp16 values are within half a step of theirs, 2**-10 of the value; float32 values are
    exact.
    """
    values = array.astype(np.float32)
    if array.dtype == np.float16:
        step = np.maximum(np.abs(values) * np.float32(2**-10), np.float32(2**-24))
        return DequantizedWeight(values, step)
    return DequantizedWeight(values, np.zeros((1, 1), np.float32))


def _matrix(value: ir.Value | None) -> DequantizedWeight:
    """A matrix in the layout of the graph: an initializer, perhaps cast, transposed or
    dequantized.
    """
    if value is None:
        raise UnknownLayout("a product without a second factor")
    node = value.producer()
    if node is None:
        array = array_of(value)
        if array is None or array.ndim != 2 or array.dtype.kind != "f":
            raise UnknownLayout(f"a product with {value.name}")
        return _floats(array)
    if node.op_type in ("Cast", "Identity"):
        return _matrix(node.inputs[0])
    if node.op_type == "Transpose":
        return _matrix(node.inputs[0]).map(np.transpose)
    if node.op_type == "DequantizeLinear":
        return _dequantized(node)
    raise UnknownLayout(f"a product with what {node.op_type} returns")


def _dequantized(node: ir.Node) -> DequantizedWeight:
    """DequantizeLinear: one scale for the tensor, for each index of an axis, or for each block
    along an axis.
    """
    levels = array_of(node.inputs[0])
    scales = array_of(node.inputs[1])
    zeros = _optional(node, 2)
    if levels is None or scales is None or levels.ndim != 2:
        raise UnknownLayout("DequantizeLinear of what is computed")
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    block_size = node.attributes["block_size"].as_int() if "block_size" in node.attributes else 0
    is_int4 = node.inputs[0] is not None and node.inputs[0].dtype == ir.DataType.INT4

    def spread(array: NDArray[Any]) -> NDArray[Any]:
        """Scales or zero points so that they broadcast over the levels."""
        is_per_block = block_size > 0
        is_per_tensor = not is_per_block and array.size == 1
        if is_per_block:
            n_rows, n_columns = levels.shape
            return np.repeat(array, block_size, axis)[:n_rows, :n_columns]
        if is_per_tensor:
            return array
        return array.reshape((-1, 1) if axis == 0 else (1, -1))  # per axis

    step = spread(scales.astype(np.float32))
    zero = spread(zeros.astype(np.float32)) if zeros is not None else np.float32(0)
    is_end = (levels == -8) | (levels == 7) if is_int4 else None
    values = (levels.astype(np.float32) - zero) * step
    return DequantizedWeight(values, np.abs(np.broadcast_to(step, values.shape)), is_end)


def _by_columns(levels: Any, scales: Any, zeros: Any) -> DequantizedWeight:
    """[K, N] levels with a scale for each column, or one for all."""
    if levels is None or scales is None or levels.ndim != 2:
        raise UnknownLayout("an integer product of what is computed")
    step = scales.astype(np.float32).reshape(1, -1)
    zero = zeros.astype(np.float32).reshape(1, -1) if zeros is not None else np.float32(0)
    return DequantizedWeight(((levels.astype(np.float32) - zero) * step).T, np.abs(step).T)


def _unblocked(
    levels: NDArray[Any], scales: NDArray[Any], zeros: NDArray[Any] | None, k: int, bits: int
) -> DequantizedWeight:
    """[N, K] of blocks. k: weights in a row; 0: all that the blocks hold, the padding of the last
    one included.
    """
    n, n_blocks = levels.shape[:2]
    unpacked = _unpacked(levels, bits)  # [N, blocks, block]
    block_size = unpacked.shape[2]
    k = k or n_blocks * block_size
    scale = scales.astype(np.float32).reshape(n, n_blocks, 1)
    if zeros is None:
        zero: Any = np.float32(1 << (bits - 1))
    elif zeros.dtype.kind == "f":
        zero = zeros.astype(np.float32).reshape(n, n_blocks, 1)
    else:
        zero = _unpacked(zeros.reshape(n, -1), bits)[:, :n_blocks].astype(np.float32)[..., None]
    values = ((unpacked.astype(np.float32) - zero) * scale).reshape(n, -1)[:, :k]
    step = np.repeat(np.abs(scale[..., 0]), block_size, axis=1)[:, :k]
    if bits == 8:
        return DequantizedWeight(values, step)
    is_end = (unpacked == 0) | (unpacked == (1 << bits) - 1)
    return DequantizedWeight(values, step, is_end.reshape(n, -1)[:, :k])


def _unpacked(packed: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """One level to a byte along the last axis."""
    if bits == 8:
        return packed.astype(np.uint8, copy=False)
    mask = (1 << bits) - 1
    levels = [(packed >> shift) & mask for shift in range(0, 8, bits)]
    return np.stack(levels, -1).reshape(*packed.shape[:-1], -1).astype(np.uint8, copy=False)
