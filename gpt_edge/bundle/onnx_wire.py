"""The wire format of protobuf, as far as an ONNX file needs it: a message is a run of fields, each
a number and a value.

A field is a key (its number, and how its value is written), then a varint, 4 or 8 bytes, or a
length and that many bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, TypeVar

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MOST_FIELDS = 256  # of a message
Bytes = TypeVar("Bytes", bytes, memoryview)


def fields(message: Bytes) -> Iterator[tuple[int, int | Bytes, Bytes]]:
    """Number, value and whole bytes of each field; a value is an int, or the bytes of a string, a
    message or a list.

    Raises ValueError for what is no message.
    """
    at, end = 0, len(message)
    while at < end:
        start, key = at, message[at]
        at += 1
        if key > 127:
            key, at = varint(message, start)
        kind = key & 7
        if kind == VARINT:
            number, at = varint(message, at)
            yield key >> 3, number, message[start:at]
            continue
        if kind == BYTES:
            size, at = varint(message, at)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise ValueError(f"protobuf has no kind {kind}")
        if size > end - at:
            raise ValueError("a field reaches beyond its message")
        at += size
        yield key >> 3, message[at - size : at], message[start:at]


def split(
    message: Bytes, allowed: AbstractSet[int], most: int = MOST_FIELDS
) -> list[tuple[int, Any]]:
    """Key and value of each field of a message that nobody vouches for; a key is 8 times the number
    of the field plus its kind, so it tells a number from bytes.

    Raises ValueError for what is no message, for a key that is not in `allowed`, and for more
    fields than `most`.
    """
    found: list[tuple[int, Any]] = []
    at, end = 0, len(message)
    is_long = end > 2 * most  # a field has two bytes at least
    try:
        while at < end:
            start, key, size = at, message[at], message[at + 1]
            at += 2
            if key > 127:  # most keys and sizes are of one byte
                key, at = varint(message, start)
                size, at = varint(message, at)
            elif size > 127:
                size, at = varint(message, at - 1)
            if key not in allowed:
                raise _unknown(key)
            kind = key & 7
            if kind == BYTES:
                start, at = at, at + size
                found.append((key, message[start:at]))
            elif kind == VARINT:
                found.append((key, size))
            else:
                start, at = start + 1, start + 5
                found.append((key, message[start:at]))
            if is_long and len(found) > most:
                raise ValueError(f"a message has more than {most} fields")
    except IndexError:
        raise ValueError("a field is cut off") from None
    if at != end:
        raise ValueError("a field reaches beyond its message")
    return found


def sort_texts(message: bytes, into: Mapping[int, Callable[[bytes], object]]) -> None:
    """Hand the bytes of each field to the function of its key: `split`, for messages that hold
    nothing but texts and messages, and are many.

    Raises ValueError as `split` does.
    """
    at, end = 0, len(message)
    if end > 2 * MOST_FIELDS:
        for long_key, value in split(message, into.keys()):
            into[long_key](value)
        return
    try:
        while at < end:
            key, size = message[at], message[at + 1]
            at += 2
            if key > 127:
                key, at = varint(message, at - 2)
                size, at = varint(message, at)
            elif size > 127:
                size, at = varint(message, at - 1)
            into[key](message[at : at + size])
            at += size
    except IndexError:
        raise ValueError("a field is cut off") from None
    except KeyError:
        raise _unknown(key) from None
    if at != end:
        raise ValueError("a field reaches beyond its message")


def leading_texts(message: bytes, into: Mapping[int, list[bytes]]) -> int:
    """Add the bytes of the first fields to the lists of their keys; returns where the first field
    begins that has no list, or a size above 127. All of a message that may have more than
    MOST_FIELDS is left.
    """
    at, end = 0, len(message)
    if end > 2 * MOST_FIELDS:
        return 0
    while at + 1 < end:
        found, size = into.get(message[at]), message[at + 1]
        if found is None or size > 127 or at + 2 + size > end:
            break
        found.append(message[at + 2 : at + 2 + size])
        at += 2 + size
    return at


def _unknown(key: int) -> ValueError:
    return ValueError(f"a field has the number {key >> 3} and the kind {key & 7}")


def varints(data: bytes | memoryview) -> Iterator[int]:
    """The numbers of a packed list."""
    at = 0
    while at < len(data):
        value, at = varint(data, at)
        yield value


def varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, least first, and the place after it. Raises ValueError for one
    that does not end.
    """
    if at < len(data) and data[at] < 128:  # most are of one byte
        return data[at], at + 1
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("a number that does not end")
