"""`sign`: sign a bundle, so that others can tell that it is yours and unchanged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.options import BUNDLE_NAME_HELP, JsonOption, complete_bundle
from gpt_edge.cli.support.stdin import is_terminal_input

PASSWORD_VARIABLE = "GPT_EDGE_KEY_PASSWORD"


def sign(
    bundle: Annotated[
        str,
        typer.Argument(
            metavar="BUNDLE", help=f"{BUNDLE_NAME_HELP}.", autocompletion=complete_bundle
        ),
    ],
    key: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Private key, a PEM file of the curve P-256, P-384 or P-521. The password of an "
            f"encrypted one is asked for, or taken from {PASSWORD_VARIABLE}.",
        ),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Replace the signature that is there.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Sign a bundle in the OpenSSF Model Signing format.

    Writes model.sig into the bundle and changes nothing else; `verify --key` and other tools of the
    format check it with the public key. Needs the extra sign.
    """
    from gpt_edge.bundle.manifest import SIGNATURE_FILE
    from gpt_edge.bundle.reader import resolve_bundle_path
    from gpt_edge.signing.sign import sign_bundle

    signature = sign_bundle(bundle, key, password=_password(key), force=force)
    target = resolve_bundle_path(bundle) / SIGNATURE_FILE
    n_files = len(signature.digests)
    if as_json:
        values = {"signature": str(target), "key": signature.key, "files": dict(signature.digests)}
        console.say_json(values)
        return
    name = console.visible(str(target))
    console.say(f"{name}: {n_files} files signed with the key {signature.key}")


def _password(key: Path) -> str | None:
    """Of an encrypted key, asked for where somebody can answer."""
    from gpt_edge.signing.keys import is_encrypted, read_key

    if not is_encrypted(read_key(key)):
        return None
    if (known := os.environ.get(PASSWORD_VARIABLE)) is not None or not is_terminal_input():
        return known
    from getpass import getpass

    return getpass(f"Password of {console.visible(str(key))}: ")
