"""Copies of good bundles to spoil, and manifests signed anew: an attacker writes right
checksums.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt_edge.bundle.manifest import SELF_HASH
from tests.conftest import REPO

GOLDEN = REPO / "tests" / "golden"


def copy_of(name: str, out: Path, keep: tuple[str, ...] = ("model.onnx", "manifest.json")) -> Path:
    """The golden bundle of that name at `out`; the files of `keep` are its own, others are links to
    one copy, where the disk allows it. Not to the committed file: onnx refuses one with links.
    """
    source = GOLDEN / name if (GOLDEN / name).is_dir() else REPO / "models" / name
    shared = out.with_name(f"{name}-shared")
    if not shared.is_dir():
        shutil.copytree(source, shared)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for path in source.iterdir():
        if path.name in keep:
            shutil.copyfile(path, out / path.name)
            continue
        try:
            os.link(shared / path.name, out / path.name)
        except OSError:
            shutil.copyfile(path, out / path.name)
    return out


def read_values(folder: Path) -> dict[str, Any]:
    """The manifest's fields."""
    values: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    return values


def sign(folder: Path, values: Mapping[str, Any] | None = None) -> None:
    """Write the sizes and checksums of the files as they are into the manifest, or into `values`,
    and its own.
    """
    new = dict(values) if values is not None else read_values(folder)
    for name in new.get("files", {}):
        path = folder / name
        if path.is_file():
            data = path.read_bytes()
            new["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    new.pop(SELF_HASH, None)
    blank = json.dumps({**new, SELF_HASH: "0" * 64}, indent=1).encode()
    head, _, tail = blank.rpartition(b"0" * 64)
    signed = head + hashlib.sha256(blank).hexdigest().encode() + tail
    (folder / "manifest.json").unlink(missing_ok=True)
    (folder / "manifest.json").write_bytes(signed)
