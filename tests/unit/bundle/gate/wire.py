"""Protobuf messages written field by field, as the obvious encoder writes them."""

from __future__ import annotations

import struct


def varint(number: int) -> bytes:
    number %= 1 << 64
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def field(number: int, *values: int | float | bytes | str) -> bytes:
    """The fields of that number, one for each value: a varint, four bytes or a text."""
    return b"".join(_field(number, value) for value in values)


def _field(number: int, value: int | float | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content
