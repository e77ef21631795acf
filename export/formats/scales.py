"""Scales and zero points of blocks of weights: the usual ones, or the best of a search.

The search needs no data: every block tries 19 scales around the usual one, refits each by least
squares, and keeps the best (llama.cpp's `make_qx_quants`, which its k-quants use; with the diagonal
of the Hessian as weights, its imatrix).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gpt_edge.export.formats.tensor_format import TensorFormat

SEARCH_STEPS = 19  # scales that a block tries


class BlockScales(NamedTuple):
    """The best scale and zero point of each block so far, and how much they gain, all [R, blocks].

    gain: what the quantized block explains of the block's weighted squares.
    """

    gain: Tensor
    scale: Tensor
    zero: Tensor


def split_blocks(rows: Tensor, block_size: int) -> Tensor:
    """[R, K] -> [R, ceil(K / block), block], zeros at the end."""
    missing = -rows.shape[1] % block_size
    padded = torch.nn.functional.pad(rows, (0, missing)) if missing else rows
    return padded.reshape(len(rows), -1, block_size)


def inverse_scale(scale: Tensor) -> Tensor:
    """1 / scale, and 0 where the scale is 0."""
    return torch.where(scale == 0, 0.0, 1.0 / scale)


def to_levels(blocks: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """uint8 levels of [..., block] for scales and zero points [...]; a scale of 0 gives the zero
    point.
    """
    levels = (blocks * inverse_scale(scale)[..., None]).round_().add_(zero[..., None])
    return levels.clamp_(0, (1 << bits) - 1).to(torch.uint8)


def find_scales(
    blocks: Tensor, form: TensorFormat, importance: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scales float32 [R, blocks] and zero points float32 of the same shape, for [R, blocks, block].

    nearest: 8 bits take max|w| / 127; 4 bits take that of max|w| / 7 and the signed extreme / -8
    with the smaller squared error. Asymmetric blocks span min .. max and 0.
    importance [1 or R, blocks, block]: weights of the squared errors.
    """
    if form.rounding != "nearest":
        return _search(blocks, form, importance)
    if not form.symmetric:
        return _asymmetric_scales(blocks, form.bits)
    signed, zero = _symmetric_scales(blocks, form.bits)
    if form.bits == 8:
        return blocks.abs().amax(-1) / 127, zero
    positive = blocks.abs().amax(-1) / 7
    is_better = _squared_error(blocks, signed) < _squared_error(blocks, positive)
    return torch.where(is_better, signed, positive), zero


def _symmetric_scales(blocks: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The value of the largest magnitude becomes the lowest level, which lies farthest from 0."""
    half = 1 << (bits - 1)
    low, high = blocks.amin(-1), blocks.amax(-1)
    extreme = torch.where(low.abs() >= high.abs(), low, high)
    return extreme / -half, torch.full_like(extreme, half)


def _asymmetric_scales(blocks: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    top = (1 << bits) - 1
    low, high = blocks.amin(-1).clamp(max=0), blocks.amax(-1).clamp(min=0)
    scale = (high - low) / top
    return scale, _zero_points(low, scale, top)


def _zero_points(low: Tensor, scale: Tensor, top: int) -> Tensor:
    """The levels from 0 to `top` that stand for 0 where the lowest level stands for `low`."""
    return torch.where(scale == 0, 0.0, (-low / scale).round()).clamp(0, top)


def _squared_error(blocks: Tensor, scale: Tensor) -> Tensor:
    """Of symmetric 4 bits, [R, blocks]."""
    levels = (blocks * inverse_scale(scale)[..., None]).round_().clamp_(-8, 7)
    return levels.mul_(scale[..., None]).sub_(blocks).square_().sum(-1)


def _search(blocks: Tensor, form: TensorFormat, importance: Tensor | None) -> tuple[Tensor, Tensor]:
    """Try SEARCH_STEPS scales for each block, each refitted by least squares, and keep the one with
    the least error.
    """
    top = (1 << form.bits) - 1
    if form.symmetric:
        base, zero = _symmetric_scales(blocks, form.bits)
        reach = (top + 1) / 2
    else:
        base, zero = _asymmetric_scales(blocks, form.bits)
        reach = float(top)
    best = BlockScales(torch.full_like(base, -1.0), base.clone(), zero)
    for step in range(SEARCH_STEPS):
        if form.symmetric:
            # the extreme lies at 7.1 to 8.9 levels
            n_levels = reach + (step - SEARCH_STEPS // 2) * 0.1
        else:
            # up to a fifth of the range is clipped
            n_levels = reach * (1 + step / 80)
        scale = base * (reach / n_levels)
        if form.symmetric:
            zero = best.zero
        else:
            zero = _zero_points(blocks.amin(-1).clamp(max=0), scale, top)
        best = _keep_better(blocks, scale, zero, top, importance, best)
    # The refitted scale rounds a few weights to another level: once more with those.
    best = _keep_better(blocks, best.scale, best.zero, top, importance, best)
    return best.scale, best.zero


def _keep_better(
    blocks: Tensor,
    scale: Tensor,
    zero: Tensor,
    top: int,
    importance: Tensor | None,
    best: BlockScales,
) -> BlockScales:
    """Refit `scale` to the levels that it gives, and keep it for the blocks where it gains more."""
    zeros = zero[..., None]
    levels = (blocks * inverse_scale(scale)[..., None]).add_(zeros).round_()
    levels = levels.clamp_(0, top).sub_(zeros)
    weighted = levels if importance is None else levels * importance
    dot = torch.linalg.vecdot(weighted, blocks)
    square = torch.linalg.vecdot(weighted, levels)
    fitted = torch.where(square > 0, dot / square, 0.0)
    gain = dot * fitted
    is_better = gain > best.gain
    return BlockScales(
        torch.where(is_better, gain, best.gain),
        torch.where(is_better & (fitted != 0), fitted, best.scale),
        torch.where(is_better, zero, best.zero),
    )
