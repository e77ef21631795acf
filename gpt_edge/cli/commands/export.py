"""`export`: a checkpoint to a bundle or a transformers folder. Needs the extra `export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from gpt_edge.cli.support import console
from gpt_edge.cli.support.export_output import figures_of_failure, print_exported
from gpt_edge.cli.support.options import (
    AcceptParityOption,
    ActivationOption,
    AdapterOption,
    ConfigOption,
    ForceOption,
    GraphName,
    JsonOption,
    OutArgument,
    SchemeName,
    TargetOption,
    check_target,
)
from gpt_edge.cli.support.tables import parity_table, size
from gpt_edge.errors import require
from gpt_edge.schemes import INT8

PIPELINE = "gpt_edge.export.pipeline.export"
# options that do not apply to a transformers folder
FOR_BUNDLES = ("graph", "scheme", "target", "pattern", "accept_parity")


@dataclass(frozen=True, slots=True)
class OtherFormatOptions:
    """The options that count for a transformers folder and a GGUF file too."""

    tokenizer: str | None
    activation: str | None
    config: Path | None
    adapter: str | None
    force: bool


def export(
    context: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="Checkpoint: a folder, a torch file, or hf://OWNER/NAME; with --to ort also a "
            "bundle.",
        ),
    ],
    out: OutArgument,
    to: Annotated[
        Literal["bundle", "base", "transformers", "gguf", "ort"],
        typer.Option(
            help="Output format: a gpt-edge bundle, a bundle without a head that adapters run on, "
            "a float32 folder for transformers and the tools that read its folders, a GGUF file "
            "for llama.cpp, or onnxruntime's .ort file for minimal builds."
        ),
    ] = "bundle",
    base: Annotated[
        str | None,
        typer.Option(
            metavar="BUNDLE",
            help="Export what finetune --lora-rank trained as an adapter of this base, which "
            "--to base made of the checkpoint that it started from.",
        ),
    ] = None,
    graph: Annotated[
        GraphName,
        typer.Option(
            help="ONNX graph: edge for gpt-edge, portable for any ONNX runtime and Optimum."
        ),
    ] = "edge",
    scheme: Annotated[
        SchemeName, typer.Option(help="Quantization scheme of the weights.")
    ] = INT8.name,
    target: TargetOption = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME",
            help="Tokenizer file, folder or name (gpt2), or none; by default the one beside the "
            "checkpoint.",
        ),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|REGEX",
            help="Split pattern of the rank file that --tokenizer names, where it is not known: "
            "gpt2, cl100k, o200k or a regular expression.",
        ),
    ] = None,
    activation: ActivationOption = None,
    gguf_type: Annotated[
        Literal["f32", "f16", "q8_0"],
        typer.Option(help="Type of the matrices in a GGUF file."),
    ] = "f16",
    config: ConfigOption = None,
    adapter: AdapterOption = None,
    accept_parity: AcceptParityOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Export a checkpoint to a verified bundle.

    Reads Hugging Face folders (GPT-1, GPT-2, GPT-Neo, and their classifiers), OpenAI's GPT-1 and
    GPT-2 files, nanoGPT's, build-nanogpt's and minGPT's files, Lightning's checkpoints of such
    models, and gpt-edge checkpoints; hf://OWNER/NAME[@REVISION] downloads one. Compares the outputs
    with the checkpoint's, and publishes nothing that is out of tolerance. Needs the extra
    gpt-edge[export].
    """
    if base is not None:
        _check_adapter_options(context)
        _export_adapter(source, out, base, accept_parity, force, as_json)
        return
    if to in ("transformers", "gguf"):
        _check_options(context, to)
        options = OtherFormatOptions(tokenizer, activation, config, adapter, force)
        if to == "transformers":
            _export_transformers(source, out, options, as_json)
        else:
            _export_gguf(source, out, gguf_type, options, as_json)
        return
    check_target(scheme, target)
    if to == "ort":
        if any((pattern, activation, config, adapter)):
            raise ValueError(
                "--pattern, --activation, --config and --adapter are for bundles; export a bundle "
                "with them, and that bundle with --to ort"
            )
        _export_ort(source, out, graph, scheme, target, tokenizer, force, as_json)
        return
    with figures_of_failure(as_json), console.progress("loading torch") as progress:
        require(PIPELINE, "export")
        if to == "base":
            from gpt_edge.export.pipeline.adapters import export_base as export_bundle
        else:
            from gpt_edge.export.pipeline.export import export_bundle

        bundle, report = export_bundle(
            source,
            out,
            graph=graph,
            scheme=scheme,
            target=target,
            tokenizer=tokenizer,
            pattern=pattern,
            activation=activation,
            config=config,
            adapter=adapter,
            accept_parity=accept_parity,
            force=force,
            progress=progress,
        )
    print_exported(bundle, report.figures, as_json)


def _check_options(context: typer.Context, to: str) -> None:
    """Refuse options of bundles, which would have no effect."""
    what = "float32 weights" if to == "transformers" else "one of its own types, see --gguf-type"
    for name in FOR_BUNDLES:
        source_of_value = context.get_parameter_source(name)
        if source_of_value is not None and source_of_value.name == "COMMANDLINE":
            raise ValueError(f"--{name.replace('_', '-')} is for bundles; --to {to} writes {what}")


def _check_adapter_options(context: typer.Context) -> None:
    """Refuse options that an adapter takes from its base."""
    allowed = ("source", "out", "base", "accept_parity", "force", "as_json")
    for name in context.params:
        source_of_value = context.get_parameter_source(name)
        is_given = source_of_value is not None and source_of_value.name == "COMMANDLINE"
        if is_given and name not in allowed:
            raise ValueError(
                f"--{name.replace('_', '-')} is not for --base: an adapter takes graph, scheme and "
                "tokenizer from its base"
            )


def _export_adapter(
    source: Path, out: Path, base: str, accept_parity: bool, force: bool, as_json: bool
) -> None:
    from gpt_edge.bundle.bundle import Bundle

    opened = Bundle.open(base)
    with figures_of_failure(as_json), console.progress("loading torch") as progress:
        require(PIPELINE, "export")
        from gpt_edge.export.pipeline.adapters import export_adapter

        bundle, report = export_adapter(
            source, out, opened, accept_parity=accept_parity, force=force, progress=progress
        )
    print_exported(bundle, report.figures, as_json)


def _export_transformers(
    source: Path,
    out: Path,
    options: OtherFormatOptions,
    as_json: bool,
) -> None:
    with figures_of_failure(as_json), console.progress("loading torch") as progress:
        require(PIPELINE, "export")
        from gpt_edge.export.transformers.folder import export_transformers

        exported = export_transformers(
            source,
            out,
            tokenizer=options.tokenizer,
            activation=options.activation,
            config=options.config,
            adapter=options.adapter,
            force=options.force,
            progress=progress,
        )
    if as_json:
        values = {
            "folder": str(exported.path),
            "model_type": exported.model_type,
            "files": exported.files,
        }
        console.say_json(
            {"ok": True, **values, "notes": list(exported.notes), "parity": exported.figures}
        )
        return
    sizes = f"{size(exported.n_bytes)} in {len(exported.files)} files"
    console.say(f"{exported.path}: transformers' {exported.model_type}, {sizes}")
    console.say()
    console.say(parity_table(exported.figures))
    for note in exported.notes:
        console.say(console.visible(f"note: {note}"))


def _export_ort(
    source: Path,
    out: Path,
    graph: str,
    scheme: str,
    target: str | None,
    tokenizer: str | None,
    force: bool,
    as_json: bool,
) -> None:
    with figures_of_failure(as_json), console.progress("loading torch") as progress:
        require(PIPELINE, "export")
        from gpt_edge.export.ort.folder import export_ort

        exported = export_ort(
            source,
            out,
            graph=graph,
            scheme=scheme,
            target=target,
            tokenizer=tokenizer,
            force=force,
            progress=progress,
        )
    if as_json:
        values = {"folder": str(exported.path), "files": exported.files}
        counts = {"operators": exported.operators, "unsigned_products": exported.n_unsigned}
        console.say_json({"ok": True, **values, **counts, "parity": exported.figures})
        return
    console.say(f"{exported.path}: {size(exported.n_bytes)} in {len(exported.files)} files")
    console.say(f"onnxruntime's operators: {exported.operators}; custom operators stay out")
    if exported.n_unsigned:
        console.say(f"{exported.n_unsigned} integer products: uint8 weights, exact on every CPU")
    console.say()
    console.say(parity_table(exported.figures))


def _export_gguf(
    source: Path, out: Path, gguf_type: str, options: OtherFormatOptions, as_json: bool
) -> None:
    with console.progress("loading torch") as progress:
        require(PIPELINE, "export")
        from gpt_edge.export.gguf.file import export_gguf

        exported = export_gguf(
            source,
            out,
            type=gguf_type,
            tokenizer=options.tokenizer,
            activation=options.activation,
            config=options.config,
            adapter=options.adapter,
            force=options.force,
            progress=progress,
        )
    if as_json:
        values = {"file": str(exported.path), "bytes": exported.n_bytes, "types": exported.types}
        more = {"max_error": exported.max_error, "notes": list(exported.notes)}
        console.say_json({"ok": True, **values, **more})
        return
    counts = ", ".join(f"{count} {kind}" for kind, count in exported.types.items())
    console.say(f"{exported.path}: {size(exported.n_bytes)}, tensors: {counts}")
    console.say(f"largest difference of a weight read back: {exported.max_error:.3g}")
    for note in exported.notes:
        console.say(console.visible(f"note: {note}"))
