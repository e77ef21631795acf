"""A checkpoint goes in, a verified bundle comes out: the roads behind `export`, `quantize` and
`verify`.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from gpt_edge.bundle.bundle import Bundle, FileRecord, Manifest
from gpt_edge.bundle.writer import BundleWriter, new_bundle
from gpt_edge.config import GPTConfig
from gpt_edge.errors import BundleError, ExportError, TokenizerError
from gpt_edge.export.formats.rounding import RoundWeight
from gpt_edge.export.formats.tensor_format import Plan
from gpt_edge.export.graph.build import MODEL_FILE, build_graph, check_structure
from gpt_edge.export.graph.optimum_int8 import quantize_dynamic, write_optimum_config
from gpt_edge.export.pipeline.task_pipeline import export_task, quantize_task, verify_task
from gpt_edge.export.verify.verifier import Verifier, ask_reference, ask_session
from gpt_edge.export.weights.bundle_source import BundleSource
from gpt_edge.export.weights.smoothing import smooth
from gpt_edge.export.weights.source import DATA_FILE, Source
from gpt_edge.native.library import WITHOUT, using
from gpt_edge.onnx_contract import MIXED, SCHEMES
from gpt_edge.reference.checkpoint import read_checkpoint_config
from gpt_edge.reference.importers import Checkpoint, open_checkpoint
from gpt_edge.runtime.session import Session
from gpt_edge.tokenizer import (
    TokenizerSource,
    build_tokenizer,
    check_fits,
    find_tokenizer,
    tokenizer_from,
)
from gpt_edge.verify import parity
from gpt_edge.verify.report import Progress, Verification, silent, words_of
from gpt_edge.version import __version__

NO_TOKENIZER = "none"
DEFAULT_TARGET = "avx512_vnni"
BYTES_PER_WEIGHT = {
    "fp32": 4.0,
    "int8": 1.1,
    "int8-block": 1.1,
    "int4": 0.7,
    "mixed": 2.1,
    "int8-dynamic": 1.1,
}


@using(WITHOUT)  # what is published is measured as everybody runs it
def export_bundle(
    source: Path,
    out: Path,
    *,
    graph: str = "edge",
    scheme: str = "int8",
    target: str | None = None,
    tokenizer: str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> tuple[Bundle, Verification]:
    """Export the checkpoint at `source` into a bundle at `out`, and return it with the figures that
    prove it.

    graph: "edge" or "portable". scheme: one of onnx_contract.SCHEMES. target: Optimum's preset, for
    int8-dynamic only.
    tokenizer: a file, a folder, a name, or "none"; None looks into `source`. force: replace a
    bundle at `out`.
    progress: called with the name of each stage and of each weight.
    Raises CheckpointError, TokenizerError, ExportError, ParityError (a figure is out of tolerance)
    or OutputError; then `out` is as it was.
    """
    _check_target(scheme, target)
    checkpoint = open_checkpoint(source)
    words = tokenizer_for(checkpoint, tokenizer)
    if checkpoint.task is not None:
        return export_task(
            checkpoint,
            out,
            _name(out),
            words,
            graph=graph,
            scheme=scheme,
            force=force,
            n_bytes=_estimate(checkpoint.config, scheme),
            progress=progress,
        )
    probes = parity.probes(checkpoint.config, build_tokenizer(words) if words else None)
    rounded = smooth(checkpoint, graph, scheme)
    with new_bundle(
        out, force=force, source=Path(source), n_bytes=_estimate(checkpoint.config, scheme)
    ) as writer:
        progress("asking the reference")
        verifier = Verifier("torch", probes, ask_reference(checkpoint, probes), progress)
        # The fp32 graph is the witness between torch and a rounded graph.
        witness = writer.path if scheme == "fp32" else writer.path / "fp32"
        witness.mkdir(exist_ok=True)
        progress("building the fp32 graph")
        build_graph(checkpoint, witness, graph=graph, scheme="fp32", progress=progress)
        verifier.check(open_folder(witness, checkpoint.config, graph, "fp32"), "fp32")
        if scheme != "fp32":
            shutil.rmtree(witness)
            write_scheme(writer.path, rounded, graph, scheme, target, progress)
            verifier.check(open_folder(writer.path, checkpoint.config, graph, scheme), scheme)
        verifier.report.raise_if_wrong()
        _write_tokenizer(writer, words, checkpoint.config, graph)
        manifest = Manifest(
            name=_name(out),
            graph=graph,
            scheme=scheme,
            config=checkpoint.config,
            tokenizer=words.spec.to_dict() if words else None,
            provenance={
                "gpt_edge": __version__,
                "source": checkpoint.kind,
                **rounded.smoothing.provenance,
            },
            parity=verifier.report.figures,
            quality=_quality(checkpoint),
        )
        progress("publishing")
        writer.finalize(manifest)
    return writer.bundle, verifier.report


@using(WITHOUT)  # what is published is measured as everybody runs it
def quantize_bundle(
    bundle: Bundle,
    out: Path,
    *,
    scheme: str,
    target: str | None = None,
    force: bool = False,
    progress: Progress = silent,
    plan: Plan | None = None,
    rounder: RoundWeight | None = None,
    quantization: Mapping[str, Any] | None = None,
) -> tuple[Bundle, Verification]:
    """Round the weights of an fp32 bundle into `scheme`; the result is held against the bundle that
    it came from.

    plan, rounder: the formats and how to round to them, where they are not the scheme's; for scheme
    "mixed" a plan must be given. quantization: plain JSON values for the manifest's provenance.
    Raises BundleError for a bundle that is not fp32, else as `export_bundle`.
    """
    _check_target(scheme, target)
    if scheme == "fp32":
        raise ExportError(
            f"{bundle.path} is fp32 already",
            hint="use --scheme int8, int8-block, int4 or int8-dynamic",
        )
    if bundle.task is not None:
        n_bytes = _estimate(bundle.config, scheme)
        return quantize_task(
            bundle, out, _name(out), scheme=scheme, force=force, n_bytes=n_bytes, progress=progress
        )  # fmt: skip
    source = smooth(BundleSource(bundle), bundle.graph, scheme)
    probes = parity.probes(bundle.config, words_of(bundle))
    with new_bundle(
        out, force=force, source=bundle.path, n_bytes=_estimate(bundle.config, scheme)
    ) as writer:
        progress("asking the fp32 bundle")
        verifier = Verifier("fp32", probes, ask_session(Session(bundle), probes), progress)
        write_scheme(
            writer.path, source, bundle.graph, scheme, target, progress, plan=plan, rounder=rounder
        )
        verifier.check(open_folder(writer.path, bundle.config, bundle.graph, scheme), scheme)
        verifier.report.raise_if_wrong()
        for name in set(bundle.manifest.files) - {MODEL_FILE, DATA_FILE}:
            shutil.copyfile(bundle.path / name, writer.path / name)
        manifest = dataclasses.replace(
            bundle.manifest,
            name=_name(out),
            scheme=scheme,
            provenance={
                **bundle.manifest.provenance,
                "gpt_edge": __version__,
                **source.smoothing.provenance,
                **({"quantization": dict(quantization)} if quantization else {}),
            },
            parity={**bundle.manifest.parity, **verifier.report.figures},
        )
        progress("publishing")
        writer.finalize(manifest)
    return writer.bundle, verifier.report


def verify_bundle(
    bundle: Bundle, against: Path, *, full: bool = False, progress: Progress = silent
) -> Verification:
    """Hold a bundle against a checkpoint: logits of torch, a fresh fp32 graph and the bundle's own,
    each on every path; then its weights and operators one by one, so that the first place where
    they part is named.

    full: also a fresh portable graph, every split, and the whole context token by token; minutes
    for a large model. Faults are in the report; nothing is raised for them. Raises BundleError
    where the shapes already differ.
    """
    checkpoint = open_checkpoint(against)
    if checkpoint.config != bundle.config:
        raise BundleError(f"{bundle.path} is a {bundle.config}, {against} a {checkpoint.config}")
    if bundle.task is not None:
        return verify_task(bundle, checkpoint, progress)
    probes = parity.probes(bundle.config, words_of(bundle), thorough=True)
    progress("asking the reference")
    wanted = ask_reference(checkpoint, probes)
    verifier = Verifier("torch", probes, wanted, progress, effort="full" if full else "verify")
    witnesses = ([bundle.graph] if bundle.scheme != "fp32" else []) + (["portable"] if full else [])
    for graph in witnesses:
        with tempfile.TemporaryDirectory(prefix="gpt-edge-") as folder:
            progress(f"building the fp32 {graph} graph")
            build_graph(checkpoint, Path(folder), graph=graph, scheme="fp32", progress=progress)
            name = "fp32" if graph == bundle.graph else f"{graph} fp32"
            verifier.check(open_folder(Path(folder), bundle.config, graph, "fp32"), "fp32", name)
    verifier.check_bundle(bundle)
    model = checkpoint.load_model()
    verifier.check_reference(model)
    if not bundle.is_optimum_export:
        verifier.locate(bundle, model)
    return verifier.report


def write_scheme(
    folder: Path,
    source: Source,
    graph: str,
    scheme: str,
    target: str | None,
    progress: Progress,
    *,
    plan: Plan | None = None,
    rounder: RoundWeight | None = None,
) -> None:
    """Build the graph of a scheme, or of a plan, in an empty folder; target: for int8-dynamic."""
    progress(f"building the {scheme} graph")
    if scheme != "int8-dynamic":
        build_graph(
            source,
            folder,
            graph=graph,
            scheme=scheme,
            progress=progress,
            plan=plan,
            rounder=rounder,
        )
        return
    raw = folder / "raw"
    raw.mkdir()
    build_graph(source, raw, graph=graph, scheme=scheme, progress=progress)
    progress("rounding with Optimum")
    quantize_dynamic(raw, folder, target or DEFAULT_TARGET)
    shutil.rmtree(raw)
    check_structure(ir.load(folder / MODEL_FILE).graph, source.config, graph, scheme)


def open_folder(folder: Path, config: GPTConfig, graph: str, scheme: str) -> Session:
    """A session on a graph that lies in a folder which is no bundle yet."""
    files: dict[str, FileRecord] = {MODEL_FILE: {"size": 0, "sha256": "0" * 64}}
    return Session(
        Bundle(
            folder, Manifest(name="writer", graph=graph, scheme=scheme, config=config, files=files)
        )
    )


def _quality(checkpoint: Checkpoint) -> dict[str, Any]:
    """The scores that `train` left in its checkpoint, of torch in float32; nothing is known of
    others.
    """
    if checkpoint.kind != "gpt-edge":
        return {}
    found = read_checkpoint_config(checkpoint.path).get("training")
    scores = found.get("validation", {}) if isinstance(found, dict) else {}
    return {
        name: round(value, 5) if isinstance(value, float) else value
        for name, value in scores.items()
    }


def _name(out: Path) -> str:
    """The bundle's name: that of its folder, of what a manifest allows."""
    return (
        re.sub(r"^[^A-Za-z0-9_]+|[^A-Za-z0-9._-]+", "-", Path(out).absolute().name).lstrip("-.")[
            :80
        ]
        or "bundle"
    )


def _check_target(scheme: str, target: str | None) -> None:
    if scheme not in (*SCHEMES, MIXED):
        raise ExportError(f"there is no scheme {scheme!r}", hint=f"use one of {', '.join(SCHEMES)}")
    if target is not None and scheme != "int8-dynamic":
        raise ExportError(f"--target {target} is for int8-dynamic; {scheme} runs on every CPU")


def tokenizer_for(checkpoint: Checkpoint, wanted: str | None) -> TokenizerSource | None:
    """Raises TokenizerError when there is none, or it has more tokens than the embedding
    has rows.
    """
    if wanted == NO_TOKENIZER:
        return None
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    found = tokenizer_from(wanted) if wanted else find_tokenizer(folder)
    if found is None:
        raise TokenizerError(
            f"{checkpoint.path} has no tokenizer file",
            hint="give one with --tokenizer FILE, --tokenizer gpt2, or --tokenizer none for a "
            "bundle of ids",
        )
    check_fits(found.spec, checkpoint.config.vocab_size)
    return found


def _write_tokenizer(
    writer: BundleWriter, words: TokenizerSource | None, config: GPTConfig, graph: str
) -> None:
    if words is not None:
        (writer.path / words.spec.file).write_bytes(words.content)
    if graph == "portable":
        write_optimum_config(config, words.spec.end_token if words else None, writer.path)


def _estimate(config: GPTConfig, scheme: str) -> int:
    """Bytes that the writer needs at its largest: the bundle, and the fp32 witness beside it."""
    weights = config.n_parameters
    return int(weights * BYTES_PER_WEIGHT[scheme]) + (0 if scheme == "fp32" else 4 * weights)
