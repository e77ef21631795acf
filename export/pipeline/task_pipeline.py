"""A fine-tuned checkpoint goes in, a verified bundle that answers comes out; the roads that
`pipeline.py` sends tasks on.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path

from gpt_edge.bundle.bundle import Bundle, Manifest
from gpt_edge.bundle.manifest import CONTROL, MAX_MANIFEST_BYTES, TASK
from gpt_edge.bundle.writer import new_bundle
from gpt_edge.errors import BundleError, ExportError, GPTEdgeError
from gpt_edge.export.graph.build import MODEL_FILE, build_graph
from gpt_edge.export.verify.task_verifier import TaskVerifier, open_task_folder
from gpt_edge.export.weights.bundle_source import BundleSource
from gpt_edge.export.weights.smoothing import smooth
from gpt_edge.export.weights.source import DATA_FILE
from gpt_edge.reference.importers import Checkpoint
from gpt_edge.runtime.encoder import Encoder
from gpt_edge.tasks import TaskSpec
from gpt_edge.tokenizer import TokenizerSource, build_tokenizer
from gpt_edge.verify.report import Progress, Verification, words_of
from gpt_edge.version import __version__

SCHEMES = ("fp32", "int8", "int8-block", "int4")


def export_task(
    checkpoint: Checkpoint,
    out: Path,
    name: str,
    words: TokenizerSource | None,
    *,
    graph: str,
    scheme: str,
    force: bool,
    n_bytes: int,
    progress: Progress,
) -> tuple[Bundle, Verification]:
    """`pipeline.export_bundle` for a fine-tuned checkpoint. name: of the bundle; n_bytes: that the
    writer needs.
    """
    task, config = checkpoint.task, checkpoint.config
    assert task is not None
    _check_scheme(scheme)
    _check_labels(checkpoint.path, task)
    with new_bundle(out, force=force, source=checkpoint.path, n_bytes=n_bytes) as writer:
        progress("asking the reference")
        verifier = TaskVerifier.of_checkpoint(
            checkpoint, build_tokenizer(words) if words else None, progress
        )
        rounded = smooth(checkpoint, graph, scheme)
        # fp32 is the witness between torch and a rounded graph
        for kind in dict.fromkeys(("fp32", scheme)):
            folder = writer.path if kind == scheme else writer.path / "fp32"
            folder.mkdir(exist_ok=True)
            progress(f"building the {kind} graph")
            source = checkpoint if kind == "fp32" else rounded
            build_graph(source, folder, graph=graph, scheme=kind, progress=progress)
            verifier.check(open_task_folder(folder, config, graph, kind, task), kind)
            if kind != scheme:
                shutil.rmtree(folder)
        verifier.report.raise_if_wrong()
        if words is not None:
            (writer.path / words.spec.file).write_bytes(words.content)
        manifest = Manifest(
            name=name,
            kind=TASK,
            graph=graph,
            scheme=scheme,
            config=config,
            task=task,
            tokenizer=words.spec.to_dict() if words else None,
            provenance={
                "gpt_edge": __version__,
                "source": checkpoint.kind,
                **rounded.smoothing.provenance,
            },
            parity=verifier.report.figures,
        )
        progress("publishing")
        writer.finalize(manifest)
    return writer.bundle, verifier.report


def quantize_task(
    bundle: Bundle,
    out: Path,
    name: str,
    *,
    scheme: str,
    force: bool,
    n_bytes: int,
    progress: Progress,
) -> tuple[Bundle, Verification]:
    """`pipeline.quantize_bundle` for a fine-tuned fp32 bundle: every weight to nearest, as `export`
    does it.
    """
    task = bundle.task
    assert task is not None
    _check_scheme(scheme)
    source = smooth(BundleSource(bundle), bundle.graph, scheme)
    with new_bundle(out, force=force, source=bundle.path, n_bytes=n_bytes) as writer:
        progress("asking the fp32 bundle")
        verifier = TaskVerifier.of_bundle(bundle, words_of(bundle), progress)
        progress(f"building the {scheme} graph")
        build_graph(source, writer.path, graph=bundle.graph, scheme=scheme, progress=progress)
        verifier.check(
            open_task_folder(writer.path, bundle.config, bundle.graph, scheme, task), scheme
        )
        verifier.report.raise_if_wrong()
        for file in set(bundle.manifest.files) - {MODEL_FILE, DATA_FILE}:
            shutil.copyfile(bundle.path / file, writer.path / file)
        manifest = dataclasses.replace(
            bundle.manifest,
            name=name,
            scheme=scheme,
            provenance={
                **bundle.manifest.provenance,
                "gpt_edge": __version__,
                **source.smoothing.provenance,
            },
            parity={**bundle.manifest.parity, **verifier.report.figures},
        )
        progress("publishing")
        writer.finalize(manifest)
    return writer.bundle, verifier.report


def verify_task(bundle: Bundle, checkpoint: Checkpoint, progress: Progress) -> Verification:
    """`pipeline.verify_bundle` for a fine-tuned bundle: torch, a fresh fp32 graph and the bundle on
    the same examples.
    """
    if checkpoint.task != bundle.task:
        raise BundleError(
            f"{bundle.path} answers {_described(bundle.task)}, {checkpoint.path} was made for "
            f"{_described(checkpoint.task)}"
        )
    assert bundle.task is not None
    progress("asking the reference")
    verifier = TaskVerifier.of_checkpoint(checkpoint, words_of(bundle), progress)
    if bundle.scheme != "fp32":
        with tempfile.TemporaryDirectory(prefix="gpt-edge-") as folder:
            progress(f"building the fp32 {bundle.graph} graph")
            build_graph(
                checkpoint, Path(folder), graph=bundle.graph, scheme="fp32", progress=progress
            )
            verifier.check(
                open_task_folder(Path(folder), bundle.config, bundle.graph, "fp32", bundle.task),
                "fp32",
            )
    try:
        verifier.check(Encoder(bundle), bundle.scheme)
    except GPTEdgeError as error:
        verifier.report.faults.append(f"torch against {bundle.scheme}: {error.message}")
    return verifier.report


def _check_scheme(scheme: str) -> None:
    if scheme not in SCHEMES:
        raise ExportError(
            f"a classifier cannot be {scheme}", hint=f"use --scheme {', '.join(SCHEMES)}"
        )


def _check_labels(path: Path, task: TaskSpec) -> None:
    """Raise ExportError for labels that no manifest holds."""
    for label in task.labels:
        if CONTROL.search(label):
            raise ExportError(
                f"{path}: the label {ascii(label)[:80]} holds a control character, which no bundle "
                "may"
            )
    if sum(len(label.encode()) for label in task.labels) * 6 > MAX_MANIFEST_BYTES:
        raise ExportError(
            f"{path}: its {len(task.labels)} labels are too long for a bundle's manifest"
        )


def _described(task: TaskSpec | None) -> str:
    if task is None:
        return "no task"
    return f"{task.kind} with {len(task.labels)} labels" if task.labels else task.kind
