"""Weights on their way into an ONNX file: padded for the edge graph, quantised by blocks, streamed into one data file.

One tensor is in memory at a time. Knows nothing of nodes.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from gpt_edge import graph as contract
from gpt_edge.config import GPTConfig

FloatArray = NDArray[np.float32]
ByteArray = NDArray[np.uint8]

DATA_FILE = "model.onnx.data"
PAGE = 4096  # bytes; large tensors start on a page, so that onnxruntime can map them
CACHE_LINE = 64  # bytes
ROWS_AT_ONCE = 1 << 24  # values quantised in one go: bounds the working memory at a few hundred MB


class Source(Protocol):
    """Where weights come from: a checkpoint, or an fp32 bundle."""

    @property
    def config(self) -> GPTConfig:
        """The model's shape."""
        ...

    def tensor(self, name: str) -> FloatArray:
        """The parameter `name` of `GPT.state_dict()`, float32."""
        ...

    def release(self, name: str) -> None:
        """Give back the memory behind a tensor that was read; the caller is done with it."""
        ...


def pad_heads(name: str, array: FloatArray, config: GPTConfig) -> FloatArray:
    """Return a parameter of an attention layer with every head padded with zeros to the cache's head size.

    c_attn: [3C, C] -> [3HD', C], its bias [3C] -> [3HD']; c_proj: [C, C] -> [C, HD']. Others come back as they are.
    """
    heads, size, padded = config.n_head, config.head_size, contract.cache_head_size(config, "edge")
    if size == padded or ".attn." not in name:
        return array
    extra = padded - size
    if name.endswith("c_attn.weight"):
        rows = array.reshape(3, heads, size, -1)
        return np.pad(rows, ((0, 0), (0, 0), (0, extra), (0, 0))).reshape(3 * heads * padded, -1)
    if name.endswith("c_attn.bias"):
        return np.pad(array.reshape(3, heads, size), ((0, 0), (0, 0), (0, extra))).reshape(-1)
    if name.endswith("c_proj.weight"):
        columns = array.reshape(-1, heads, size)
        return np.pad(columns, ((0, 0), (0, 0), (0, extra))).reshape(-1, heads * padded)
    return array


def unpad_heads(name: str, array: FloatArray, config: GPTConfig) -> FloatArray:
    """The inverse of `pad_heads`."""
    heads, size, padded = config.n_head, config.head_size, contract.cache_head_size(config, "edge")
    if size == padded or ".attn." not in name:
        return array
    if name.endswith("c_attn.weight"):
        return array.reshape(3, heads, padded, -1)[:, :, :size].reshape(3 * heads * size, -1)
    if name.endswith("c_attn.bias"):
        return array.reshape(3, heads, padded)[:, :, :size].reshape(-1)
    if name.endswith("c_proj.weight"):
        return array.reshape(-1, heads, padded)[:, :, :size].reshape(-1, heads * size)
    return array


def quantize_blocks(weight: FloatArray, bits: int, block_size: int) -> tuple[ByteArray, FloatArray]:
    """Symmetric quantisation of [N, K] in blocks along K; a last, shorter block is filled with zeros.

    Returns uint8 [N, ceil(K / block), block * bits / 8] around the zero point 2**(bits - 1), low nibble first, and
    float32 scales [N, ceil(K / block)]. 8 bits: scale = max|w| / 127. 4 bits: of max|w| / 7 and the signed extreme / -8
    (which uses the whole range, as llama.cpp's Q4_0 does) the one with the smaller squared error, block by block.
    """
    levels, scales = quantize_levels(weight, bits, block_size)
    if bits == 4:
        levels = (levels[..., 0::2] | (levels[..., 1::2] << 4)).astype(np.uint8, copy=False)
    return levels, scales


def quantize_levels(weight: FloatArray, bits: int, block_size: int) -> tuple[ByteArray, FloatArray]:
    """As `quantize_blocks`, one level to a byte: uint8 [N, ceil(K / block), block]."""
    n, k = weight.shape
    n_blocks = -(-k // block_size)
    levels = np.empty((n, n_blocks, block_size), np.uint8)
    scales = np.empty((n, n_blocks), np.float32)
    step = max(1, ROWS_AT_ONCE // (n_blocks * block_size))
    for start in range(0, n, step):
        rows = np.asarray(weight[start : start + step], np.float32)
        if k % block_size:
            rows = np.pad(rows, ((0, 0), (0, n_blocks * block_size - k)))
        blocks = rows.reshape(len(rows), n_blocks, block_size)
        levels[start : start + step], scales[start : start + step] = _round8(blocks) if bits == 8 else _round4(blocks)
    return levels, scales


def _levels(blocks: FloatArray, scale: FloatArray, bits: int) -> ByteArray:
    zero = 1 << (bits - 1)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    levels = np.rint(blocks * inverse[..., None])
    return (np.clip(levels, -zero, zero - 1) + zero).astype(np.uint8)


def _round8(blocks: FloatArray) -> tuple[ByteArray, FloatArray]:
    scale = (np.abs(blocks).max(-1) / np.float32(127)).astype(np.float32, copy=False)
    return _levels(blocks, scale, 8), scale


def _round4(blocks: FloatArray) -> tuple[ByteArray, FloatArray]:
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(-1, keepdims=True), -1)[..., 0]
    positive = (np.abs(extreme) / np.float32(7)).astype(np.float32, copy=False)
    signed = (extreme / np.float32(-8)).astype(np.float32, copy=False)
    one, other = _levels(blocks, positive, 4), _levels(blocks, signed, 4)
    is_better = _squared_error(blocks, other, signed) < _squared_error(blocks, one, positive)
    return np.where(is_better[..., None], other, one), np.where(is_better, signed, positive)


def _squared_error(blocks: FloatArray, levels: ByteArray, scale: FloatArray) -> FloatArray:
    error: FloatArray = np.square((levels.astype(np.float32) - 8) * scale[..., None] - blocks).sum(-1)
    return error


def quantize_columns(weight: FloatArray) -> tuple[NDArray[np.int8], FloatArray]:
    """Symmetric int8 with one scale for each row of [N, K]: int8 [N, K] and float32 [N]."""
    levels, scales = quantize_levels(weight, 8, weight.shape[1])
    return (levels[:, 0].astype(np.int16) - 128).astype(np.int8), scales[:, 0]


class WeightsFile:
    """The one data file beside an ONNX graph. Tensors are appended and come back as references into it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BinaryIO = (folder / DATA_FILE).open("wb")

    def __enter__(self) -> WeightsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, name: str, array: NDArray[Any], *, int4_shape: tuple[int, ...] | None = None) -> ir.ExternalTensor:
        """Append `array`. With `int4_shape` its bytes hold two int4 each, low nibble first. Raises OSError."""
        array = np.ascontiguousarray(array)
        alignment = PAGE if array.nbytes >= PAGE else CACHE_LINE
        self._file.write(b"\0" * (-self._file.tell() % alignment))
        offset = self._file.tell()
        if self._file.write(array.data.cast("B") if array.ndim else array.tobytes()) != array.nbytes:
            raise OSError(f"short write of {name} into {self._folder / DATA_FILE}")
        return ir.ExternalTensor(
            DATA_FILE,
            offset,
            array.nbytes,
            ir.DataType.INT4 if int4_shape else ir.DataType.from_numpy(array.dtype),
            shape=ir.Shape(int4_shape or array.shape),
            name=name,
            base_dir=self._folder,
        )
