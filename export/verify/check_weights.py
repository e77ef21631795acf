"""Are the weights in a graph those of the checkpoint? Each is dequantized as the operator that uses
it does.

A quantized weight may be half a step away from its own, a float one not at all; so a row, a scale
or a layer that was taken for another one is array however little it changes the logits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt_edge import onnx_contract
from gpt_edge.arrays import FloatArray
from gpt_edge.config import GPTConfig
from gpt_edge.export.verify import dequantize
from gpt_edge.export.verify.dequantize import DequantizedWeight, UnknownLayout
from gpt_edge.export.verify.graph_map import MappedOperator
from gpt_edge.export.weights.reference_operators import LINEARS, parameters_of
from gpt_edge.export.weights.source import unpad_heads

HALF_STEP = 0.5 * (1 + 2e-3)  # a level is array with a float32 division
MAX_CLIPPED = 1.05  # steps that a 4-bit weight may lie beyond the last level: +8 is stored as 7
# Roundings that trade one weight's error for another's: steps that a weight may be away, and steps
# of the root mean square of 16 neighbours, which share a scale. Calibrated on what
# export/formats/rounding.py does to random and trained weights.
LOOSE = {"scale-search": (1.6, 0.7), "gptq": (8.0, 2.0)}
NEIGHBOURS = 16  # the smallest block


@dataclass(frozen=True, slots=True)
class WeightCheck:
    """The weights of one operator: as the graph has them, how far from the checkpoint, and what is
    wrong.

    weight: None where there is none, or it cannot be read. share: the largest distance as a
    fraction of what quantization explains.
    """

    weight: DequantizedWeight | None = None
    bias: FloatArray | None = None
    share: float = 0.0
    faults: tuple[str, ...] = ()

    @property
    def is_exact(self) -> bool:
        """True where the weight is not quantized."""
        return self.weight is None or not self.weight.step.any()


def check_weights(
    mapped: MappedOperator,
    graph: str,
    config: GPTConfig,
    expected: Mapping[str, FloatArray],
    rounding: str = "nearest",
) -> WeightCheck:
    """Compare an operator's weights with the checkpoint's.

    expected: by name in `GPT.state_dict()`. rounding: "nearest" or one of LOOSE; what the
    quantized weight was made by.
    """
    names = parameters_of(mapped.operator, config)
    if not names:
        return WeightCheck()
    if mapped.operator.name == "embedding":
        return _embedding(mapped, config, names, expected, rounding)
    if mapped.operator.name in (*LINEARS, "lm_head", "task_head"):
        return _linear(mapped, graph, config, names, expected, rounding)
    return _norm(mapped, names, expected)


def _embedding(
    mapped: MappedOperator,
    config: GPTConfig,
    names: tuple[str, ...],
    expected: Mapping[str, FloatArray],
    rounding: str,
) -> WeightCheck:
    try:
        tokens = dequantize.lookup_table(mapped.nodes, onnx_contract.INPUT_IDS)
        if config.n_label is None:
            positions = dequantize.lookup_table(mapped.nodes, onnx_contract.POSITION_IDS)
        else:  # a task counts the tokens itself, or the mask, which is as long
            counted = (onnx_contract.INPUT_IDS, onnx_contract.ATTENTION_MASK)
            positions = dequantize.lookup_table(mapped.nodes, *counted, is_counted=True)
    except UnknownLayout as error:
        return WeightCheck(share=np.inf, faults=(f"its weights cannot be read back: {error}",))
    width = expected[names[0]].shape[1]
    tokens = tokens.map(lambda array: array[:, :width])
    token_share, token_fault = _compare(names[0], tokens, expected[names[0]], rounding)
    position_share, position_fault = _compare(names[1], positions, expected[names[1]])
    faults = tuple(fault for fault in (token_fault, position_fault) if fault)
    return WeightCheck(tokens, None, max(token_share, position_share), faults)


def _linear(
    mapped: MappedOperator,
    graph: str,
    config: GPTConfig,
    names: tuple[str, ...],
    expected: Mapping[str, FloatArray],
    rounding: str,
) -> WeightCheck:
    try:
        weight = dequantize.linear_weight(mapped.nodes)
    except UnknownLayout as error:
        return WeightCheck(share=np.inf, faults=(f"its weights cannot be read back: {error}",))

    def unpad(array: FloatArray, name: str) -> FloatArray:
        return unpad_heads(name, array, config) if graph == "edge" else array

    # another shape than the heads have: the comparison names it
    with contextlib.suppress(ValueError):
        weight = weight.map(lambda array: unpad(array, names[0]))
    share, fault = _compare(names[0], weight, expected[names[0]], rounding)
    faults = [fault] if fault else []
    bias = None
    if len(names) > 1:
        if mapped.bias is None:
            bias = dequantize.linear_bias(mapped.nodes)
        else:
            bias = dequantize.array_of(mapped.bias)
        if bias is None:
            if expected[names[1]].any():
                faults.append(f"{names[1]} is not added")
        else:
            bias = unpad(bias, names[1])
            bias_share, fault = _compare(names[1], _exact(bias), expected[names[1]])
            share = max(share, bias_share)
            faults += [fault] if fault else []
    return WeightCheck(weight, bias, share, tuple(faults))


def _norm(
    mapped: MappedOperator, names: tuple[str, ...], expected: Mapping[str, FloatArray]
) -> WeightCheck:
    inputs = mapped.node.inputs
    first = 2 if mapped.node.op_type == "SkipLayerNormalization" else 1
    faults: list[str] = []
    shares = [0.0]
    for name, index in zip(names, (first, first + 1), strict=True):
        array = dequantize.array_of(inputs[index]) if index < len(inputs) else None
        if array is None:
            share, fault = np.inf, f"{name} is not there"
        else:
            share, fault = _compare(name, _exact(array), expected[name])
        shares.append(share)
        faults += [fault] if fault else []
    return WeightCheck(share=max(shares), faults=tuple(faults))


def _exact(array: FloatArray) -> DequantizedWeight:
    return DequantizedWeight(array.astype(np.float32), np.zeros((1,) * array.ndim, np.float32))


def _compare(
    name: str, actual: DequantizedWeight, expected: FloatArray, rounding: str = "nearest"
) -> tuple[float, str]:
    """The largest difference as a fraction of what quantization explains, and what is wrong, or
    "".
    """
    if actual.values.shape != expected.shape:
        return (
            np.inf,
            f"{name} is {list(actual.values.shape)}, the checkpoint has {list(expected.shape)}",
        )
    difference: NDArray[Any] = np.abs(actual.values - expected)
    step = np.broadcast_to(actual.step, expected.shape)
    allowed: NDArray[Any] = (
        HALF_STEP * step + np.float32(1e-6) * np.abs(expected) + np.float32(1e-12)
    )
    if rounding in LOOSE:
        allowed = LOOSE[rounding][0] * step + np.float32(1e-12)
        if actual.values.ndim == 2:
            difference = np.maximum(
                difference, _neighbours(difference, step) * (allowed / LOOSE[rounding][1])
            )
    elif actual.is_end is not None:
        allowed = np.where(actual.is_end, MAX_CLIPPED * step + np.float32(1e-12), allowed)
    share = difference / allowed
    worst = float(share.max()) if np.isfinite(difference).all() else np.inf
    if worst <= 1:
        return worst, ""
    return worst, _difference_text(name, difference, share, step)


def _difference_text(name: str, difference: FloatArray, share: FloatArray, step: FloatArray) -> str:
    """How many values differ, in which rows, and by how much at most."""
    wrong = ~(share <= 1)
    worst_index = np.unravel_index(int(np.nan_to_num(share, nan=np.inf).argmax()), share.shape)
    rows = np.flatnonzero(wrong.reshape(len(wrong), -1).any(axis=1))
    which = f"row {rows[0]}" if rows.size == 1 else f"{rows.size:,} rows, the first {rows[0]},"
    steps = float(difference[worst_index] / step[worst_index]) if step[worst_index] else 0.0
    size = f"{steps:.3g} steps" if steps else f"{float(difference[worst_index]):.3g}"
    return (
        f"{name} differs from the checkpoint in {int(wrong.sum()):,} of {wrong.size:,} values "
        f"({which} by up to {size})"
    )


def _neighbours(difference: FloatArray, step: FloatArray) -> FloatArray:
    """Root mean square of NEIGHBOURS differences in a row, in steps, for each of them; 0 where
    fewer are left.
    """
    n, k = difference.shape
    whole = k - k % NEIGHBOURS
    steps = np.divide(difference, step, out=np.zeros_like(difference), where=step > 0)
    groups = steps[:, :whole].reshape(n, -1, NEIGHBOURS)
    size = np.sqrt(np.square(groups).mean(-1, keepdims=True))
    return np.pad(np.broadcast_to(size, groups.shape).reshape(n, whole), ((0, 0), (0, k - whole)))
