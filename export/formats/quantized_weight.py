"""A weight matrix as quantization levels, scales and zero points: the value that every way of
rounding returns, and how a file packs it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpt_edge.arrays import ByteArray, FloatArray


@dataclass(frozen=True, slots=True)
class QuantizedWeight:
    """A matrix [N, K] as whole numbers: weight = (level - zero) * scale, in blocks along K, the
    last one filled up.
    """

    bits: int
    levels: ByteArray  # uint8 [N, ceil(K / block), block]
    scales: FloatArray  # [N, ceil(K / block)]
    zeros: ByteArray | None = None  # [N, ceil(K / block)]; None: 2**(bits - 1) everywhere

    def dequantize(self, k: int) -> FloatArray:
        """The float32 [N, k] that a kernel computes with."""
        zero: FloatArray | np.float32 = np.float32(1 << (self.bits - 1))
        if self.zeros is not None:
            zero = self.zeros.astype(np.float32)[..., None]
        values = (self.levels.astype(np.float32) - zero) * self.scales[..., None]
        return np.ascontiguousarray(values.reshape(len(values), -1)[:, :k])

    def signed_levels(self) -> NDArray[np.int8]:
        """int8 levels around 0, of the same shape, for operators without a zero point."""
        half = 1 << (self.bits - 1)
        return (self.levels.astype(np.int16) - half).astype(np.int8)

    def packed_levels(self) -> ByteArray:
        """uint8 [N, blocks, block * bits / 8], low nibble first."""
        if self.bits == 8:
            return self.levels
        return (self.levels[..., 0::2] | (self.levels[..., 1::2] << 4)).astype(np.uint8, copy=False)

    def packed_zeros(self) -> ByteArray | None:
        """MatMulNBits' zero points: uint8 [N, ceil(blocks * bits / 8)]; None where there are
        none.
        """
        if self.zeros is None or self.bits == 8:
            return self.zeros
        even = np.pad(self.zeros, ((0, 0), (0, self.zeros.shape[1] % 2)))
        return (even[:, 0::2] | (even[:, 1::2] << 4)).astype(np.uint8, copy=False)
