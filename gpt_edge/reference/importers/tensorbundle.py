"""TensorFlow's V2 checkpoint files, read without TensorFlow: PREFIX.index and
PREFIX.data-00000-of-00001.

The index is a LevelDB table from tensor name to BundleEntryProto. Every block's checksum, every
length and every offset is validated. Sources: tensorflow/core/util/tensor_bundle,
core/protobuf/tensor_bundle.proto, LevelDB doc/table_format.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers.crc32c import masked_crc32c
from gpt_edge.reference.importers.sources import Extent, MappedFile, MappedTensors, TensorInfo

MAX_INDEX_BYTES = 1 << 26
_FOOTER_BYTES = 48
_TRAILER_BYTES = 5
_MAGIC = 0xDB4775248B80FB57
_DTYPES = {1: "F32", 19: "F16", 14: "BF16"}  # types.proto
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
Fields = dict[int, list[int | bytes]]


@dataclass(frozen=True, slots=True)
class _Entry:
    info: TensorInfo
    shard: int
    offset: int
    n_bytes: int
    checksum: int  # masked CRC-32C


def open_tensor_bundle(prefix: Path) -> MappedTensors:
    """Every tensor of the checkpoint PREFIX. Raises CheckpointError for a file that is missing or
    corrupt.
    """
    index = prefix.with_name(prefix.name + ".index")
    try:
        if index.stat().st_size > MAX_INDEX_BYTES:
            raise CheckpointError(
                f"{index} has {index.stat().st_size} bytes, at most {MAX_INDEX_BYTES} are read"
            )
        table = dict(_table(index.read_bytes()))
        n_shards, entries = _entries(table)
        shards = [
            MappedFile(prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{n_shards:05d}"))
            for shard in range(n_shards)
        ]
    except OSError as error:
        raise CheckpointError(f"{error.filename} cannot be read: {error.strerror}") from error
    except (ValueError, IndexError, RecursionError) as error:
        raise CheckpointError(
            f"{index} is not a complete TensorFlow index: {error}", hint="copy the checkpoint again"
        ) from error
    extents: dict[str, tuple[Extent, ...]] = {}
    for name, entry in entries.items():
        file = shards[entry.shard]
        if entry.offset + entry.n_bytes > file.n_bytes:
            raise CheckpointError(
                f"{file.path} has {file.n_bytes} bytes, {name} ends at byte "
                f"{entry.offset + entry.n_bytes}",
                hint="copy the checkpoint again",
            )
        extents[name] = (Extent(file, entry.offset, entry.n_bytes),)
    infos = {name: entry.info for name, entry in entries.items()}
    return MappedTensors(
        str(prefix), infos, extents, {name: entry.checksum for name, entry in entries.items()}
    )


def _entries(table: dict[bytes, bytes]) -> tuple[int, dict[str, _Entry]]:
    """The number of data files, and the index's entry of every tensor."""
    if b"" not in table:
        raise ValueError("it has no header entry")
    header = _fields(table[b""])
    n_shards = _number(header, 1)
    if not 1 <= n_shards <= 1000:
        raise ValueError(f"it names {n_shards} data files")
    if _number(header, 2):
        raise ValueError("its tensors are big-endian")
    return n_shards, {
        key.decode("utf-8"): _entry(key, value, n_shards) for key, value in table.items() if key
    }


def _entry(key: bytes, value: bytes, n_shards: int) -> _Entry:
    fields = _fields(value)
    if 7 in fields:
        raise ValueError(f"{key!r} is stored in slices")
    shape: list[int] = []
    for dimension in _fields(_bytes(fields, 2)).get(2, []):
        shape.append(_number(_fields(dimension), 1) if isinstance(dimension, bytes) else -1)
    dtype = _DTYPES.get(_number(fields, 1), f"type {_number(fields, 1)}")
    shard = _number(fields, 3)
    if shard >= n_shards or any(size < 0 or size >= 1 << 63 for size in shape):
        raise ValueError(f"{key!r} has shape {shape} in data file {shard} of {n_shards}")
    n_bytes = _number(fields, 5)
    if dtype in _ITEM_BYTES and n_bytes != prod(shape) * _ITEM_BYTES[dtype]:
        raise ValueError(
            f"{key!r} has {n_bytes} bytes, its shape {shape} needs "
            f"{prod(shape) * _ITEM_BYTES[dtype]}"
        )
    return _Entry(
        TensorInfo(dtype, tuple(shape)), shard, _number(fields, 4), n_bytes, _number(fields, 6)
    )


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every key and value of the LevelDB table in `data`."""
    footer = data[-_FOOTER_BYTES:]
    if len(footer) < _FOOTER_BYTES or int.from_bytes(footer[-8:], "little") != _MAGIC:
        raise ValueError("the last bytes are not those of a table")
    _, _, position = _handle(footer, 0)  # the metaindex, which TensorFlow leaves empty
    offset, size, _ = _handle(footer, position)
    for _, handle in _block(data, offset, size):
        offset, size, _ = _handle(handle, 0)
        yield from _block(data, offset, size)


def _handle(data: bytes, position: int) -> tuple[int, int, int]:
    offset, position = _varint(data, position)
    size, position = _varint(data, position)
    return offset, size, position


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys share a prefix with the key before. The restart points at the end serve searches, and
    are skipped.
    """
    if offset + size + _TRAILER_BYTES > len(data) - _FOOTER_BYTES or size < 4:
        raise ValueError(f"a block of {size} bytes at {offset} does not fit")
    checked = data[offset : offset + size + 1]
    if masked_crc32c(checked) != int.from_bytes(
        data[offset + size + 1 : offset + size + 5], "little"
    ):
        raise ValueError(f"the block at {offset} has a wrong checksum")
    if checked[-1] != 0:
        raise ValueError("it is compressed, as TensorFlow before 1.2 wrote it")
    end = size - 4 - 4 * int.from_bytes(checked[size - 4 : size], "little")
    position, key = 0, b""
    while position < end:
        n_shared, position = _varint(checked, position)
        n_key, position = _varint(checked, position)
        n_value, position = _varint(checked, position)
        if n_shared > len(key) or position + n_key + n_value > end:
            raise ValueError(f"an entry of the block at {offset} does not fit")
        key = key[:n_shared] + checked[position : position + n_key]
        position += n_key
        yield key, checked[position : position + n_value]
        position += n_value


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("a number is longer than 64 bits")


def _fields(data: bytes) -> Fields:
    """A protocol buffer message as field number to values, in order; numbers and bytes only."""
    fields: Fields = {}
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        value: int | bytes
        if tag & 7 == 0:
            value, position = _varint(data, position)
        elif tag & 7 in (1, 2, 5):
            size = {1: 8, 5: 4}.get(tag & 7, 0)
            if not size:
                size, position = _varint(data, position)
            if position + size > len(data):
                raise ValueError("a message ends early")
            value = data[position : position + size]
            position += size
            if tag & 7 != 2:
                value = int.from_bytes(value, "little")
        else:
            raise ValueError(f"a message has a field of wire type {tag & 7}")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _number(fields: Fields, number: int) -> int:
    value = fields.get(number, [0])[-1]
    if not isinstance(value, int):
        raise ValueError(f"field {number} is not a number")
    return value


def _bytes(fields: Fields, number: int) -> bytes:
    value = fields.get(number, [b""])[-1]
    if not isinstance(value, bytes):
        raise ValueError(f"field {number} is not a message")
    return value
