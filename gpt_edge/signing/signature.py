"""The signature of a bundle: `model.sig` beside its files, as the OpenSSF Model Signing format has
it, read strictly and without a package.

A sigstore bundle (JSON) holds a DSSE envelope, whose payload is an in-toto statement: the SHA-256
of every file. Nothing here tells a good signature from a forged one; `check.py` does. Sources: the
model-signing 1.1 package; in-toto attestations v1; DSSE v1.0; sigstore's bundle v0.3.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt_edge.bundle.manifest import (
    MAX_MANIFEST_BYTES,
    SHA256,
    SIGNATURE_FILE,
    load_json_object,
)
from gpt_edge.errors import BundleError, SignatureError
from gpt_edge.system.disk import FolderReader

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle."
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
MAX_FILES = 4096


@dataclass(frozen=True, slots=True)
class Signature:
    """What a signature file says, whoever wrote it. key: SHA-256 of the public key's PEM text, 64
    hex digits; None where a certificate takes its place. digests: SHA-256 by the file's path in the
    bundle. ignored: paths that the signer left out. payload, signed: the statement's bytes, and the
    signature of them.
    """

    key: str | None
    digests: Mapping[str, str]
    ignored: frozenset[str]
    payload: bytes
    signed: bytes

    @property
    def signer(self) -> str:
        """By whom, as far as the file says."""
        return "a certificate" if self.key is None else f"the key {self.key}"


def read_signature(folder: Path) -> Signature | None:
    """Read a bundle's signature; None without one. Raises SignatureError for one that is not of the
    format, or that lists something else than the SHA-256 of files.
    """
    where = str(folder / SIGNATURE_FILE)
    try:
        with FolderReader(folder) as reader, reader.open(SIGNATURE_FILE) as stream:
            data = stream.read(MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # ValueError: a link, a folder or a pipe
        reason = getattr(error, "strerror", None) or error
        raise SignatureError(f"{where} cannot be read: {reason}") from error
    try:
        return parse_signature(data, where)
    except (BundleError, TypeError, AttributeError, LookupError, ValueError) as error:
        text = error.message if isinstance(error, BundleError) else "a field is missing or wrong"
        raise SignatureError(
            f"{where} is not a signature of the OpenSSF Model Signing format: {text}",
            hint="gpt-edge sign makes one",
        ) from error


def parse_signature(data: bytes, where: str) -> Signature:
    """Take a signature file apart. Raises BundleError, and TypeError, AttributeError, LookupError
    or ValueError where a field is missing or is of another type.
    """
    values = load_json_object(data, where)
    envelope = values["dsseEnvelope"]
    signatures = envelope["signatures"]
    payload = base64.b64decode(envelope["payload"], validate=True)
    _need(str(values["mediaType"]).startswith(MEDIA_TYPE), "another media type")
    _need(envelope["payloadType"] == PAYLOAD_TYPE, "its payload is of another type")
    _need(isinstance(signatures, list) and len(signatures) == 1, "it has not one signature")
    statement = load_json_object(payload, "its statement")
    _need(statement["_type"] == STATEMENT_TYPE, "its statement is of another type")
    _need(statement["predicateType"] == PREDICATE_TYPE, "its predicate is of another type")
    predicate = statement["predicate"]
    digests = _digests(predicate["resources"])
    _need(_root(digests) == statement["subject"][0]["digest"]["sha256"], "its digests disagree")
    serialization = predicate["serialization"]
    _need(serialization["method"] == "files", "it lists parts of files")
    return Signature(
        _key(values["verificationMaterial"]),
        digests,
        frozenset(map(str, serialization.get("ignore_paths", ()))),
        payload,
        base64.b64decode(signatures[0]["sig"], validate=True),
    )


def _digests(resources: list[Mapping[str, Any]]) -> dict[str, str]:
    _need(isinstance(resources, list) and len(resources) <= MAX_FILES, "it lists no files")
    digests: dict[str, str] = {}
    for resource in resources:
        name, digest = str(resource["name"]), str(resource["digest"])
        is_sha256 = resource["algorithm"] == "sha256" and SHA256.fullmatch(digest)
        _need(bool(is_sha256), f"{name} has no SHA-256")
        _need(name not in digests, f"{name} is listed twice")
        digests[name] = digest
    return digests


def _root(digests: Mapping[str, str]) -> str:
    """The SHA-256 of all digests in their order, as the statement's subject has it."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests.values()))).hexdigest()


def _key(material: Mapping[str, Any]) -> str | None:
    if "publicKey" not in material:
        return None
    hint = material["publicKey"]["hint"]
    _need(isinstance(hint, str) and bool(SHA256.fullmatch(hint)), "its key has no SHA-256")
    return str(hint)


def _need(is_right: bool, what: str) -> None:
    if not is_right:
        raise BundleError(what)
