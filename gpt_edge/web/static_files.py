"""The files of the page as they came with the package: scripts, style sheet, and onnxruntime-web,
whose wasm is stored compressed. `scripts/vendor_web.py` makes them from `web/`.
"""

from __future__ import annotations

import functools
import lzma
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable

PACKED = ".xz"
ORT_FOLDER = "ort/"
# by the end of a file's name; what browsers insist on
MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "json": "application/json",
    "webmanifest": "application/manifest+json",
    "wasm": "application/wasm",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}


@functools.cache
def page_files() -> dict[str, bytes]:
    """The page by the names of its files, without onnxruntime-web."""
    return {name: path.read_bytes() for name, path in _walk() if not name.startswith(ORT_FOLDER)}


def runtime_files() -> dict[str, bytes]:
    """onnxruntime-web and its licences, unpacked: 14 MB."""
    files = {}
    for name, path in _walk():
        if name.startswith(ORT_FOLDER):
            content = path.read_bytes()
            is_packed = name.endswith(PACKED)
            files[name.removesuffix(PACKED)] = lzma.decompress(content) if is_packed else content
    return files


def media_type(name: str) -> str:
    """The type of a file, by its name."""
    return MEDIA_TYPES.get(name.rpartition(".")[2], "application/octet-stream")


def _walk() -> Iterator[tuple[str, Traversable]]:
    """Every file under static/ with its name there, in order."""
    pending = [("", resources.files("gpt_edge.web").joinpath("static"))]
    while pending:
        name, place = pending.pop(0)
        for entry in sorted(place.iterdir(), key=lambda entry: entry.name):
            inner = f"{name}/{entry.name}" if name else entry.name
            if entry.is_dir():
                pending.append((inner, entry))
            else:
                yield inner, entry
