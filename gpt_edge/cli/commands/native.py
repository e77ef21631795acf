"""`native`: which custom operators in C are in use and why; check, build or remove them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.options import JsonOption
from gpt_edge.cli.support.tables import parity_table


def native(
    action: Annotated[
        Literal["status", "check", "build", "remove"],
        typer.Argument(
            metavar="ACTION",
            help="Show what is in use, check it against onnxruntime's operators, build the library "
            "again, or remove what was built.",
        ),
    ] = "status",
    as_json: JsonOption = False,
) -> None:
    """Show, check, build or remove the custom operators in C.

    They make models faster and smaller, and every execution path bit-identical. pip builds them
    where it finds a C compiler. One library has a body for AVX2, AVX-VNNI, AVX-512 VNNI, AMX, NEON,
    dotprod and i8mm, and takes the best that the CPU has.
    build needs a C compiler and takes half a minute: it compiles the library anew, checks it on
    the built-in models, and installs it in the cache folder, where every later command finds it.
    check fails unless the built-in models' logits have the bits that they have on every CPU.
    GPT_EDGE_NATIVE=0 in the environment goes without operators, GPT_EDGE_ISA=avx2 forces a body.
    """
    from gpt_edge.native.library import find_library, installed_library
    from gpt_edge.verify import native_operators

    figures = None
    if action == "build":
        with console.progress("compiling") as progress:
            figures = native_operators.build_library(progress)
    if action == "remove":
        native_operators.remove_library()
    if action == "check":
        from gpt_edge.errors import GPTEdgeError

        library = installed_library()
        if library is None:
            raise GPTEdgeError(_why_unused(None), hint="gpt-edge native build")
        with console.progress("checking"):
            figures = native_operators.check_in_child(library)
    status = _status(find_library())
    if as_json:
        console.say_json(status | ({} if figures is None else {"parity": figures}))
        return
    if figures is not None:
        console.say(parity_table(figures) + "\n")
        console.say("the built-in models have the bits that they have on every CPU")
    if status["library"] is None:
        console.say(f"not in use: {status['reason']}")
        return
    console.say(
        f"in use: {status['body']}, the best of {', '.join(status['bodies'])} on this CPU"
        if status["body"] == status["bodies"][0]
        else f"in use: {status['body']}, which GPT_EDGE_ISA names; this CPU runs "
        f"{', '.join(status['bodies'])}"
    )
    console.say(f"library: {console.visible(status['library'])}")
    _say_what_stays()


def _say_what_stays() -> None:
    """What the operators leave to onnxruntime in the built-in models; `inspect` tells it of
    others.
    """
    from gpt_edge.bundle.bundle import Bundle
    from gpt_edge.bundle.reader import builtin_bundles
    from gpt_edge.cli.support.operators import operator_figures

    for name in builtin_bundles():
        outside = operator_figures(Bundle.open(name))["outside"]
        stays = [f"{one['count']} x {one['operator']}, {one['reason']}" for one in outside]
        console.say(
            f"{name}: {'; '.join(stays) or 'no product, attention or norm'} stays with onnxruntime"
        )


def _status(library: Path | None) -> dict[str, Any]:
    from gpt_edge.native.library import bodies, body_in_use

    if library is None:
        reason = _why_unused(library)
        return {"library": None, "body": None, "bodies": [], "reason": reason}
    return {
        "library": str(library),
        "body": body_in_use(library),
        "bodies": bodies(library),
        "reason": None,
    }


def _why_unused(library: Path | None) -> str:
    from gpt_edge.native.library import SETTING, WITHOUT, bodies, built_path, installed_library

    if os.environ.get(SETTING) == WITHOUT:
        return f"{SETTING} is {WITHOUT}"
    library = library or installed_library()
    if library is not None:
        if not bodies(library):
            return "no body of the operators is for this CPU"
        return f"{library} fails its self-check on this CPU"
    if built_path().is_file():
        return f"others may write to {built_path()} or to its folder; chmod go-w"
    return "pip found no C compiler; with one, gpt-edge native build makes them"
