"""GPTQ (Frantar et al. 2022, arXiv 2210.17323, algorithm 1): rounds one input column after the
other and moves the error onto the columns that are not yet rounded, with the inverse of H = X^T X
of calibration activations X.

Columns are taken in the order of falling diag(H), scales are fixed beforehand ("act order" with
"static groups" in the authors' code), and H is dampened.

Why own code: onnxruntime's quantizer has a GPTQ for MatMulNBits (`quantization/neural_compressor`,
read in 1.31.1), but for 4 bits and the MatMuls of a whole graph alone, and it rounds the result
again with new scales; with act order, in other groups. gptqmodel and llm-compressor quantize
transformers models, auto-gptq and autoawq have been given up. Here tensors come one by one from a
stream, in 4 or 8 bits, and the levels that GPTQ chose are those that are stored.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gpt_edge.arrays import FloatArray
from gpt_edge.errors import NumericError
from gpt_edge.export.formats.quantized_weight import QuantizedWeight
from gpt_edge.export.formats.scales import find_scales, inverse_scale, split_blocks
from gpt_edge.export.formats.tensor_format import TensorFormat

DAMPENING = 0.01  # of the mean of diag(H), the paper's value
MAX_DAMPENING = 1.0
LAZY_COLUMNS = 128  # columns rounded before the others are updated (algorithm 1's blocks)


def gptq(
    weight: FloatArray, bits: int, block_size: int, hessian: Tensor, *, symmetric: bool = True
) -> QuantizedWeight:
    """GPTQ of [N, K] with H = X^T X [K, K] in blocks of `block_size`. Inputs that were always 0 are
    rounded to nearest.

    Raises NumericError where H is not finite or stays singular under MAX_DAMPENING.
    """
    n, k = weight.shape
    form = TensorFormat(bits, 0, symmetric, "scale-search")
    importance = hessian.diagonal().to(torch.float32).clamp(min=0)
    rows = torch.from_numpy(np.array(weight, np.float32, order="C"))
    blocks = split_blocks(rows, block_size)
    scale, zero = find_scales(blocks, form, split_blocks(importance[None], block_size))
    order = torch.argsort(importance, descending=True, stable=True)
    # [K, N], one column to a row
    columns = torch.from_numpy(np.array(weight.T, np.float32, order="C"))[order]
    ordered_levels = torch.empty((k, n), dtype=torch.uint8)
    _compensate(
        columns,
        _inverse_factor(hessian, order),
        scale.T.contiguous(),
        zero.T.contiguous(),
        (order // block_size).tolist(),
        bits,
        ordered_levels,
    )
    zeros = zero.to(torch.uint8)
    levels = zeros[..., None].repeat(1, 1, block_size).reshape(n, -1)  # what fills up a block is 0
    levels[:, order] = ordered_levels.T
    return QuantizedWeight(
        bits,
        levels.reshape(n, -1, block_size).numpy(),
        scale.numpy(),
        None if symmetric else zeros.numpy(),
    )


def _compensate(
    columns: Tensor,
    factor: Tensor,
    scale: Tensor,
    zero: Tensor,
    block_of: list[int],
    bits: int,
    levels: Tensor,
) -> None:
    """Algorithm 1: round the rows of `columns` [K, N] in order, into `levels`.

    factor: the upper Cholesky factor of H^-1. scale, zero: [blocks, N]; block_of: of each row.
    `columns` is changed in place.
    """
    n_columns, top = len(columns), (1 << bits) - 1
    inverse = inverse_scale(scale)
    for start in range(0, n_columns, LAZY_COLUMNS):
        stop = min(start + LAZY_COLUMNS, n_columns)
        errors = torch.empty((stop - start, columns.shape[1]))
        for i in range(start, stop):
            row, block = columns[i], block_of[i]
            level = (row * inverse[block]).round_().add_(zero[block]).clamp_(0, top)
            levels[i] = level.to(torch.uint8)
            error = (row - (level - zero[block]) * scale[block]) / factor[i, i]
            errors[i - start] = error
            columns[i + 1 : stop].addr_(factor[i, i + 1 : stop], error, alpha=-1)
        columns[stop:].addmm_(factor[start:stop, stop:].T, errors, alpha=-1)


def _inverse_factor(hessian: Tensor, order: Tensor) -> Tensor:
    """Upper Cholesky factor of (H + damp)^-1 in the given order, float32 [K, K]; more damp where H
    is singular.
    """
    ordered = hessian.to(torch.float64)[order][:, order]
    if not bool(torch.isfinite(ordered).all()):
        raise NumericError(
            "the calibration activations are not finite: the model overflows on this text"
        )
    mean = float(ordered.diagonal().mean()) or 1.0
    damp = DAMPENING
    while damp <= MAX_DAMPENING:
        dampened = ordered.clone()
        dampened.diagonal().add_(damp * mean)
        lower, info = torch.linalg.cholesky_ex(dampened)
        if int(info) == 0:
            upper, info = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if int(info) == 0:
                factor: Tensor = upper.to(torch.float32)
                return factor
        damp *= 10
    raise NumericError(
        "the Hessian of the calibration activations cannot be inverted",
        hint="give more --calibration text",
    )
