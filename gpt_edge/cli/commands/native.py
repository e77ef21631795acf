"""`native`: the status of the custom operators in C; build or remove them."""

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
    from gpt_edge.native.library import find_library

    figures = None
    if action == "build":
        from gpt_edge.verify.native_operators import build_library

        with console.progress("compiling") as progress:
            figures = build_library(progress)
    if action == "remove":
        from gpt_edge.verify.native_operators import remove_library

        remove_library()
    library = find_library()
    reason = _why_unused() if library is None else None
    if as_json:
        status = {"library": None if library is None else str(library), "reason": reason}
        console.say_json(status | ({} if figures is None else {"parity": figures}))
        return
    if figures is not None:
        console.say(parity_table(figures) + "\n")
    console.say(
        f"not in use: {reason}" if library is None else f"in use: {console.visible(str(library))}"
    )


def _why_unused() -> str:
    from gpt_edge.native.library import SETTING, library_path, why_unsupported

    if (reason := why_unsupported()) is not None:
        return reason
    if os.environ.get(SETTING) == "0":
        return f"{SETTING} is 0"
    if library_path().is_file():
        return f"others may write to {library_path()} or to its folder; chmod go-w"
    return f"nothing is built; gpt-edge native build would create {library_path().name}"
