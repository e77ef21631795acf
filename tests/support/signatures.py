"""Signature files written by hand, as the OpenSSF Model Signing format has them, signed by nobody:
what reads them needs no package.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpt_edge.bundle.manifest import SIGNATURE_FILE

KEY = "5" * 64
Spoil = Callable[[dict[str, Any], dict[str, Any]], object]


def write_signature(
    folder: Path, *, ignored: Sequence[str] = (SIGNATURE_FILE,), spoil: Spoil | None = None
) -> Path:
    """Write a signature of the files of a folder. spoil: changes the file's JSON and the
    statement's.
    """
    names = sorted(path.name for path in folder.iterdir() if path.name != SIGNATURE_FILE)
    digests = [hashlib.sha256((folder / name).read_bytes()) for name in names]
    root = hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()
    statement: dict[str, Any] = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": folder.name, "digest": {"sha256": root}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": list(ignored),
            },
            "resources": [
                {"name": name, "algorithm": "sha256", "digest": digest.hexdigest()}
                for name, digest in zip(names, digests, strict=True)
            ],
        },
    }
    values: dict[str, Any] = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": KEY}, "tlogEntries": []},
        "dsseEnvelope": {
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": base64.b64encode(b"nobody").decode(), "keyid": ""}],
        },
    }
    if spoil is not None:
        spoil(values, statement)
    payload = base64.b64encode(json.dumps(statement).encode()).decode()
    if isinstance(values.get("dsseEnvelope"), dict):
        values["dsseEnvelope"].setdefault("payload", payload)
    path = folder / SIGNATURE_FILE
    path.write_text(json.dumps(values))
    return path
