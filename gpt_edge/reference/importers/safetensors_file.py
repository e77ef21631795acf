"""The safetensors format, validated strictly before a byte of data is read.

Eight bytes of header length, a JSON header, then the data, in which tensors follow each other
without gap or overlap. The safetensors library accepts every file that this reader accepts. Source:
the format's README, github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers.settings import MAX_INDEX_BYTES, read_json_object
from gpt_edge.reference.importers.sources import (
    Extent,
    MappedFile,
    MappedTensors,
    TensorInfo,
    merge,
    printable,
)

MAX_HEADER_BYTES = 100_000_000  # the library's own limit
MAX_TENSORS = 20_000  # GPT-2 XL has 580
_ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
    "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "C64": 8,
}  # fmt: skip
_HINT = "copy or download the file again"


def open_safetensors(path: Path) -> MappedTensors:
    """Every tensor of one file. Raises CheckpointError for a file that is missing, truncated or not
    of this format.
    """
    try:
        file = MappedFile(path)
        with path.open("rb") as stream:
            n_header = int.from_bytes(stream.read(8), "little")
            if file.n_bytes < 8 or n_header > min(MAX_HEADER_BYTES, file.n_bytes - 8):
                raise CheckpointError(
                    f"{path} is not a complete safetensors file: {file.n_bytes} bytes, header of "
                    f"{n_header}",
                    hint=_HINT,
                )
            header = stream.read(n_header)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    try:
        entries = parse_header(header, file.n_bytes - 8 - n_header)
    except ValueError as error:
        raise CheckpointError(
            f"{path} is not a complete safetensors file: {error}", hint=_HINT
        ) from error
    infos = {name: info for name, (info, _, _) in entries.items()}
    extents = {
        name: (Extent(file, 8 + n_header + begin, end - begin),)
        for name, (_, begin, end) in entries.items()
    }
    return MappedTensors(str(path), infos, extents)


def open_sharded_safetensors(index: Path) -> MappedTensors:
    """The files named in a *.safetensors.index.json, which must hold exactly the tensors that it
    lists for them.
    """
    weight_map = read_weight_map(index)
    shards = {
        shard: open_safetensors(index.parent / shard) for shard in sorted(set(weight_map.values()))
    }
    for name, shard in weight_map.items():
        if name not in shards[shard].infos:
            raise CheckpointError(
                f"{index} says {printable(name)} is in {shard}, which does not hold it"
            )
    merged = merge(str(index), shards.values())
    if unlisted := sorted(merged.infos.keys() - weight_map.keys()):
        raise CheckpointError(
            f"{index} does not list {printable(unlisted[0])}, which is in one of its files"
        )
    return merged


def read_weight_map(index: Path) -> dict[str, str]:
    """Tensor to file name. Raises CheckpointError for a file name that leaves the folder."""
    weight_map = read_json_object(index, MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map")
    for name, shard in weight_map.items():
        if (
            not isinstance(shard, str)
            or Path(shard).name != shard
            or "\\" in shard
            or shard in ("", ".", "..")
        ):
            raise CheckpointError(
                f"{index}: {printable(name)} is in {printable(repr(shard))}, expected the name of "
                "a file beside it"
            )
    return weight_map


def parse_header(header: bytes, n_data: int) -> dict[str, tuple[TensorInfo, int, int]]:
    """Name to info, begin and end in the data, for a header that describes exactly `n_data` bytes.

    Raises ValueError for the first fault.
    """
    entries: dict[str, tuple[TensorInfo, int, int]] = {}
    values = _load_json(header)
    if len(values) > MAX_TENSORS:
        raise ValueError(f"it has {len(values)} tensors, at most {MAX_TENSORS} are read")
    for name, value in values.items():
        if name == "__metadata__":
            if not isinstance(value, dict) or not all(
                isinstance(text, str) for text in value.values()
            ):
                raise ValueError("__metadata__ must map names to strings")
            continue
        entries[name] = _entry(name, value)
    position = 0
    for name, (_, begin, end) in sorted(entries.items(), key=lambda item: item[1][1:]):
        if begin != position:
            raise ValueError(
                f"{printable(name)} starts at byte {begin}, expected {position}: tensors must "
                "neither overlap nor leave gaps"
            )
        position = end
    if position != n_data:
        raise ValueError(f"the header describes {position} bytes of data, the file has {n_data}")
    return entries


def _entry(name: str, value: Any) -> tuple[TensorInfo, int, int]:
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{printable(name)} must have dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise ValueError(f"{printable(name)} has unknown dtype {printable(repr(dtype))}")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(
            f"{printable(name)} has shape {printable(repr(shape))} and data_offsets "
            f"{printable(repr(offsets))}, expected sizes"
        )
    begin, end = offsets
    n_bytes = math.prod(shape) * _ITEM_BYTES[dtype]
    if n_bytes != end - begin or n_bytes >= 1 << 63:
        raise ValueError(
            f"{printable(name)} spans bytes {begin} to {end}, its dtype and shape need {n_bytes}"
        )
    return TensorInfo(dtype, tuple(shape)), begin, end


def _are_sizes(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 16
        and all(type(size) is int and size < 1 << 63 for size in value)
    )


def _load_json(header: bytes) -> dict[str, Any]:
    if not header.startswith(b"{"):
        raise ValueError("the header does not start with {")
    try:
        text = header.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse,
            parse_int=_whole,
            parse_float=_refuse,
        )
    except RecursionError:
        raise ValueError("the header is nested too deeply") from None
    # cannot happen, after the first byte; for the type checker
    if not isinstance(value, dict):
        raise ValueError("the header is not an object")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name occurs twice in the header")
    for name, value in pairs:
        # a lone surrogate, which JSON can spell, fails: UnicodeEncodeError is a ValueError
        name.encode()
        if isinstance(value, str):
            value.encode()
    return values


def _whole(digits: str) -> int:
    if digits.startswith("-") or len(digits) > 19:
        raise ValueError(f"the header holds {digits[:24]}, expected a size")
    return int(digits)


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"the header holds {text[:24]}, expected whole numbers and strings")
