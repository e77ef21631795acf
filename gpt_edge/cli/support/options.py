"""Arguments and options that several commands share, and what a shell completes for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

GraphName = Literal["edge", "portable"]
SchemeName = Literal["fp32", "int8", "int8-block", "int4", "int8-dynamic"]
TargetName = Literal["avx2", "avx512_vnni", "arm64"]


def complete_bundle(incomplete: str) -> list[str]:
    """Names of embedded bundles and of folders that begin with what was typed."""
    from gpt_edge.bundle.reader import embedded_bundles

    folder, _, beginning = incomplete.rpartition(os.sep)
    names = [name for name in embedded_bundles() if name.startswith(incomplete)]
    try:
        with os.scandir(
            folder + os.sep if folder or incomplete.startswith(os.sep) else "."
        ) as entries:
            found = sorted(
                entry.name
                for entry in entries
                if entry.is_dir() and entry.name.startswith(beginning)
            )
    except OSError:
        found = []
    return names + [
        os.path.join(incomplete[: len(incomplete) - len(beginning)], name) for name in found
    ]


BUNDLE_HELP = "Bundle folder, or name of an embedded bundle; by default the embedded one."

BundleArgument = Annotated[
    str | None,
    typer.Argument(metavar="BUNDLE", help=BUNDLE_HELP, autocompletion=complete_bundle),
]
BundleOption = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        metavar="BUNDLE",
        help=BUNDLE_HELP,
        autocompletion=complete_bundle,
    ),
]
OutArgument = Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make.")]
TargetOption = Annotated[
    TargetName | None,
    typer.Option(help="Kind of CPU, for int8-dynamic alone; avx512_vnni if not given."),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def check_target(scheme: str, target: str | None) -> None:
    """Raise ValueError for a --target that would have no effect."""
    if target is not None and scheme != "int8-dynamic":
        raise ValueError(
            f"--target {target} is for --scheme int8-dynamic; {scheme} runs on every CPU"
        )
