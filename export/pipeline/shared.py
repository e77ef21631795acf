"""Steps that exporting, quantizing and verifying share."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import onnx_ir as ir

from gpt_edge.bundle.bundle import Bundle, Manifest
from gpt_edge.bundle.manifest import BASE, CAUSAL_LM, CONTROL, MAX_MANIFEST_BYTES, TASK
from gpt_edge.config import GPTConfig
from gpt_edge.errors import BundleError, ExportError, TokenizerError
from gpt_edge.export.formats.rounding import WeightQuantizer
from gpt_edge.export.formats.tensor_format import Plan
from gpt_edge.export.graph.build import MODEL_FILE, build_graph, check_structure
from gpt_edge.export.graph.optimum_int8 import quantize_dynamic
from gpt_edge.export.weights.source import WeightSource
from gpt_edge.native.library import Native
from gpt_edge.reference.importers import Checkpoint
from gpt_edge.runtime.session import Session
from gpt_edge.schemes import EXPORTED, FOR_TASKS, FP32, INT8_DYNAMIC, SCHEMES
from gpt_edge.tasks import TaskSpec, n_text_rows
from gpt_edge.tokenizer import TokenizerSource, find_tokenizer, fit_source, tokenizer_from
from gpt_edge.verify.report import Progress

NO_TOKENIZER = "none"
DEFAULT_TARGET = "avx2"  # unsigned weights: their products are exact on every CPU


def check_scheme(scheme: str, target: str | None) -> None:
    """Raise ExportError for a scheme that does not exist, or for a target without int8-dynamic."""
    if scheme not in SCHEMES:
        raise ExportError(
            f"there is no scheme {scheme!r}", hint=f"use one of {', '.join(EXPORTED)}"
        )
    if target is not None and not SCHEMES[scheme].by_optimum:
        raise ExportError(
            f"--target {target} is for {INT8_DYNAMIC.name}; {scheme} runs on every CPU"
        )


def check_task(task: TaskSpec, scheme: str, path: Path) -> None:
    """Raise ExportError for a scheme that is not for classifiers, or labels that no manifest holds.

    path: what the labels come from.
    """
    if not SCHEMES[scheme].allows_tasks:
        raise ExportError(
            f"a classifier cannot be {scheme}", hint=f"use --scheme {', '.join(FOR_TASKS)}"
        )
    for label in task.labels:
        if CONTROL.search(label):
            raise ExportError(
                f"{path}: the label {ascii(label)[:80]} holds a control character, which a bundle "
                "may not"
            )
    if sum(len(label.encode()) for label in task.labels) * 6 > MAX_MANIFEST_BYTES:
        raise ExportError(
            f"{path}: its {len(task.labels)} labels are too long for a bundle's manifest"
        )


def check_same_shape(bundle: Bundle, config: GPTConfig, source: str) -> None:
    """Raise BundleError naming the fields in which `source`, which has this config, differs."""
    ours = dataclasses.asdict(bundle.config)
    theirs = dataclasses.asdict(config)
    names = [name for name in ours if ours[name] != theirs[name]]
    if names:
        differences = [f"{name} {theirs[name]}, the bundle {ours[name]}" for name in names]
        raise BundleError(
            f"{source} does not have the shape of {bundle.path}: it has {'; '.join(differences)}"
        )


def tokenizer_for(
    checkpoint: Checkpoint, name: str | None, pattern: str | None = None
) -> TokenizerSource | None:
    """The tokenizer that `name` says (a file, a folder, a known name, or "none"), or the one beside
    the checkpoint.

    pattern: as for `tokenizer_from`. Raises TokenizerError when there is none, or it has far more
    tokens than the embedding has rows; see `fit_source`.
    """
    if name == NO_TOKENIZER:
        return None
    if pattern is not None and name is None:
        raise TokenizerError(
            "a split pattern belongs to a rank file", hint="name it too: --tokenizer FILE"
        )
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    source = tokenizer_from(name, pattern) if name else find_tokenizer(folder)
    if source is None:
        hint = "give one with --tokenizer FILE, --tokenizer gpt2, or --tokenizer none for a bundle "
        if checkpoint.kind == "nanogpt":
            hint = f"nanoGPT's characters: --tokenizer data/NAME/meta.pkl; else {hint}"
        raise TokenizerError(f"{checkpoint.path} has no tokenizer file", hint=f"{hint}of ids")
    return fit_source(source, n_text_rows(checkpoint.config.vocab_size, checkpoint.task))


def write_scheme(
    folder: Path,
    source: WeightSource,
    graph: str,
    scheme: str,
    target: str | None,
    progress: Progress,
    *,
    plan: Plan | None = None,
    rounder: WeightQuantizer | None = None,
) -> None:
    """Build the graph of a scheme, or of a plan, in an empty folder; target: for int8-dynamic."""
    progress(f"building the {scheme} graph")
    if not SCHEMES[scheme].by_optimum:
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
    progress("quantizing with Optimum")
    quantize_dynamic(raw, folder, target or DEFAULT_TARGET)
    shutil.rmtree(raw)
    check_structure(ir.load(folder / MODEL_FILE).graph, source.config, graph, scheme)


def unpublished(
    folder: Path, config: GPTConfig, graph: str, scheme: str, task: TaskSpec | None = None
) -> Bundle:
    """A graph in a folder as a bundle, to run it before it is published."""
    return Bundle.unpublished(
        folder,
        Manifest(
            name="draft",
            kind=kind_of(config, task),
            graph=graph,
            scheme=scheme,
            config=config,
            task=task,
        ),
    )


def open_folder(
    folder: Path, config: GPTConfig, graph: str, scheme: str, *, native: Native = None
) -> Session:
    """A session on a language model's graph in a folder that is no bundle yet."""
    return Session(unpublished(folder, config, graph, scheme), native=native)


def kind_of(config: GPTConfig, task: TaskSpec | None) -> str:
    """The manifest's kind."""
    if config.takes_adapters:
        return BASE
    return CAUSAL_LM if task is None else TASK


def bundle_name(out: Path) -> str:
    """The bundle's name: that of its folder, reduced to what a manifest allows."""
    name = re.sub(r"^[^A-Za-z0-9_]+|[^A-Za-z0-9._-]+", "-", Path(out).absolute().name)
    return name.lstrip("-.")[:80] or "bundle"


def estimated_bytes(config: GPTConfig, scheme: str) -> int:
    """Bytes in the temporary folder at their largest: the bundle, and the fp32 graph beside it."""
    n_bytes = int(config.n_parameters * SCHEMES[scheme].bytes_per_weight)
    if SCHEMES[scheme].is_float:
        return n_bytes
    return n_bytes + int(config.n_parameters * FP32.bytes_per_weight)
