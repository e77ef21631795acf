"""Sign a bundle with a private key, through the model-signing package (extra `sign`), so that every
tool that knows the OpenSSF Model Signing format can check it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.manifest import SIGNATURE_FILE
from gpt_edge.bundle.reader import SYSTEM_FILES
from gpt_edge.errors import OutputError, SignatureError, require
from gpt_edge.signing.check import differences
from gpt_edge.signing.keys import EXTRA, private_key, read_key
from gpt_edge.signing.signature import Signature, parse_signature
from gpt_edge.system.atomic_files import atomic_write


def sign_bundle(
    path_or_name: str | os.PathLike[str],
    key: str | os.PathLike[str],
    *,
    password: str | None = None,
    force: bool = False,
) -> Signature:
    """Sign every file of a bundle and write `model.sig` beside them; no file is changed.

    key: a PEM file with a private key of P-256, P-384 or P-521; password: of an encrypted one.
    force: replace a signature that is there. Uses no network. Raises SignatureError for a key that
    cannot be used, BundleError for a bundle that is not as its manifest says, OutputError,
    MissingDependencyError without the extra.
    """
    require("model_signing", EXTRA)
    bundle, place = Bundle.open(path_or_name), Path(key)
    private_key(read_key(place), place, password)  # for its errors, before the files are hashed
    target = bundle.path / SIGNATURE_FILE
    if os.path.lexists(target) and not force:
        raise OutputError(
            f"{target} exists: {bundle.path} is signed",
            hint="replace the signature with force=True",
            cli_hint="replace the signature with --force",
        )
    data = _signed(bundle.path, place, password)
    signature = parse_signature(data, str(target))
    if wrong := differences(bundle, signature):
        raise SignatureError(f"{bundle.path} changed while it was signed: {wrong[0]}")
    atomic_write(target, data)
    return signature


def _signed(folder: Path, key: Path, password: str | None) -> bytes:
    """The signature file for a folder, as the package writes it."""
    from model_signing import hashing, signing

    ignored = [SIGNATURE_FILE, *sorted(SYSTEM_FILES)]
    config = signing.Config().use_elliptic_key_signer(private_key=key, password=_bytes(password))
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=ignored))
    with tempfile.TemporaryDirectory(prefix="gpt-edge-") as scratch:
        target = Path(scratch, SIGNATURE_FILE)
        try:
            config.sign(folder, target)
        except (OSError, ValueError) as error:  # ValueError: a link in the folder
            raise SignatureError(f"{folder} cannot be signed: {error}") from error
        return target.read_bytes()


def _bytes(password: str | None) -> bytes | None:
    # the package's signature says str, and hands it on to a function that takes bytes alone
    return None if password is None else password.encode()
