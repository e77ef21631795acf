"""CRC-32C (Castagnoli), the checksum of TensorFlow checkpoints, fast enough for gigabytes in numpy.

A CRC with initial value 0 is linear over GF(2): many lanes are computed side by side, and joined by
the operator that appends zero bytes. Sources: RFC 3720 appendix B.4; the mask is LevelDB's
(table/format).
"""

from __future__ import annotations

import sys
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from gpt_edge.arrays import WordArray

_POLYNOMIAL = 0x82F63B78  # reflected
_LANE_BYTES = 1024
_MAX_LANES, _MIN_LANES = 8192, 64  # below 64 KiB the plain loop is as fast


def _byte_table() -> WordArray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> np.uint32(1)) ^ np.where(
            table & np.uint32(1), np.uint32(_POLYNOMIAL), np.uint32(0)
        )
    return table


_TABLE = _byte_table()
_TABLE_INTS: list[int] = _TABLE.tolist()


@lru_cache(maxsize=64)
def _append_zeros(log2_bytes: int) -> WordArray:
    """uint32 [2, 65536]: the effect of appending 2^log2_bytes zero bytes, looked up by each half of
    the CRC.
    """
    basis = np.uint32(1) << np.arange(32, dtype=np.uint32)
    if log2_bytes == 0:
        image = _TABLE[basis & np.uint32(255)] ^ (basis >> np.uint32(8))
    else:
        half = _append_zeros(log2_bytes - 1)
        image = _apply(half, _apply(half, basis))
    tables = np.zeros((2, 1 << 16), dtype=np.uint32)
    for bit in range(16):
        chosen = (np.arange(1 << 16) >> bit & 1).astype(bool)
        tables[:, chosen] ^= image.reshape(2, 16)[:, bit, None]
    return tables


def _apply(tables: WordArray, words: WordArray) -> WordArray:
    """words: contiguous uint32 [n]. Halves are looked up, not bytes: half the steps, and the tables
    fit the L2 cache.
    """
    halves = words.view(np.uint16).reshape(-1, 2)
    low, high = (0, 1) if sys.byteorder == "little" else (1, 0)
    mixed: WordArray = tables[0].take(halves[:, low])
    mixed ^= tables[1].take(halves[:, high])
    return mixed


def _group(data: npt.NDArray[np.uint8], n_lanes: int) -> int:
    """CRC with initial value 0 of n_lanes * _LANE_BYTES bytes."""
    words = np.ascontiguousarray(
        data.view("<u4").reshape(n_lanes, _LANE_BYTES // 4).T, dtype=np.uint32
    )
    four = _append_zeros(2)
    crc = np.zeros(n_lanes, dtype=np.uint32)
    for column in words:
        crc = _apply(four, crc ^ column)
    log2_bytes = _LANE_BYTES.bit_length() - 1
    while crc.size > 1:
        crc = _apply(_append_zeros(log2_bytes), np.ascontiguousarray(crc[0::2])) ^ crc[1::2]
        log2_bytes += 1
    return int(crc[0])


def crc32c(data: bytes) -> int:
    """CRC-32C of `data`, about 300 MB/s on one core."""
    crc, offset, n_lanes = 0xFFFFFFFF, 0, _MAX_LANES
    array = np.frombuffer(data, dtype=np.uint8)
    while n_lanes >= _MIN_LANES:
        n_bytes = n_lanes * _LANE_BYTES
        if array.size - offset < n_bytes:
            n_lanes //= 2
            continue
        shifted = int(
            _apply(_append_zeros(n_bytes.bit_length() - 1), np.array([crc], dtype=np.uint32))[0]
        )
        crc = shifted ^ _group(array[offset : offset + n_bytes], n_lanes)
        offset += n_bytes
    for byte in data[offset:]:
        crc = _TABLE_INTS[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """The stored form: rotated and offset, so that a CRC over data that holds CRCs still detects
    errors.
    """
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
