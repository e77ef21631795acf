"""`native`: the operators in C, compiled here. Asks, builds, removes."""

from __future__ import annotations

import os
from typing import Annotated, Literal

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.options import JsonOption
from gpt_edge.cli.support.tables import parity_table


def native(
    action: Annotated[
        Literal["status", "build", "remove"],
        typer.Argument(
            metavar="ACTION", help="Show the status of the library, build it, or remove it."
        ),
    ] = "status",
    as_json: JsonOption = False,
) -> None:
    """Build the custom operators in C for this CPU.

    They make models faster and smaller, and every execution path bit-identical. build needs a C
    compiler and takes half a minute. It checks the operators against onnxruntime's on the built-in
    models, then installs the library in the cache folder, where every later command finds it. Set
    GPT_EDGE_NATIVE=0 in the environment to run without it.
    """
    from gpt_edge.native.library import SETTING, find_library, library_path, why_unsupported

    figures = None
    if action == "build":
        from gpt_edge.verify.native_operators import build_library

        with console.progress("compiling") as progress:
            figures = build_library(progress)
    if action == "remove":
        from gpt_edge.verify.native_operators import remove_library

        remove_library()
    found = find_library()
    reason = None
    if found is None:
        reason = why_unsupported()
        if reason is None and os.environ.get(SETTING) == "0":
            reason = f"{SETTING} is 0"
        if reason is None and library_path().is_file():
            reason = f"others may write to {library_path()} or to its folder; chmod go-w"
        reason = (
            reason or f"nothing is built; gpt-edge native build would make {library_path().name}"
        )
    if as_json:
        told = {"library": None if found is None else str(found), "reason": reason}
        console.say_json(told | ({} if figures is None else {"parity": figures}))
        return
    if figures is not None:
        console.say(parity_table(figures) + "\n")
    console.say(
        f"not in use: {reason}" if found is None else f"in use: {console.visible(str(found))}"
    )
