"""How each weight is stored: bits, block, rounding, and what its product does with the activations.
Values only.

A plan gives every linear layer and table of a model its format, by parameter name; schemes are
uniform plans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Rounding = Literal["nearest", "gptq", "scale-search"]
Activations = Literal["block", "row", "float"]
BITS = (4, 8, 16, 32)
ROUNDINGS: tuple[Rounding, ...] = ("nearest", "gptq", "scale-search")
SMALLEST_BLOCK = 16  # MatMulNBits refuses smaller ones
SCALE_BYTES = 4  # scales are float32, as MatMulNBits wants them beside float32 activations


@dataclass(frozen=True, slots=True)
class TensorFormat:
    """One way to store a weight matrix [N, K]. Raises ValueError for a combination that no kernel
    computes.

    block_size: weights along K that share a scale; 0 is a whole row, and what float weights have.
    activations: how a product of this weight rounds its input: to 8 bits with one scale for each
    row and block ("block"), for each row ("row"), or not at all ("float").
    """

    bits: int
    block_size: int = 0
    symmetric: bool = True
    rounding: Rounding = "nearest"
    activations: Activations = "block"

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise ValueError(f"bits must be one of {', '.join(map(str, BITS))}, got {self.bits}")
        if self.rounding not in ROUNDINGS:
            raise ValueError(
                f"rounding must be one of {', '.join(ROUNDINGS)}, got {self.rounding!r}"
            )
        if self.is_float:
            if (self.block_size, self.symmetric, self.rounding) != (0, True, "nearest"):
                raise ValueError(
                    f"{self.bits}-bit weights have no blocks, no zero points and one rounding"
                )
            object.__setattr__(self, "activations", "float")
        elif self.activations == "row":
            if self.bits != 8 or self.block_size or not self.symmetric:
                raise ValueError(
                    "one activation scale for each row needs symmetric 8-bit weights with one "
                    "scale a row"
                )
        elif self.block_size and (
            self.block_size < SMALLEST_BLOCK or self.block_size & (self.block_size - 1)
        ):
            raise ValueError(
                f"block_size must be a power of two of at least 16, or 0, got {self.block_size}"
            )

    @property
    def is_float(self) -> bool:
        """Whether the weight stays a floating-point number."""
        return self.bits >= 16

    @property
    def label(self) -> str:
        """Short and unique: `int4 b32 gptq`, `int8 row`, `int8 b64 asym float`, `fp16`."""
        if self.is_float:
            return f"fp{self.bits}"
        parts = [
            f"int{self.bits}",
            "row" if self.activations == "row" else f"b{self.block_size or '-'}",
        ]
        parts += [] if self.symmetric else ["asym"]
        parts += [] if self.activations != "float" else ["float"]
        parts += [] if self.rounding == "nearest" else [self.rounding]
        return " ".join(parts)

    def block_for(self, k: int, graph: str = "edge") -> int:
        """The block that rows of `k` weights get: at most block_size and a divisor of `k`.

        Where only slivers would divide it, the edge graph fills up blocks of 16, and in the
        portable one, whose operator wants whole blocks, a row is one block.
        """
        if not self.block_size:
            return k
        if graph == "portable":
            size = next(size for size in range(min(self.block_size, k), 0, -1) if k % size == 0)
            return size if size >= SMALLEST_BLOCK else k
        size = self.block_size
        while size > SMALLEST_BLOCK and k % size:
            size //= 2
        return size

    def n_bytes(self, n: int, k: int, graph: str = "edge") -> int:
        """Size in a file of an [n, k] matrix in this format: levels, scales and zero points."""
        if self.is_float:
            return n * k * self.bits // 8
        size = self.block_for(k, graph)
        n_blocks = -(-k // size)
        zeros = 0 if self.symmetric else n * -(-n_blocks * self.bits // 8)
        return n * -(-n_blocks * size * self.bits // 8) + n * n_blocks * SCALE_BYTES + zeros

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "bits": self.bits,
            "block_size": self.block_size,
            "symmetric": self.symmetric,
            "rounding": self.rounding,
            "activations": self.activations,
        }


FLOAT16 = TensorFormat(16)
FLOAT32 = TensorFormat(32)

# by name in `GPT.state_dict()`: h.0.attn.c_attn.weight, wte.weight, lm_head.weight
Plan = Mapping[str, TensorFormat]
