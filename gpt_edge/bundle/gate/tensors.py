"""Stored tensors: where each lies, that its data has the length of its shape, that no two overlap,
and that scales are finite.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from gpt_edge.bundle.gate.limits import (
    BITS_OF,
    FLOAT32,
    LARGEST_SCALE,
    MAX_ELEMENTS,
    GateError,
    shown,
)
from gpt_edge.bundle.gate.records import Tensor

# the last bytes that a scale may have; those of 4 bits may be below zero
SCALES = bytes((*range(LARGEST_SCALE + 1), *range(0x80, 0x80 + LARGEST_SCALE + 1)))
SMALL = 1 << 16  # floats of a norm's gain or a bias; larger tables are not read before they are run


def check_tensors(
    tensors: Sequence[Tensor], sizes: Mapping[str, int], files: Collection[str]
) -> None:
    """Check where tensors lie. sizes: of the folder's files that may hold some, by name; files:
    those that the manifest lists. Raises GateError.
    """
    names: set[str] = set()
    ranges: set[tuple[str, int, int]] = set()
    for tensor in tensors:
        if not tensor.name or tensor.name in names:
            raise GateError(f"the tensor {shown(tensor.name)} comes twice, or has no name")
        names.add(tensor.name)
        check_length(tensor)
        if tensor.data is None:
            check_place(tensor, sizes, files)
            ranges.add((tensor.location, tensor.offset, tensor.length))
    _check_overlaps(ranges)


def check_length(tensor: Tensor) -> None:
    """Raise GateError unless a tensor has as many bytes as its shape says."""
    elements = math.prod(tensor.dims)
    needed = -(-elements * BITS_OF[tensor.type] // 8)
    has = tensor.length if tensor.data is None else len(tensor.data)
    if elements > MAX_ELEMENTS or has != needed:
        raise GateError(
            f"the tensor {shown(tensor.name)} has {has} bytes, its shape {list(tensor.dims)} "
            f"takes {needed}"
        )


def check_place(tensor: Tensor, sizes: Mapping[str, int], files: Collection[str]) -> None:
    """Raise GateError for a tensor that lies in no listed file of the folder, or beyond its end."""
    if tensor.location not in files or tensor.location not in sizes:
        raise GateError(
            f"the tensor {shown(tensor.name)} lies in {shown(tensor.location)}, which is no file "
            "of the bundle"
        )
    size = sizes[tensor.location]
    if tensor.offset + tensor.length > size:
        raise GateError(
            f"the tensor {shown(tensor.name)} ends at byte {tensor.offset + tensor.length} of "
            f"{tensor.location}, which has {size}"
        )


def _check_overlaps(ranges: set[tuple[str, int, int]]) -> None:
    """Two tensors lie apart, or are the same bytes."""
    end, file = 0, ""
    for location, offset, length in sorted(ranges):
        if location != file:
            file, end = location, 0
        if offset < end:
            raise GateError(f"two tensors overlap at byte {offset} of {location}")
        end = offset + length


def check_scales(name: str, data: bytes) -> None:
    """Raise GateError unless each float32 is finite and within 2**64: looks at the last byte of
    each, which holds the sign and most of the exponent.
    """
    if data[3::4].translate(None, SCALES):
        raise GateError(f"the scales {shown(name)} are too large, or no numbers")


def check_floats(name: str, data: bytes) -> None:
    """Raise GateError unless each float32 is below 2**127: finite, and no weight. The last byte of
    another is 0x7f or 0xff.
    """
    last = data[3::4]
    if 0x7F in last or 0xFF in last:
        raise GateError(f"the tensor {shown(name)} holds infinite values or no numbers")


def is_small_float(tensor: Tensor) -> bool:
    """A norm's gain, a bias or a few numbers of the graph."""
    return tensor.type == FLOAT32 and math.prod(tensor.dims) <= SMALL
