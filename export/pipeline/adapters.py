"""The pipelines of bases and adapters: a checkpoint to a base, what `finetune --lora-rank` left to
an adapter of one, and an adapter against its checkpoint.

A base is verified with an adapter of random numbers, merged into the checkpoint in torch; an
adapter with the merged checkpoint that `finetune` wrote.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from gpt_edge.bundle.bundle import Bundle, Manifest
from gpt_edge.bundle.gate.adapter import HEAD_BIAS, HEAD_WEIGHT, checked_adapter
from gpt_edge.bundle.manifest import ADAPTER, ADAPTER_FILE, BASE
from gpt_edge.bundle.writer import new_bundle
from gpt_edge.errors import BundleError, CheckpointError, ExportError, OutputError
from gpt_edge.export.pipeline.export import quality_of
from gpt_edge.export.pipeline.shared import (
    bundle_name,
    check_same_shape,
    check_scheme,
    check_task,
    estimated_bytes,
    tokenizer_for,
    unpublished,
    write_scheme,
)
from gpt_edge.export.verify.check_settings import label_faults
from gpt_edge.export.verify.check_tokenizer import compare_tokenizers
from gpt_edge.export.verify.own_noise import OwnNoise
from gpt_edge.export.verify.reference import reference_model, run_reference
from gpt_edge.export.verify.verifier import Verifier
from gpt_edge.export.weights.base_source import (
    BaseSource,
    adapted,
    base_config,
    n_text_of,
    padded_arrays,
    unpadded_arrays,
)
from gpt_edge.reference.checkpoint import load_trained_adapter
from gpt_edge.reference.importers import Checkpoint, open_checkpoint
from gpt_edge.reference.importers.nanogpt import like, with_activation
from gpt_edge.reference.trained_adapter import TrainedAdapter
from gpt_edge.runtime.adapter import DTYPES, check_base
from gpt_edge.schemes import FOR_TASKS, FP32, INT8, SCHEMES
from gpt_edge.tokenizer import build_tokenizer, find_tokenizer, fit_to_rows
from gpt_edge.verify.adapters import (
    AdapterSubject,
    BaseSubject,
    adapter_subject,
    base_subject,
    probe_arrays,
)
from gpt_edge.verify.report import Progress, Verification, silent, tokenizer_of
from gpt_edge.version import __version__

BASE_HASH = "base_sha256"  # in a base's provenance: the weights that adapters are trained on
SECTION = "checkpoint"  # of the figures
HALF_ERROR = 2.0**-10  # of a float16, relative; twice the error of rounding


def export_base(
    source: Path,
    out: Path,
    *,
    graph: str = "edge",
    scheme: str = INT8.name,
    target: str | None = None,
    tokenizer: str | None = None,
    pattern: str | None = None,
    activation: str | None = None,
    config: Path | None = None,
    adapter: str | None = None,
    accept_parity: bool = False,
    force: bool = False,
    progress: Progress = silent,
) -> tuple[Bundle, Verification]:
    """Export the checkpoint at `source` as a base: a graph without a head that any number of
    adapters run on. Arguments and errors as `export_bundle`; adapter: of PEFT, merged first.
    """
    check_scheme(scheme, target)
    if not SCHEMES[scheme].allows_tasks:
        raise ExportError(f"a base cannot be {scheme}", hint=f"use --scheme {', '.join(FOR_TASKS)}")
    checkpoint = with_activation(
        open_checkpoint(source, config=config, adapter=adapter), activation
    )
    weights = BaseSource(checkpoint, n_text_of(checkpoint))
    shape = weights.config
    tokenizer_source = tokenizer_for(checkpoint, tokenizer, pattern)
    encoder = None
    if tokenizer_source is not None:
        encoder = fit_to_rows(build_tokenizer(tokenizer_source), weights.n_text)
    subject = base_subject(shape, encoder)
    n_bytes = estimated_bytes(shape, scheme)
    with new_bundle(out, force=force, source=checkpoint.path, n_bytes=n_bytes) as writer:
        verifier = _base_verifier(weights, graph, subject, progress)
        for step in dict.fromkeys((FP32.name, scheme)):
            folder = writer.path if step == scheme else writer.path / FP32.name
            folder.mkdir(exist_ok=True)
            write_scheme(folder, weights, graph, step, None, progress)
            made = unpublished(folder, shape, graph, step)
            # published figures are those of every user: without custom operators
            verifier.check(subject.open(made, native=False), step)
            if step != scheme:
                _remove(folder)
        accepted = verifier.report.accepted(accept_parity)
        if tokenizer_source is not None:
            (writer.path / tokenizer_source.spec.file).write_bytes(tokenizer_source.content)
        manifest = Manifest(
            name=bundle_name(out),
            kind=BASE,
            graph=graph,
            scheme=scheme,
            config=shape,
            tokenizer=tokenizer_source.spec.to_dict() if tokenizer_source else None,
            provenance={
                "gpt_edge": __version__,
                "source": checkpoint.kind,
                BASE_HASH: weights.weights_hash(),
                **checkpoint.provenance,
                **accepted,
            },
            parity=verifier.report.figures,
        )
        progress("publishing")
        writer.finalize(manifest)
    return writer.bundle, verifier.report


def _base_verifier(
    weights: BaseSource, graph: str, subject: BaseSubject, progress: Progress
) -> Verifier:
    """Checks graphs of a base against torch, both with the adapter of `probe_arrays`."""
    arrays, task = probe_arrays(weights.config, graph)
    merged = adapted(
        weights.checkpoint,
        weights.n_text,
        unpadded_arrays(arrays, weights.config, graph),
        task,
    )
    progress("running the reference")
    expected = run_reference(merged, subject)
    own_noise = OwnNoise(partial(reference_model, merged), subject, expected)
    return Verifier("torch", subject, expected, progress, own_noise=own_noise)


def verify_base(
    bundle: Bundle,
    against: Path,
    *,
    config: Path | None = None,
    adapter: str | None = None,
    progress: Progress = silent,
) -> Verification:
    """Compare a base with the checkpoint that it was exported from, both with an adapter of random
    numbers, and the hash by which adapters know it. Arguments and errors as `verify_bundle`.
    """
    checkpoint = like(open_checkpoint(against, config=config, adapter=adapter), bundle.config)
    weights = BaseSource(checkpoint, n_text_of(checkpoint))
    check_same_shape(bundle, weights.config, str(against))
    subject = base_subject(bundle.config, tokenizer_of(bundle))
    verifier = _base_verifier(weights, bundle.graph, subject, progress)
    found, expected = bundle.manifest.provenance.get(BASE_HASH), weights.weights_hash()
    faults = (
        [] if found == expected else [f"it is {found!a:.20}, the checkpoint's {expected!r:.20}"]
    )
    verifier.report.add_settings(SECTION, BASE_HASH, None, faults)
    verifier.check_bundle(bundle)
    return verifier.report


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def export_adapter(
    source: Path,
    out: Path,
    base: Bundle,
    *,
    accept_parity: bool = False,
    force: bool = False,
    progress: Progress = silent,
) -> tuple[Bundle, Verification]:
    """Export what `finetune --lora-rank` trained beside a frozen model as an adapter of `base`, and
    compare the two with the merged checkpoint at `source`.

    Its numbers are float16 on a quantized base, float32 on one of floats. Raises CheckpointError
    for a checkpoint without an adapter, ExportError for one of another base, and as
    `export_bundle`.
    """
    if out.resolve() == base.path.resolve():
        raise OutputError(f"{out} is the base itself", hint="choose another output folder")
    checkpoint = open_checkpoint(source)
    if checkpoint.kind != "gpt-edge" or checkpoint.task is None:
        raise CheckpointError(
            f"{source} is no fine-tuned checkpoint of gpt-edge",
            hint="make one with gpt-edge finetune --lora-rank 8",
        )
    trained = load_trained_adapter(source)
    check_task(checkpoint.task, base.scheme, checkpoint.path)
    _check_base(checkpoint, trained, base)
    arrays = _stored_arrays(checkpoint, trained, base)
    with new_bundle(out, force=force, source=checkpoint.path) as writer:
        (writer.path / ADAPTER_FILE).write_bytes(save(arrays))
        manifest = Manifest(
            name=bundle_name(out),
            kind=ADAPTER,
            graph=base.graph,
            scheme=base.scheme,
            config=base.config,
            task=checkpoint.task,
            base={"name": base.manifest.name, "sha256": base.weights_hash()},
            provenance={"gpt_edge": __version__, "source": checkpoint.kind, "rank": trained.rank},
            quality=quality_of(checkpoint),
        )
        subject = adapter_subject(writer.finalize(manifest), tokenizer_of(base))
        verifier = _adapter_verifier(checkpoint, subject, progress)
        verifier.check(subject.open(base, native=False), base.scheme)
        accepted = verifier.report.accepted(accept_parity)
        progress("publishing")
        provenance = {**manifest.provenance, **accepted}
        figures = verifier.report.figures
        writer.finalize(dataclasses.replace(manifest, provenance=provenance, parity=figures))
    return writer.bundle, verifier.report


def _adapter_verifier(
    checkpoint: Checkpoint, subject: AdapterSubject, progress: Progress
) -> Verifier:
    progress("running the reference")
    expected = run_reference(checkpoint, subject)
    own_noise = OwnNoise(partial(reference_model, checkpoint), subject, expected)
    return Verifier("torch", subject, expected, progress, own_noise=own_noise)


def _check_base(checkpoint: Checkpoint, trained: TrainedAdapter, base: Bundle) -> None:
    """Raise ExportError unless an adapter was trained on the weights of `base`, and reads texts as
    it does.
    """
    if not base.config.takes_adapters or base.manifest.base is not None:
        raise ExportError(
            f"{base.path} is a bundle of kind {base.kind}: adapters have a base",
            hint="make one of the checkpoint that you fine-tuned: gpt-edge export SOURCE OUT "
            "--to base",
        )
    found = str(base.manifest.provenance.get(BASE_HASH))
    shape = base_config(checkpoint.config, n_text_of(checkpoint))
    if trained.base_hash != found or shape != base.config:
        raise ExportError(
            f"{checkpoint.path} was trained on the weights {trained.base_hash[:12]}, "
            f"{base.path} was exported from {found[:12]}",
            hint="export the checkpoint that finetune started from with --to base, and give that",
        )
    source = find_tokenizer(checkpoint.path)
    if source is not None and (faults := _tokenizer_faults(base, checkpoint)):
        raise ExportError(f"{checkpoint.path} reads texts otherwise than {base.path}: {faults[0]}")


def _tokenizer_faults(base: Bundle, checkpoint: Checkpoint) -> list[str]:
    source = tokenizer_for(checkpoint, None)
    if source is None or base.manifest.tokenizer is None:
        return []
    return compare_tokenizers(base, source)


def _stored_arrays(
    checkpoint: Checkpoint, trained: TrainedAdapter, base: Bundle
) -> dict[str, NDArray[Any]]:
    """What an adapter's file holds: as the base's graph reads it, in half precision where its
    weights are quantized.
    """
    arrays: dict[str, NDArray[Any]] = {**padded_arrays(trained.arrays, base.config, base.graph)}
    for name in (HEAD_WEIGHT, HEAD_BIAS):
        arrays[name] = np.array(checkpoint.tensor(name))
    if SCHEMES[base.scheme].is_float:
        return arrays
    with np.errstate(over="ignore"):
        halves = {name: array.astype(np.float16) for name, array in arrays.items()}
    is_finite = all(bool(np.isfinite(half).all()) for half in halves.values())
    return halves if is_finite else arrays


def verify_adapter(
    adapter: Bundle, base: Bundle, against: Path, *, progress: Progress = silent
) -> Verification:
    """Compare an adapter on its base with the merged checkpoint that it was exported from: outputs
    of torch and of the base, each example alone and among others, every number of the adapter, and
    its task. Faults are in the report; raises BundleError for an adapter of another base, and
    CheckpointError for a checkpoint without an adapter.
    """
    check_base(adapter, base)
    checkpoint = open_checkpoint(against)
    trained = load_trained_adapter(against)
    ours, theirs = adapter.task, checkpoint.task
    assert ours is not None
    if theirs is None or (ours.kind, ours.n_label) != (theirs.kind, theirs.n_label):
        raise BundleError(f"{adapter.path} and {against} have different tasks")
    subject = adapter_subject(adapter, tokenizer_of(base))
    verifier = _adapter_verifier(checkpoint, subject, progress)
    report = verifier.report
    faults = label_faults(ours, theirs)
    report.add_settings(SECTION, "labels", len(ours.labels), faults)
    expected = _stored_arrays(checkpoint, trained, base)
    report.add_settings(SECTION, "adapter", len(expected), array_faults(adapter, expected))
    verifier.check(subject.open(base), base.scheme)
    return report


def array_faults(adapter: Bundle, expected: Mapping[str, Any]) -> list[str]:
    """Which tensors of an adapter are not those of the checkpoint, beyond half precision."""
    faults = []
    stored = checked_adapter(adapter)
    for name, array in expected.items():
        wanted = array.astype(np.float64)
        if name not in stored or stored[name].shape != wanted.shape:
            faults.append(f"{name} is missing, or has another shape")
            continue
        found = np.frombuffer(stored[name].data, DTYPES[stored[name].dtype]).reshape(wanted.shape)
        difference = float(np.abs(found - wanted).max(initial=0))
        if difference > HALF_ERROR * float(np.abs(wanted).max(initial=0)):
            faults.append(f"{name} differs from the checkpoint's by {difference:.3g}")
    return faults
