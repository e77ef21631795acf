"""Manifests with any content and a right checksum: what somebody writes who wants to deceive."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def signed(values: dict[str, Any]) -> bytes:
    """The bytes of manifest.json, its own SHA-256 in it."""
    text = json.dumps({**values, "manifest_sha256": "0" * 64}, indent=1).encode() + b"\n"
    head, _, tail = text.rpartition(b"0" * 64)
    return head + hashlib.sha256(text).hexdigest().encode() + tail


def changed_bundle(
    source: Path, folder: Path, change: Callable[[dict[str, Any]], object] = lambda values: None
) -> Path:
    """A copy of a bundle with changed fields. Its files are listed as they are in the copy, so a
    folder that exists already may hold others.
    """
    for path in source.iterdir():
        if not (folder / path.name).exists():
            folder.mkdir(exist_ok=True)
            shutil.copy(path, folder)
    return sign(folder, change)


def sign(folder: Path, change: Callable[[dict[str, Any]], object] = lambda values: None) -> Path:
    """Write a folder's manifest again, for its files as they are."""
    values = json.loads((folder / "manifest.json").read_text())
    for name in values["files"]:
        data = (folder / name).read_bytes()
        values["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    change(values)
    (folder / "manifest.json").write_bytes(signed(values))
    return folder
