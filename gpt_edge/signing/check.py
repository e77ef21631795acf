"""Is a bundle as it was signed, and by whom? `differences` compares its files with a signature
without a package; `check_signature` asks the key as well (extra `sign`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from gpt_edge.bundle.bundle import NO_CHECKSUM, Bundle
from gpt_edge.bundle.manifest import MANIFEST_FILE, SHA256, SIGNATURE_FILE
from gpt_edge.bundle.reader import SYSTEM_FILES
from gpt_edge.errors import SignatureError
from gpt_edge.signing.signature import PAYLOAD_TYPE, Signature, read_signature
from gpt_edge.system.disk import FolderReader, sha256_stream

# what version control keeps beside a model; no file of a bundle may begin with a dot
GIT_NAMES = frozenset({".git", ".gitattributes", ".github", ".gitignore"})
COPY_HINT = "get the bundle again from whoever signed it"


def check_signature(bundle: Bundle, key: Path) -> Signature:
    """Check that `key`, the file of a public key, signed every file of a bundle, and that nothing
    changed since.

    Raises SignatureError naming the first thing that is wrong: no signature, another key, a
    signature that the key did not make, a file that was changed, removed or added;
    MissingDependencyError without the extra.
    """
    from gpt_edge.signing.keys import fingerprint, public_key, read_key

    signature = read_signature(bundle.path)
    if signature is None:
        raise SignatureError(
            f"{bundle.path} is not signed: it has no {SIGNATURE_FILE}",
            hint="gpt-edge sign BUNDLE --key PRIVATE_KEY signs it",
        )
    given = public_key(read_key(key), key)
    if signature.key != fingerprint(given):
        raise SignatureError(
            f"{bundle.path} was signed by {signature.signer}, expected the key "
            f"{fingerprint(given)}",
            hint=f"ask whoever signed it for the public key; {key} is another one",
        )
    if not is_made_by(signature, given):
        raise SignatureError(
            f"{bundle.path / SIGNATURE_FILE} is forged or damaged: the key {signature.key} did "
            "not sign what it says",
            hint=COPY_HINT,
        )
    if wrong := differences(bundle, signature):
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise SignatureError(
            f"{bundle.path} is not as it was signed: {wrong[0]}{more}", hint=COPY_HINT
        )
    return signature


def is_made_by(signature: Signature, key: object) -> bool:
    """Whether that public key made the signature. Source: DSSE v1.0, the encoding that is
    signed.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

    from gpt_edge.signing.keys import hash_of

    head = f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(signature.payload)} "
    try:
        key.verify(  # type: ignore[attr-defined]
            signature.signed, head.encode() + signature.payload, ECDSA(hash_of(key))
        )
    except InvalidSignature:
        return False
    return True


def differences(bundle: Bundle, signature: Signature) -> list[str]:
    """What is not as the signature says, a phrase for each file: changed, missing, added, or a part
    of the bundle that was never signed.

    Files whose hash the manifest has were hashed when the bundle was opened; others are hashed now.
    Raises SignatureError for a file that cannot be read.
    """
    try:
        found = _files(bundle.path)
        changed = [
            f"{name} was changed after it was signed"
            for name, digest in signature.digests.items()
            if name in found and _digest(bundle, name) != digest
        ]
    except (OSError, ValueError) as error:
        raise SignatureError(f"{bundle.path} cannot be compared with its signature: {error}") from (
            error
        )
    missing = [f"{name} is missing" for name in signature.digests if name not in found]
    unsigned = [name for name in found if name not in signature.digests]
    own = {*bundle.manifest.files, MANIFEST_FILE}
    left_out = tuple(signature.ignored | GIT_NAMES | SYSTEM_FILES)
    added = [
        f"{name} was not signed" for name in unsigned if name in own or not _lies_in(name, left_out)
    ]
    return changed + missing + added


def _lies_in(name: str, places: Iterable[str]) -> bool:
    return any(name == place or name.startswith(f"{place}/") for place in places)


def _files(folder: Path) -> list[str]:
    """Paths of all files of a bundle but its signature, by slashes; links count as files."""
    found = []
    for place, inner, names in os.walk(folder):
        links = [name for name in inner if os.path.islink(os.path.join(place, name))]
        for name in (*names, *links):
            found.append(Path(place, name).relative_to(folder).as_posix())
    return sorted(name for name in found if name != SIGNATURE_FILE)


def _digest(bundle: Bundle, name: str) -> str:
    record = bundle.manifest.files.get(name)
    if (
        record is not None
        and record["sha256"] != NO_CHECKSUM
        and SHA256.fullmatch(record["sha256"])
    ):
        return record["sha256"]
    path = bundle.path / name
    with FolderReader(path.parent) as folder, folder.open(path.name) as stream:
        return sha256_stream(stream)
