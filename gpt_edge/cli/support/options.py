"""Arguments and options that several commands share, and the shell's completion of bundles."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gpt_edge.schemes import EXPORTED, INT8_DYNAMIC, QUANTIZED, SCHEMES

GraphName = Literal["edge", "portable"]
if TYPE_CHECKING:  # typer reads the choices from the table
    SchemeName = str
    QuantizedSchemeName = str
else:
    SchemeName = Literal[EXPORTED]
    QuantizedSchemeName = Literal[QUANTIZED]
UNITS = {"K": 10**3, "M": 10**6, "G": 10**9}
TargetName = Literal["avx2", "avx512_vnni", "arm64"]


def complete_bundle(incomplete: str) -> list[str]:
    """Names of built-in models and of folders that begin with `incomplete`."""
    from gpt_edge.bundle.reader import builtin_bundles

    parent, separator, beginning = incomplete.rpartition(os.sep)
    names = [name for name in builtin_bundles() if name.startswith(incomplete)]
    try:
        with os.scandir(parent + separator or ".") as entries:
            folders = sorted(
                entry.name
                for entry in entries
                if entry.is_dir() and entry.name.startswith(beginning)
            )
    except OSError:
        folders = []
    return names + [parent + separator + folder for folder in folders]


BUNDLE_NAME_HELP = "Bundle folder, or name of a built-in model"
BUNDLE_HELP = f"{BUNDLE_NAME_HELP}; by default the built-in story model."

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
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="JSON file that stands for the checkpoint's config.json, or says what a state dict "
        "does not, such as n_head.",
    ),
]
AdapterOption = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="LoRA adapter of PEFT to merge into the checkpoint: a folder, or hf://OWNER/NAME.",
    ),
]
OutArgument = Annotated[Path, typer.Argument(metavar="OUT", help="Folder to create.")]
TargetOption = Annotated[
    TargetName | None,
    typer.Option(
        help="CPU to optimize for, with --scheme int8-dynamic only; by default avx2, exact on "
        "every CPU."
    ),
]
ActivationOption = Annotated[
    Literal["gelu", "gelu_tanh"] | None,
    typer.Option(
        help="Activation of nanoGPT's ckpt.pt, which does not say it: gelu_tanh for one from "
        "before June 2023; by default gelu."
    ),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Replace an existing bundle or exported folder at OUT.")
]
AcceptParityOption = Annotated[
    bool,
    typer.Option(
        "--accept-parity",
        help="Publish a bundle that is out of tolerance too; its manifest and inspect say so.",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(help="CPU threads to use; by default one per physical core, at most 16."),
]
ProfileOption = Annotated[
    Literal["default", "phone"],
    typer.Option(
        help="How to use the machine: phone takes at most two threads, on big cores, without "
        "spinning, and reads long prompts in smaller pieces."
    ),
]
MaxMemoryOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Refuse a model that would take more memory with a full context, such as 500MB or "
        "1.5GB.",
    ),
]
SpecialOption = Annotated[
    bool,
    typer.Option(
        "--special",
        help="Read special tokens that the text spells, such as <|endoftext|>, as their ids; by "
        "default they are plain text.",
    ),
]
RawOption = Annotated[
    bool,
    typer.Option(
        "--raw",
        help="Let control characters of the text reach a terminal; by default they are shown as "
        "escapes there, such as \\x1b. Files and pipes get the text as it is.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def check_target(scheme: str, target: str | None) -> None:
    """Raise ValueError for a --target that would have no effect."""
    if target is not None and not SCHEMES[scheme].by_optimum:
        raise ValueError(
            f"--target {target} needs --scheme {INT8_DYNAMIC.name}; {scheme} runs on every CPU"
        )


def parse_memory(size: str, name: str = "--max-memory") -> int:
    """Bytes of a size such as 500MB or 1.5GB. Raises ValueError for another text, with the option's
    name.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG])B?", size.strip(), re.IGNORECASE)
    if found is None:
        raise ValueError(f"{name} must be a size such as 500MB or 1.5GB, got {size!r}")
    return int(float(found[1]) * UNITS[found[2].upper()])
