"""A static site that runs bundles in the browser: the page, onnxruntime-web, and the bundles, which
stay bundles that Python opens too.

Written as a whole or not at all. No file of it names another host.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.manifest import MANIFEST_FILE, MODEL_FILE
from gpt_edge.errors import BundleError
from gpt_edge.system.atomic_files import publish_folder, write_file
from gpt_edge.system.disk import sha256_file
from gpt_edge.web.arrange import arrange
from gpt_edge.web.static_files import page_files, runtime_files

SITE_FILE = "site.json"
LIST_FILE = "files.json"
MODELS = "models"
# kinds of tokenizers that the page's scripts read
TOKENIZERS = ("gpt2", "gpt1", "characters")
MAX_FILE_BYTES = (1 << 31) - 1  # what one array of a browser holds
# headers for hosts that read such a file: wasm uses threads on isolated pages alone
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
HEADERS_FILE = "_headers"
UNLISTED = ("ort/LICENSE", "ort/NOTICES.txt")  # of no use without a network


def write_site(bundles: Sequence[Bundle], out: Path, *, force: bool = False) -> Path:
    """Write the site into `out` and return it.

    force: replace a site (nothing else) that is there. Raises BundleError for a bundle that does
    not run in a browser, and for two of one name; OutputError as `publish_folder`.
    """
    for bundle in bundles:
        _check(bundle)
    names = [bundle.manifest.name for bundle in bundles]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BundleError(f"two bundles have the name {twice[0]}, each model needs its own")
    runtime = runtime_files()
    n_bytes = sum(bundle.n_bytes for bundle in bundles) + sum(map(len, runtime.values()))
    with publish_folder(out, force=force, is_ours=is_site, n_bytes=n_bytes) as folder:
        for name, content in {**page_files(), **runtime}.items():
            _write(folder / name, content)
        for bundle in bundles:
            write_bundle(bundle, folder / MODELS / bundle.manifest.name)
        _write(folder / HEADERS_FILE, _headers())
        _write_lists(folder, bundles)
    return out


def is_site(folder: Path) -> bool:
    """Whether a folder is a site that was written here."""
    try:
        site: Any = json.loads((folder / SITE_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(site, dict) and site.get("engine") == "wasm" and (folder / MODELS).is_dir()


def _check(bundle: Bundle) -> None:
    manifest = bundle.manifest
    if bundle.is_optimum_export:
        raise BundleError(
            f"{bundle.path} is Optimum's folder, a page needs a bundle of gpt-edge",
            hint="make one from the checkpoint with gpt-edge export",
        )
    if bundle.config.takes_adapters:
        raise BundleError(
            f"{bundle.path} is a bundle of kind {manifest.kind}: a page runs no adapters",
            hint="export the fine-tuned checkpoint as a whole, without --base",
        )
    kind = (manifest.tokenizer or {}).get("kind")
    if kind not in TOKENIZERS:
        actual = "no tokenizer" if kind is None else f"a tokenizer of kind {kind}"
        raise BundleError(
            f"{bundle.path} has {actual}, a page reads {', '.join(TOKENIZERS)}",
            hint="let a server run it: gpt-edge serve has the same page",
        )
    for name, record in manifest.files.items():
        if record["size"] > MAX_FILE_BYTES:
            raise BundleError(
                f"{bundle.path / name} has {record['size']:,} bytes, a browser reads files of up "
                f"to {MAX_FILE_BYTES:,}",
                hint="quantize it, such as with gpt-edge quantize --scheme int8",
            )


def write_bundle(bundle: Bundle, folder: Path) -> None:
    """A copy of a bundle, its graph arranged for wasm, its parity figures those of the original."""
    files = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files}
    files[MODEL_FILE] = _arranged(bundle, files[MODEL_FILE])
    records = {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
    }
    for name, content in files.items():
        _write(folder / name, content)
    manifest = dataclasses.replace(bundle.manifest, files=records)  # type: ignore[arg-type]
    _write(folder / MANIFEST_FILE, manifest.to_json())


def _arranged(bundle: Bundle, graph: bytes) -> bytes:
    try:
        return arrange(graph, bundle.config.n_parameters)
    except (ValueError, LookupError, AssertionError) as error:
        raise BundleError(f"{bundle.model_path} is no ONNX graph: {error}") from error


def _write_lists(folder: Path, bundles: Sequence[Bundle]) -> None:
    """What the service worker keeps, and what the page shows; a new file is a new version."""
    names = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    listed = [name for name in names if name not in (*UNLISTED, HEADERS_FILE)]
    version = hashlib.sha256()
    for name in listed:
        version.update(f"{name} {sha256_file(folder / name)}\n".encode())
    site = {
        "engine": "wasm",
        "version": version.hexdigest()[:16],
        "models": [
            {
                "name": bundle.manifest.name,
                "kind": bundle.manifest.kind,
                "bytes": bundle.n_bytes,
                "scheme": bundle.scheme,
                "parameters": bundle.config.n_parameters,
            }
            for bundle in bundles
        ],
    }
    _write(folder / SITE_FILE, json.dumps(site, indent=1).encode() + b"\n")
    _write(folder / LIST_FILE, json.dumps([*listed, SITE_FILE]).encode() + b"\n")


def _headers() -> bytes:
    lines = [f"  {name}: {value}\n" for name, value in HEADERS.items()]
    return "".join(["/*\n", *lines]).encode()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, content)
