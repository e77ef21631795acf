"""Quantizes one weight as its format says: to nearest, with a search for the scales, or by GPTQ.

The last two lose less than rounding to nearest; `scales.py` and `gptq.py` say how.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gpt_edge.arrays import FloatArray
from gpt_edge.export.formats.gptq import gptq
from gpt_edge.export.formats.quantized_weight import QuantizedWeight
from gpt_edge.export.formats.scales import find_scales, split_blocks, to_levels
from gpt_edge.export.formats.tensor_format import TensorFormat

# weights quantized in one go: what a core keeps in its cache, five times faster than 1 << 22
VALUES_AT_ONCE = 1 << 17

# Called with a parameter's name too: what was quantized beforehand is found by it.
WeightQuantizer = Callable[[str, FloatArray, TensorFormat], QuantizedWeight]


def quantize_weight(
    weight: FloatArray, form: TensorFormat, block_size: int, hessian: Tensor | None = None
) -> QuantizedWeight:
    """Quantize [N, K] as `form` says, in blocks of `block_size` (form's own, or what divides K).

    hessian: X^T X, [K, K], required by gptq; scale-search takes its diagonal as weights where it is
    given. The result depends on nothing but the arguments. Raises NumericError where H is not
    finite.
    """
    if form.rounding == "gptq":
        if hessian is None:
            raise ValueError("gptq needs the Hessian of calibration activations")
        return gptq(weight, form.bits, block_size, hessian, symmetric=form.symmetric)
    importance = None
    if form.rounding == "scale-search" and hessian is not None:
        diagonal = hessian.diagonal().to(torch.float32).clamp(min=0)
        importance = split_blocks(diagonal[None], block_size)
    return _quantize_rows(weight, form, block_size, importance)


def _quantize_rows(
    weight: FloatArray, form: TensorFormat, block_size: int, importance: Tensor | None
) -> QuantizedWeight:
    """Every block by itself, a few rows at once. importance: [1, blocks, block]."""
    n, k = weight.shape
    n_blocks = -(-k // block_size)
    levels = np.empty((n, n_blocks, block_size), np.uint8)
    scales = np.empty((n, n_blocks), np.float32)
    zeros = None if form.symmetric else np.empty((n, n_blocks), np.uint8)
    step = max(1, VALUES_AT_ONCE // (n_blocks * block_size))
    for start in range(0, n, step):
        rows = torch.from_numpy(np.array(weight[start : start + step], np.float32, order="C"))
        blocks = split_blocks(rows, block_size)
        scale, zero = find_scales(blocks, form, importance)
        levels[start : start + step] = to_levels(blocks, scale, zero, form.bits).numpy()
        scales[start : start + step] = scale.numpy()
        if zeros is not None:
            zeros[start : start + step] = zero.numpy()
    return QuantizedWeight(form.bits, levels, scales, zeros)
