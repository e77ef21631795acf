"""The output of `export` and `quantize`: the new bundle and its figures, or those of a failure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gpt_edge.cli.support import console
from gpt_edge.cli.support.tables import describe, parity_table, size
from gpt_edge.errors import ParityError

if TYPE_CHECKING:
    from gpt_edge.bundle.bundle import Bundle


@contextmanager
def figures_of_failure(as_json: bool) -> Iterator[None]:
    """Print the figures of an export that is out of tolerance before the error is reported."""
    try:
        yield
    except ParityError as error:
        if as_json:
            console.say_json({"ok": False, "fault": error.message, "parity": error.figures})
        elif error.figures:
            console.say(parity_table(error.figures))
        raise


def print_exported(
    bundle: Bundle, figures: dict[str, Any], as_json: bool, more: Mapping[str, Any] | None = None
) -> None:
    """Print a new bundle and its figures. more: further fields of the JSON object."""
    if as_json:
        console.say_json({"ok": True, **describe(bundle), **(more or {}), "parity": figures})
        return
    n_files = len(bundle.manifest.files) + 1
    what = f"{bundle.scheme}, {bundle.graph} graph"
    if bundle.manifest.base is not None:
        what = f"adapter of {bundle.manifest.base['name']}"
    elif bundle.config.takes_adapters:
        what = f"base, {what}"
    console.say(f"{bundle.path}: {what}, {size(bundle.n_bytes)} in {n_files} files")
    console.say()
    console.say(parity_table(figures))
