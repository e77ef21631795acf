"""What `inspect` says of a bundle's signature, without a package: who made it by its own words, and
whether the files are as it says.
"""

from __future__ import annotations

from typing import Any

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.errors import SignatureError
from gpt_edge.signing.check import differences
from gpt_edge.signing.signature import read_signature


def signature_figures(bundle: Bundle) -> dict[str, Any] | None:
    """The signature as JSON values, None without one; `error` says what is wrong with its file."""
    try:
        signature = read_signature(bundle.path)
        if signature is None:
            return None
        return {"key": signature.key, "differences": differences(bundle, signature)}
    except SignatureError as error:
        return {"error": error.message}


def signature_fact(figures: dict[str, Any] | None) -> str:
    """The same in one line."""
    if figures is None:
        return "none"
    if "error" in figures:
        return str(figures["error"])
    signer = f"key {figures['key']}" if figures["key"] else "a certificate"
    if figures["differences"]:
        return f"{signer}; WRONG: {figures['differences'][0]}"
    return f"{signer}, not checked: see verify --key"
