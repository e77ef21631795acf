"""The data file beside an ONNX graph: weights are appended one at a time, so that one tensor is in
memory. Knows nothing of nodes.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

# of each graph; transformers.js and Optimum look for the portable one's name
DATA_FILES = {"edge": "model.onnx.data", "portable": "model.onnx_data"}
PAGE = 4096  # bytes; large tensors start on a page, so that onnxruntime can map them
CACHE_LINE = 64  # bytes


class WeightsFile:
    """The one data file beside an ONNX graph. Tensors are appended and come back as references into
    it.
    """

    def __init__(self, folder: Path, graph: str) -> None:
        self._folder = folder
        self._name = DATA_FILES[graph]
        self._file: BinaryIO = (folder / self._name).open("wb")

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
        content = array.data.cast("B") if array.ndim else array.tobytes()
        if self._file.write(content) != array.nbytes:
            raise OSError(f"short write of {name} into {self._folder / self._name}")
        return ir.ExternalTensor(
            self._name,
            offset,
            array.nbytes,
            ir.DataType.INT4 if int4_shape else ir.DataType.from_numpy(array.dtype),
            shape=ir.Shape(int4_shape or array.shape),
            name=name,
            base_dir=self._folder,
        )
