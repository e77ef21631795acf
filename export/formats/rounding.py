"""Weights to 4 and 8 bits with less damage than rounding to nearest: a search for the scale, and
GPTQ.

Scale search needs no data: every block tries 19 scales around the usual one, refits each by least
squares, and keeps the best (llama.cpp's `make_qx_quants`, which its k-quants use; with the diagonal
of the Hessian as weights, its imatrix). GPTQ (Frantar et al. 2022, arXiv 2210.17323, algorithm 1)
rounds one input column after the other and moves the error onto the columns not yet rounded, with
the inverse of H = X^T X of calibration activations X; columns in the order of falling diag(H),
scales fixed beforehand ("act order" with "static groups" in the authors' code), H dampened.

Why own code: onnxruntime's quantiser has a GPTQ for MatMulNBits (`quantization/neural_compressor`,
read in 1.31.1), but for 4 bits and the MatMuls of a whole graph alone, and it rounds the result
again with new scales; with act order, in other groups. gptqmodel and llm-compressor quantise
transformers models, auto-gptq and autoawq have been given up. Here tensors come one by one from a
stream, in 4 or 8 bits, and the levels that GPTQ chose are those that are stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gpt_edge.arrays import ByteArray, FloatArray
from gpt_edge.errors import NumericError
from gpt_edge.export.formats.tensor_format import TensorFormat

# weights rounded in one go: what a core keeps in its cache, five times faster than 1 << 22
VALUES_AT_ONCE = 1 << 17
SEARCH_STEPS = 19  # scales that a block tries
DAMPENING = 0.01  # of the mean of diag(H), the paper's value
MAX_DAMPENING = 1.0
LAZY_COLUMNS = 128  # columns rounded before the others are updated (algorithm 1's blocks)


@dataclass(frozen=True, slots=True)
class Rounded:
    """A matrix [N, K] as whole numbers: weight = (level - zero) * scale, in blocks along K, the
    last one filled up.
    """

    bits: int
    levels: ByteArray  # uint8 [N, ceil(K / block), block]
    scales: FloatArray  # [N, ceil(K / block)]
    zeros: ByteArray | None = None  # [N, ceil(K / block)]; None: 2**(bits - 1) everywhere

    def dequantize(self, k: int) -> FloatArray:
        """The float32 [N, k] that a kernel computes with."""
        zero = (
            np.float32(1 << (self.bits - 1))
            if self.zeros is None
            else self.zeros.astype(np.float32)[..., None]
        )
        values = (self.levels.astype(np.float32) - zero) * self.scales[..., None]
        return np.ascontiguousarray(values.reshape(len(values), -1)[:, :k])

    def packed_levels(self) -> ByteArray:
        """uint8 [N, blocks, block * bits / 8], low nibble first."""
        if self.bits == 8:
            return self.levels
        return (self.levels[..., 0::2] | (self.levels[..., 1::2] << 4)).astype(np.uint8, copy=False)

    def packed_zeros(self) -> ByteArray | None:
        """MatMulNBits' zero points: uint8 [N, ceil(blocks * bits / 8)]; None where there
        are none.
        """
        if self.zeros is None or self.bits == 8:
            return self.zeros
        even = np.pad(self.zeros, ((0, 0), (0, self.zeros.shape[1] % 2)))
        return (even[:, 0::2] | (even[:, 1::2] << 4)).astype(np.uint8, copy=False)


# by name: what was prepared for it is found
RoundWeight = Callable[[str, FloatArray, TensorFormat], Rounded]


def round_tensor(
    weight: FloatArray, form: TensorFormat, block_size: int, hessian: Tensor | None = None
) -> Rounded:
    """Round [N, K] as `form` says, in blocks of `block_size` (form's own, or what divides K).

    hessian: X^T X, [K, K], wanted by gptq; scale-search takes its diagonal as weights where it is
    given. The result depends on nothing but the arguments. Raises NumericError where H is not
    finite.
    """
    if form.rounding == "gptq":
        if hessian is None:
            raise ValueError("gptq needs the Hessian of calibration activations")
        return gptq(weight, form.bits, block_size, hessian, symmetric=form.symmetric)
    importance = None
    if form.rounding == "scale-search" and hessian is not None:
        importance = hessian.diagonal().to(torch.float32).clamp(min=0)
    return _by_rows(weight, form, block_size, importance)


def _by_rows(
    weight: FloatArray, form: TensorFormat, block_size: int, importance: Tensor | None
) -> Rounded:
    n, k = weight.shape
    n_blocks = -(-k // block_size)
    levels = np.empty((n, n_blocks, block_size), np.uint8)
    scales = np.empty((n, n_blocks), np.float32)
    zeros = None if form.symmetric else np.empty((n, n_blocks), np.uint8)
    step = max(1, VALUES_AT_ONCE // (n_blocks * block_size))
    weights = _blocks(importance[None], block_size) if importance is not None else None
    for start in range(0, n, step):
        rows = torch.from_numpy(np.array(weight[start : start + step], np.float32, order="C"))
        blocks = _blocks(rows, block_size)
        scale, zero = find_scales(blocks, form, weights)
        part = to_levels(blocks, scale, zero, form.bits)
        levels[start : start + step], scales[start : start + step] = part.numpy(), scale.numpy()
        if zeros is not None:
            zeros[start : start + step] = zero.numpy()
    return Rounded(form.bits, levels, scales, zeros)


def _blocks(rows: Tensor, block_size: int) -> Tensor:
    """[R, K] -> [R, ceil(K / block), block], zeros at the end."""
    missing = -rows.shape[1] % block_size
    padded = torch.nn.functional.pad(rows, (0, missing)) if missing else rows
    return padded.reshape(len(rows), -1, block_size)


def to_levels(blocks: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """uint8 levels of [..., block] for scales and zero points [...]; a scale of 0 gives the zero
    point.
    """
    inverse = torch.where(scale == 0, 0.0, 1.0 / scale)
    levels = (blocks * inverse[..., None]).round_().add_(zero[..., None])
    return levels.clamp_(0, (1 << bits) - 1).to(torch.uint8)


def find_scales(
    blocks: Tensor, form: TensorFormat, importance: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scales float32 [R, blocks] and zero points float32 of the same shape, for [R, blocks, block].

    nearest: 8 bits take max|w| / 127, 4 bits of max|w| / 7 and the signed extreme / -8 the one with
    the smaller squared error. Asymmetric blocks span min .. max and 0. importance
    [1 or R, blocks, block] weighs squared errors.
    """
    first = _first_scales(blocks, form.bits, form.symmetric)
    if form.rounding != "nearest":
        return _search(blocks, form, first, importance)
    if form.bits == 8 or not form.symmetric:
        scale, zero = first
        if form.bits == 8 and form.symmetric:
            scale = blocks.abs().amax(-1) / 127
        return scale, zero
    signed, zero = first
    positive = blocks.abs().amax(-1) / 7
    is_better = _squared_error(blocks, signed) < _squared_error(blocks, positive)
    return torch.where(is_better, signed, positive), zero


def _first_scales(blocks: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    half = 1 << (bits - 1)
    if symmetric:
        low, high = blocks.amin(-1), blocks.amax(-1)
        extreme = torch.where(low.abs() >= high.abs(), low, high)
        return extreme / -half, torch.full_like(extreme, half)
    low, high = blocks.amin(-1).clamp(max=0), blocks.amax(-1).clamp(min=0)
    scale = (high - low) / (2 * half - 1)
    zero = torch.where(scale == 0, 0.0, (-low / scale).round()).clamp(0, 2 * half - 1)
    return scale, zero


def _squared_error(blocks: Tensor, scale: Tensor) -> Tensor:
    """Of symmetric 4 bits, [R, blocks]."""
    inverse = torch.where(scale == 0, 0.0, 1.0 / scale)
    error = (blocks * inverse[..., None]).round_().clamp_(-8, 7).mul_(scale[..., None]).sub_(blocks)
    return error.square_().sum(-1)


def _search(
    blocks: Tensor, form: TensorFormat, first: tuple[Tensor, Tensor], importance: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Try SEARCH_STEPS scales for each block, each refitted by least squares, and keep the one with
    the least error.
    """
    n_levels = 1 << form.bits
    base, best_zero = first
    best_gain = torch.full_like(base, -1.0)
    best_scale = base.clone()
    reach = n_levels / 2 if form.symmetric else float(n_levels - 1)
    for step in range(SEARCH_STEPS):
        # Symmetric: the extreme lies at 7.1 to 8.9 levels. Asymmetric: up to a fifth of the range
        # is clipped.
        wanted = (
            reach + (step - SEARCH_STEPS // 2) * 0.1 if form.symmetric else reach * (1 + step / 80)
        )
        scale = base * (reach / wanted)
        zero = best_zero if form.symmetric else _zero_of(blocks, scale, n_levels)
        best_gain, best_scale, best_zero = _keep_better(
            blocks, scale, zero, n_levels, importance, (best_gain, best_scale, best_zero)
        )
    # The refitted scale rounds a few weights to another level: once more with those.
    result = _keep_better(
        blocks, best_scale, best_zero, n_levels, importance, (best_gain, best_scale, best_zero)
    )
    return result[1], result[2]


def _zero_of(blocks: Tensor, scale: Tensor, n_levels: int) -> Tensor:
    low = blocks.amin(-1).clamp(max=0)
    return torch.where(scale == 0, 0.0, (-low / scale).round()).clamp(0, n_levels - 1)


def _keep_better(
    blocks: Tensor,
    scale: Tensor,
    zero: Tensor,
    n_levels: int,
    importance: Tensor | None,
    best: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gain (what the rounded block explains of the block's weighted squares), scale and zero point,
    block by block.
    """
    inverse = torch.where(scale == 0, 0.0, 1.0 / scale)
    zeros = zero[..., None]
    levels = (blocks * inverse[..., None]).add_(zeros).round_().clamp_(0, n_levels - 1).sub_(zeros)
    weighted = levels if importance is None else levels * importance
    dot, square = torch.linalg.vecdot(weighted, blocks), torch.linalg.vecdot(weighted, levels)
    fitted = torch.where(square > 0, dot / square, 0.0)
    gain = dot * fitted
    is_better = gain > best[0]
    return (
        torch.where(is_better, gain, best[0]),
        torch.where(is_better & (fitted != 0), fitted, best[1]),
        torch.where(is_better, zero, best[2]),
    )


def gptq(
    weight: FloatArray, bits: int, block_size: int, hessian: Tensor, *, symmetric: bool = True
) -> Rounded:
    """GPTQ of [N, K] with H = X^T X [K, K] in blocks of `block_size`. Inputs that were always 0 are
    rounded to nearest.

    Raises NumericError where H is not finite or stays singular under MAX_DAMPENING.
    """
    n, k = weight.shape
    form = TensorFormat(bits, 0, symmetric, "scale-search")
    importance = hessian.diagonal().to(torch.float32).clamp(min=0)
    blocks = _blocks(torch.from_numpy(np.array(weight, np.float32, order="C")), block_size)
    scale, zero = find_scales(blocks, form, _blocks(importance[None], block_size))
    order = torch.argsort(importance, descending=True, stable=True)
    # [K, N], one column to a row
    columns = torch.from_numpy(np.array(weight.T, np.float32, order="C"))[order]
    group = (order // block_size).tolist()
    levels = torch.empty((k, n), dtype=torch.uint8)
    _compensate(
        columns,
        _inverse_factor(hessian, order),
        scale.T.contiguous(),
        zero.T.contiguous(),
        group,
        bits,
        levels,
    )
    full = zero.to(torch.uint8)[..., None].repeat(1, 1, block_size).reshape(n, -1)
    full[:, order] = levels.T
    return Rounded(
        bits,
        full.reshape(n, -1, block_size).numpy(),
        scale.numpy(),
        None if symmetric else zero.to(torch.uint8).numpy(),
    )


def _compensate(
    columns: Tensor,
    factor: Tensor,
    scale: Tensor,
    zero: Tensor,
    group: list[int],
    bits: int,
    levels: Tensor,
) -> None:
    """Algorithm 1: round the rows of `columns` [K, N] in order, into `levels`; `factor` is the
    upper Cholesky of H^-1.
    """
    k, top = len(columns), (1 << bits) - 1
    inverse = torch.where(scale == 0, 0.0, 1.0 / scale)
    for start in range(0, k, LAZY_COLUMNS):
        stop = min(start + LAZY_COLUMNS, k)
        errors = torch.empty((stop - start, columns.shape[1]))
        for i in range(start, stop):
            row, at = columns[i], group[i]
            level = (row * inverse[at]).round_().add_(zero[at]).clamp_(0, top)
            levels[i] = level.to(torch.uint8)
            error = (row - (level - zero[at]) * scale[at]) / factor[i, i]
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
