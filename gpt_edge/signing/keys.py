"""Keys of signatures: PEM files with a key of the elliptic curves P-256, P-384 or P-521. Needs the
extra `sign`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from gpt_edge.errors import SignatureError, require

EXTRA = "sign"
CURVES = ("secp256r1", "secp384r1", "secp521r1")
MAX_KEY_BYTES = 1 << 16
MAKE_HINT = "openssl ecparam -name prime256v1 -genkey -noout -out signing.key makes a private key"
PUBLIC_HINT = "openssl ec -in signing.key -pubout -out signing.pub writes its public key"


def read_key(path: Path) -> bytes:
    """The bytes of a key file. Raises SignatureError for one that cannot be read or is no PEM
    file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise SignatureError(
            f"the key {path} cannot be read: {error.strerror or error}", hint=MAKE_HINT
        ) from error
    if b"-----BEGIN" not in data or len(data) > MAX_KEY_BYTES:
        raise SignatureError(f"{path} holds no key, expected a PEM file", hint=MAKE_HINT)
    return data


def is_encrypted(data: bytes) -> bool:
    """Whether a PEM file wants a password."""
    return b"ENCRYPTED" in data


def private_key(data: bytes, path: Path, password: str | None) -> Any:
    """The private key in a PEM file, of the cryptography package. Raises SignatureError for another
    kind of key and a wrong password, MissingDependencyError without the extra.
    """
    require("cryptography.hazmat.primitives.serialization", EXTRA)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if b"PRIVATE KEY" not in data:
        raise SignatureError(f"{path} holds no private key", hint=MAKE_HINT)
    secret = password.encode() if password and is_encrypted(data) else None
    try:
        key = load_pem_private_key(data, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        wrong = "no password, or a wrong one, was given" if is_encrypted(data) else "it is damaged"
        raise SignatureError(f"the private key {path} cannot be used: {wrong}") from error
    _check_curve(key, path)
    return key


def public_key(data: bytes, path: Path) -> Any:
    """The public key in a PEM file, of the cryptography package. Raises SignatureError for another
    kind of key, MissingDependencyError without the extra.
    """
    require("cryptography.hazmat.primitives.serialization", EXTRA)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if b"PRIVATE KEY" in data:
        raise SignatureError(f"{path} is a private key, expected the public one", hint=PUBLIC_HINT)
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"{path} holds no public key", hint=PUBLIC_HINT) from error
    _check_curve(key, path)
    return key


def fingerprint(key: Any) -> str:
    """SHA-256 of a public key's PEM text, 64 hex digits: what `sha256sum` says of the file that
    openssl writes.
    """
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    text = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(text).hexdigest()


def hash_of(key: Any) -> Any:
    """The hash that a signature of such a key is made with, by the size of its curve."""
    from cryptography.hazmat.primitives import hashes

    choices = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
    return choices[key.curve.key_size]


def _check_curve(key: Any, path: Path) -> None:
    curve = getattr(getattr(key, "curve", None), "name", None)
    if curve not in CURVES:
        raise SignatureError(
            f"{path} is a key of {curve or 'another kind'}, expected an elliptic curve key of "
            "P-256, P-384 or P-521",
            hint=MAKE_HINT,
        )
