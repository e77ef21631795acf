"""Weights on their way into an ONNX file: padded for the edge graph, streamed into one data file.

One tensor is in memory at a time. Knows nothing of nodes.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from gpt_edge import onnx_contract
from gpt_edge.arrays import FloatArray
from gpt_edge.config import GPTConfig
from gpt_edge.tasks import TaskSpec

DATA_FILE = "model.onnx.data"
PAGE = 4096  # bytes; large tensors start on a page, so that onnxruntime can map them
CACHE_LINE = 64  # bytes


class Source(Protocol):
    """Where weights come from: a checkpoint, or an fp32 bundle."""

    @property
    def config(self) -> GPTConfig:
        """The model's shape."""
        ...

    @property
    def task(self) -> TaskSpec | None:
        """The task of a fine-tuned model."""
        ...

    def tensor(self, name: str) -> FloatArray:
        """The parameter `name` of `GPT.state_dict()`, float32; of a task also those of its head."""
        ...

    def release(self, name: str) -> None:
        """Give back the memory behind a tensor that was read; the caller is done with it."""
        ...


def pad_heads(name: str, array: FloatArray, config: GPTConfig) -> FloatArray:
    """Return a parameter of an attention layer with every head padded with zeros to the cache's
    head size.

    c_attn: [3C, C] -> [3HD', C], its bias [3C] -> [3HD']; c_proj: [C, C] -> [C, HD']. Others come
    back as they are.
    """
    heads, size, padded = (
        config.n_head,
        config.head_size,
        onnx_contract.cache_head_size(config, "edge"),
    )
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
    heads, size, padded = (
        config.n_head,
        config.head_size,
        onnx_contract.cache_head_size(config, "edge"),
    )
    if size == padded or ".attn." not in name:
        return array
    if name.endswith("c_attn.weight"):
        return array.reshape(3, heads, padded, -1)[:, :, :size].reshape(3 * heads * size, -1)
    if name.endswith("c_attn.bias"):
        return array.reshape(3, heads, padded)[:, :, :size].reshape(-1)
    if name.endswith("c_proj.weight"):
        return array.reshape(-1, heads, padded)[:, :, :size].reshape(-1, heads * size)
    return array


class WeightsFile:
    """The one data file beside an ONNX graph. Tensors are appended and come back as references into
    it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BinaryIO = (folder / DATA_FILE).open("wb")

    def __enter__(self) -> WeightsFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(
        self, name: str, array: NDArray[Any], *, int4_shape: tuple[int, ...] | None = None
    ) -> ir.ExternalTensor:
        """Append `array`. With `int4_shape` its bytes hold two int4 each, low nibble first. Raises
        OSError.
        """
        array = np.ascontiguousarray(array)
        alignment = PAGE if array.nbytes >= PAGE else CACHE_LINE
        self._file.write(b"\0" * (-self._file.tell() % alignment))
        offset = self._file.tell()
        if (
            self._file.write(array.data.cast("B") if array.ndim else array.tobytes())
            != array.nbytes
        ):
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
