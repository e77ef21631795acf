"""Weights as a graph computes with them, whatever operators hold them: read back, made float32,
laid out as the reference.

`Stored` keeps beside each value the step it was rounded to. The one place that knows the layouts of
weights in graphs; `schemes.py` writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from gpt_edge.arrays import BoolArray, FloatArray

PRODUCTS = ("MatMulNBits", "MatMul", "FusedMatMul", "Gemm", "MatMulInteger", "MatMulIntegerToFloat")


class UnknownLayout(Exception):
    """The weights are there, but stored in a way that this file does not know."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A matrix [N, K] as a graph has it. step: distance of two neighbouring levels there,
    broadcastable to it, 0 for floats.

    is_end: where the level is the first or last one there is, so that a larger weight was cut off;
    None: nowhere.
    """

    values: FloatArray
    step: FloatArray
    is_end: BoolArray | None = None

    def map(self, change: Callable[[Any], Any]) -> Stored:
        """The same with `change` done to every array of the full shape."""
        step = np.broadcast_to(self.step, self.values.shape)
        return Stored(
            change(self.values), change(step), None if self.is_end is None else change(self.is_end)
        )


def array_of(value: ir.Value | None) -> NDArray[Any] | None:
    """A copy of an initializer's content; None where there is none. int4 comes back as one
    int8 each.
    """
    if value is None or value.const_value is None:
        return None
    tensor = value.const_value
    array = np.array(tensor.numpy())
    if isinstance(tensor, ir.ExternalTensor):
        # onnx_ir maps the whole file anew for each tensor, and would keep every mapping
        tensor.release()
    return array.astype(np.int8) if tensor.dtype == ir.DataType.INT4 else array


def linear_weight(nodes: Sequence[ir.Node]) -> Stored:
    """The weight [N, K] of the one product among `nodes`. Raises UnknownLayout where there is none,
    or several.
    """
    products = [node for node in nodes if node.op_type in PRODUCTS]
    if len(products) != 1:
        raise UnknownLayout(f"{len(products)} products")
    node = products[0]
    if node.op_type == "MatMulNBits":
        return _blocks(
            node.inputs[1:4], node.attributes["K"].as_int(), node.attributes["bits"].as_int()
        )
    if node.op_type == "MatMulInteger":
        scales = [scale for mul in nodes if mul.op_type == "Mul" for value in mul.inputs if _is_float(value)
                  for scale in [array_of(value)] if scale is not None]  # fmt: skip
        if len(scales) != 1:
            raise UnknownLayout(f"{len(scales)} scales of an integer product")
        return _columns(array_of(node.inputs[1]), scales[0], _optional(node, 3))
    if node.op_type == "MatMulIntegerToFloat":
        return _columns(array_of(node.inputs[1]), array_of(node.inputs[3]), _optional(node, 5))
    stored = _value(node.inputs[1])
    transposes = "transB" in node.attributes and node.attributes["transB"].as_int()
    return stored if transposes else stored.map(np.transpose)


def linear_bias(nodes: Sequence[ir.Node]) -> NDArray[Any] | None:
    """What is added behind the product: its last input or that of an Add; None where nothing is."""
    for node in nodes:
        index = {"MatMulNBits": 5, "MatMulIntegerToFloat": 6, "Gemm": 2}.get(node.op_type)
        added = (
            [array_of(value) for value in node.inputs if _is_float(value)]
            if node.op_type == "Add"
            else []
        )
        for found in (_optional(node, index) if index is not None else None, *added):
            if found is not None and found.ndim == 1:
                return np.asarray(found)
    return None


def table(nodes: Sequence[ir.Node], source: str) -> Stored:
    """The table [rows, K] that is looked up by the graph input `source` among `nodes`. Raises
    UnknownLayout.
    """
    found: list[ir.Node] = []
    for node in nodes:
        if node.op_type in ("Gather", "GatherBlockQuantized") and _comes_from_input(
            node.inputs[1], source
        ):
            found.append(node)
    if len(found) == 1 and found[0].op_type == "GatherBlockQuantized":
        node = found[0]
        levels, scales, zeros = (
            array_of(node.inputs[0]),
            _value_or_shape(node.inputs[2]),
            _optional(node, 3),
        )
        assert levels is not None
        return _unblocked(levels, scales, zeros, 0, node.attributes["bits"].as_int())
    arrays = [array for node in found if (array := array_of(node.inputs[0])) is not None]
    floats = [array for array in arrays if array.dtype.kind == "f" and array.ndim == 2]
    if len(arrays) == 1 and floats:
        return _floats(floats[0])
    levels_of = [array for array in arrays if array.dtype.kind in "iu" and array.ndim == 2]
    scales_of = [array for array in arrays if array.dtype.kind == "f" and array.ndim == 1]
    if len(arrays) == 2 and levels_of and scales_of:
        scale = scales_of[0].astype(np.float32)[:, None]
        return Stored(levels_of[0].astype(np.float32) * scale, scale)
    raise UnknownLayout(f"{len(arrays)} tables")


def _comes_from_input(value: ir.Value | None, name: str) -> bool:
    todo = [value]
    while todo:
        value = todo.pop()
        if value is None:
            continue
        if value.name == name and value.is_graph_input():
            return True
        node = value.producer()
        todo += list(node.inputs) if node is not None else []
    return False


def _optional(node: ir.Node, index: int) -> Any:
    return array_of(node.inputs[index]) if index < len(node.inputs) else None


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer() and value.dtype == ir.DataType.FLOAT


def _value_or_shape(value: ir.Value | None) -> NDArray[Any]:
    """An initializer, also behind an Unsqueeze or Reshape: its elements, in their order."""
    while (
        value is not None
        and (node := value.producer()) is not None
        and node.op_type in ("Unsqueeze", "Reshape")
    ):
        value = node.inputs[0]
    found = array_of(value)
    if found is None:
        raise UnknownLayout("scales that are computed")
    return found


def _floats(array: NDArray[Any]) -> Stored:
    """fp16 values lie within half a step of theirs, 2**-10 of the value; float32 values are what
    they are.
    """
    values = array.astype(np.float32)
    if array.dtype == np.float16:
        return Stored(values, np.maximum(np.abs(values) * np.float32(2**-10), np.float32(2**-24)))
    return Stored(values, np.zeros((1, 1), np.float32))


def _value(value: ir.Value | None) -> Stored:
    """A matrix in the layout of the graph: an initializer, perhaps cast, transposed or
    dequantised.
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
        return _value(node.inputs[0])
    if node.op_type == "Transpose":
        return _value(node.inputs[0]).map(np.transpose)
    if node.op_type == "DequantizeLinear":
        return _dequantized(node)
    raise UnknownLayout(f"a product with what {node.op_type} returns")


def _dequantized(node: ir.Node) -> Stored:
    levels, scales, zeros = array_of(node.inputs[0]), array_of(node.inputs[1]), _optional(node, 2)
    if levels is None or scales is None or levels.ndim != 2:
        raise UnknownLayout("DequantizeLinear of what is computed")
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    size = node.attributes["block_size"].as_int() if "block_size" in node.attributes else 0
    is_int4 = node.inputs[0] is not None and node.inputs[0].dtype == ir.DataType.INT4

    def spread(array: NDArray[Any]) -> NDArray[Any]:
        if size:
            return np.repeat(array, size, axis)[tuple(slice(n) for n in levels.shape)]
        return (
            array
            if array.ndim == 0 or array.size == 1
            else array.reshape([-1 if i == axis else 1 for i in range(2)])
        )

    step = spread(scales.astype(np.float32))
    zero = spread(zeros.astype(np.float32)) if zeros is not None else np.float32(0)
    is_end = (levels == -8) | (levels == 7) if is_int4 else None
    values = (levels.astype(np.float32) - zero) * step
    return Stored(values, np.abs(np.broadcast_to(step, values.shape)), is_end)


def _columns(levels: Any, scales: Any, zeros: Any) -> Stored:
    """[K, N] levels with a scale for each column, or one for all."""
    if levels is None or scales is None or levels.ndim != 2:
        raise UnknownLayout("an integer product of what is computed")
    step = scales.astype(np.float32).reshape(1, -1)
    zero = zeros.astype(np.float32).reshape(1, -1) if zeros is not None else np.float32(0)
    return Stored(((levels.astype(np.float32) - zero) * step).T, step.T)


def _blocks(inputs: Sequence[ir.Value | None], k: int, bits: int) -> Stored:
    """MatMulNBits: [N, blocks, block * bits / 8], low bits first, around 2**(bits - 1) where there
    are no zero points.
    """
    levels, scales = array_of(inputs[0]), _value_or_shape(inputs[1])
    zeros = array_of(inputs[2]) if len(inputs) > 2 else None
    if levels is None:
        raise UnknownLayout("MatMulNBits of what is computed")
    return _unblocked(levels, scales, zeros, k, bits)


def _unblocked(
    levels: NDArray[Any], scales: NDArray[Any], zeros: NDArray[Any] | None, k: int, bits: int
) -> Stored:
    """k: weights in a row; 0: all that the blocks hold, the padding of the last one included."""
    n, n_blocks = levels.shape[:2]
    unpacked = _unpacked(levels, bits)  # [N, blocks, block]
    scale = scales.astype(np.float32).reshape(n, n_blocks, 1)
    middle = np.float32(1 << (bits - 1))
    if zeros is None:
        zero: Any = middle
    elif zeros.dtype.kind == "f":
        zero = zeros.astype(np.float32).reshape(n, n_blocks, 1)
    else:
        zero = _unpacked(zeros.reshape(n, -1), bits)[:, :n_blocks].astype(np.float32)[..., None]
    k = k or n_blocks * unpacked.shape[2]
    values = ((unpacked.astype(np.float32) - zero) * scale).reshape(n, -1)[:, :k]
    step = np.repeat(np.abs(scale[..., 0]), unpacked.shape[2], axis=1)[:, :k]
    is_end = (
        ((unpacked == 0) | (unpacked == (1 << bits) - 1)).reshape(n, -1)[:, :k]
        if bits < 8
        else None
    )
    return Stored(values, step, is_end)


def _unpacked(packed: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """One level to a byte along the last axis."""
    if bits == 8:
        return packed.astype(np.uint8, copy=False)
    parts = [(packed >> shift) & ((1 << bits) - 1) for shift in range(0, 8, bits)]
    return np.stack(parts, -1).reshape(*packed.shape[:-1], -1).astype(np.uint8, copy=False)
