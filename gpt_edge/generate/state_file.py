"""A text that a model has read as a file: its ids and its keys and values, of the used length only.

The layout is that of safetensors: eight bytes with the header's length, a JSON header, the data.
Nothing in it is run. The header's metadata names the format's version, the model by a hash of its
weights, the ids by their hash, the data by its hash, and the type of keys and values. A reader
knows what the header must say for its model, and refuses everything else before it takes memory.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import struct
from collections.abc import Iterable
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from gpt_edge.arrays import IntArray
from gpt_edge.errors import StateError
from gpt_edge.generate.read_sequence import ReadSequence
from gpt_edge.runtime.kv_cache import CacheArray, KVCache
from gpt_edge.runtime.session import Session
from gpt_edge.system.atomic_files import publish_file

FORMAT, VERSION = "gpt-edge state", "1"
IDS, NOTE = "ids", "note"
MAX_NOTE_BYTES = 1 << 26
MAX_HEADER_BYTES = 1 << 20  # 200 layers need 50 kB
LENGTH = struct.Struct("<Q")
TYPE_NAMES = {"float32": "F32", "float16": "F16", "int64": "I64", "uint8": "U8"}
# type and shape of each tensor, in the order of the data
Layout = dict[str, tuple[np.dtype[Any], tuple[int, ...]]]
HINT = "remove the file, or give another name, and it is made again"


def write_state(path: Path, sequence: ReadSequence, note: bytes = b"") -> None:
    """Put what a sequence has read at `path`, atomically; a state that is there is replaced. note:
    what `read_state` gives back with it.

    Raises ValueError if nothing was read, OutputError for what stands in the way, a file that is no
    state among it.
    """
    length = len(sequence.ids)
    if length == 0:
        raise ValueError("nothing was read yet: there is no state to save")
    cache = sequence.cache
    ids = np.array(sequence.ids, "<i8")
    dtype = cache.dtype.newbyteorder("<")
    row = [array.astype(dtype, copy=False) for array in cache.copy_row(0, length)]
    arrays = {IDS: ids, **dict(zip(cache.names, row, strict=True))}
    if note:
        arrays[NOTE] = np.frombuffer(note, np.uint8)
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "model": sequence.session.weights_hash,
        "tokens": _hash_of([ids]),
        "data": _hash_of(arrays.values()),
        "keys": cache.dtype.name,
    }
    layout = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    header = {"__metadata__": metadata, **_entries(layout)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # safetensors aligns the data
    n_bytes = LENGTH.size + len(text) + sum(array.nbytes for array in arrays.values())
    with (
        publish_file(path, force=True, is_ours=_is_state, n_bytes=n_bytes) as temporary,
        open(temporary, "wb") as file,
    ):
        file.write(LENGTH.pack(len(text)) + text)
        for array in arrays.values():
            file.write(_bytes_of(array))


def read_state(path: Path, session: Session) -> tuple[ReadSequence, bytes]:
    """The sequence that `write_state` put at `path`, and the note, b"" without one. Keys and values
    of another type are converted: to float32 without loss, to float16 rounded.

    Raises StateError naming what does not fit: the file, its version, its model, its shapes.
    """
    sequence = ReadSequence(session)
    try:
        with _open(path) as file:
            n_bytes = os.fstat(file.fileno()).st_size
            header = _read_header(file, n_bytes)
            dtype, length = _check_header(header, session)
            layout = _layout(sequence.cache, dtype, length, _note_size(header))
            _check_layout(header, layout, n_bytes - file.tell())
            arrays = {name: _read_array(file, *tensor) for name, tensor in layout.items()}
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise StateError(f"{path} {error}", hint=HINT) from error
    metadata = header["__metadata__"]
    ids = arrays.pop(IDS)
    has_tokens = _hash_of([ids]) == metadata["tokens"] and _is_within(ids, session)
    if not has_tokens or _hash_of([ids, *arrays.values()]) != metadata["data"]:
        raise StateError(f"{path} is corrupt: its content has another hash", hint=HINT)
    note = arrays.pop(NOTE, np.empty(0, np.uint8))
    sequence.cache.put_row(list(arrays.values()), length)
    sequence.ids = ids.tolist()
    return sequence, note.tobytes()


def _entries(layout: Layout) -> dict[str, dict[str, Any]]:
    """What a header says of each tensor, one behind the other."""
    entries = {}
    start = 0
    for name, (dtype, shape) in layout.items():
        end = start + math.prod(shape) * dtype.itemsize
        kind = TYPE_NAMES[dtype.name]
        entries[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
        start = end
    return entries


def _open(path: Path) -> BufferedReader:
    """A regular file; neither a pipe nor a device is waited for. Raises OSError, ValueError."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ValueError("is not a regular file")
    return file


def _read_header(file: BufferedReader, n_bytes: int) -> dict[str, Any]:
    """The header of a state, its metadata being texts. Raises ValueError."""
    start = file.read(LENGTH.size)
    length = LENGTH.unpack(start)[0] if len(start) == LENGTH.size else 0
    if not 2 <= length <= min(MAX_HEADER_BYTES, n_bytes - LENGTH.size):
        raise ValueError("is no state of gpt-edge: it has no header")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError):
        raise ValueError("is no state of gpt-edge: its header is no JSON") from None
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise ValueError("is no state of gpt-edge: its header names another format")
    known = {"format", "version", "model", "tokens", "data", "keys"}
    if metadata.get("version") != VERSION:
        found = str(metadata.get("version"))[:20]
        raise ValueError(f"has version {found!r} of the format, this gpt-edge reads {VERSION}")
    if set(metadata) != known or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError(f"must have the metadata {', '.join(sorted(known))} as texts")
    return dict(header)


def _check_header(header: dict[str, Any], session: Session) -> tuple[np.dtype[Any], int]:
    """The type of keys and values, and the number of ids. Raises ValueError."""
    metadata = header["__metadata__"]
    if metadata["model"] != session.weights_hash:
        raise ValueError(
            f"was saved by a model with weights {metadata['model'][:12]!r}, this one, "
            f"{session.name}, has {session.weights_hash[:12]}"
        )
    if metadata["keys"] not in ("float32", "float16"):
        raise ValueError(f"has keys of type {metadata['keys'][:20]!r}, expected float32 or float16")
    ids = header.get(IDS)
    shape = ids.get("shape") if isinstance(ids, dict) else None
    n_ctx = session.config.n_ctx
    is_shape = isinstance(shape, list) and len(shape) == 1 and type(shape[0]) is int
    if not is_shape or not 1 <= shape[0] <= n_ctx:  # type: ignore[index]
        raise ValueError(f"must have 1 to {n_ctx} ids, has the shape {str(shape)[:40]}")
    return np.dtype(metadata["keys"]), shape[0]  # type: ignore[index]


def _note_size(header: dict[str, Any]) -> int:
    """Bytes of the note, 0 without one. Raises ValueError for a size that no note has."""
    if NOTE not in header:
        return 0
    shape = header[NOTE].get("shape") if isinstance(header[NOTE], dict) else None
    is_shape = isinstance(shape, list) and len(shape) == 1 and type(shape[0]) is int
    if not is_shape or not 1 <= shape[0] <= MAX_NOTE_BYTES:  # type: ignore[index]
        raise ValueError(f"has a note of the shape {str(shape)[:40]}")
    return int(shape[0])  # type: ignore[index]


def _layout(cache: KVCache, dtype: np.dtype[Any], length: int, n_note: int) -> Layout:
    """The tensors of a state of `length` ids and a note."""
    tensor = (dtype.newbyteorder("<"), (1, *cache.row_shape(length)))
    layout: Layout = {IDS: (np.dtype("<i8"), (length,)), **dict.fromkeys(cache.names, tensor)}
    if n_note:
        layout[NOTE] = (np.dtype("u1"), (n_note,))
    return layout


def _check_layout(header: dict[str, Any], layout: Layout, n_data: int) -> None:
    """Raise ValueError unless the header says exactly this, and the file ends with the last
    tensor.
    """
    expected = _entries(layout)
    found = {name: entry for name, entry in header.items() if name != "__metadata__"}
    if found.keys() != expected.keys():
        wrong = min(found.keys() ^ expected.keys())
        raise ValueError(f"has other tensors than this model's: {wrong[:60]!r}")
    for name, entry in expected.items():
        if found[name] != entry:
            raise ValueError(f"has {name} as {str(found[name])[:120]}, expected {entry}")
    end = max(entry["data_offsets"][1] for entry in expected.values())
    if end != n_data:
        raise ValueError(f"has {n_data} bytes of data, its header tells of {end}")


def _read_array(file: BufferedReader, dtype: np.dtype[Any], shape: tuple[int, ...]) -> CacheArray:
    array = np.empty(shape, dtype)
    if file.readinto(_bytes_of(array)) != array.nbytes:
        raise ValueError("became shorter while it was read")
    return array


def _hash_of(arrays: Iterable[CacheArray]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(_bytes_of(array))
    return digest.hexdigest()


def _bytes_of(array: CacheArray) -> memoryview:
    """The memory of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data


def _is_within(ids: IntArray, session: Session) -> bool:
    return bool((ids >= 0).all() and (ids < session.config.vocab_size).all())


def _is_state(path: Path) -> bool:
    """Whether a file may be replaced: it is a state, of whatever model, or empty."""
    try:
        with _open(path) as file:
            n_bytes = os.fstat(file.fileno()).st_size
            if n_bytes == 0:
                return True
            start = file.read(LENGTH.size + 200)
    except (OSError, ValueError):
        return False
    return f'"format":"{FORMAT}"'.encode() in start
