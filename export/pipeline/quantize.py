"""The quantize pipeline: from an fp32 bundle to a verified bundle of another scheme."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.writer import new_bundle
from gpt_edge.errors import ExportError
from gpt_edge.export.formats.rounding import WeightQuantizer
from gpt_edge.export.formats.tensor_format import Plan
from gpt_edge.export.graph.build import MODEL_FILE
from gpt_edge.export.pipeline.shared import (
    bundle_name,
    check_scheme,
    check_task,
    estimated_bytes,
    unpublished,
    write_scheme,
)
from gpt_edge.export.verify.own_noise import OwnNoise
from gpt_edge.export.verify.verifier import Verifier
from gpt_edge.export.weights.bundle_source import BundleSource, model_of
from gpt_edge.export.weights.data_file import DATA_FILES
from gpt_edge.export.weights.smoothing import smooth
from gpt_edge.schemes import FP32, QUANTIZED, SCHEMES
from gpt_edge.verify.report import Progress, Verification, silent, tokenizer_of
from gpt_edge.verify.subject import subject_of
from gpt_edge.version import __version__


def quantize_bundle(
    bundle: Bundle,
    out: Path,
    *,
    scheme: str,
    target: str | None = None,
    accept_parity: bool = False,
    force: bool = False,
    progress: Progress = silent,
    plan: Plan | None = None,
    rounder: WeightQuantizer | None = None,
    quantization: Mapping[str, Any] | None = None,
) -> tuple[Bundle, Verification]:
    """Quantize the weights of an fp32 bundle into `scheme`; the result is compared with the bundle
    that it came from.

    plan, rounder: the formats and how to round to them, where they are not the scheme's; for scheme
    "mixed" a plan must be given. accept_parity: as for `export_bundle`. quantization: plain JSON
    values for the manifest's provenance.
    Raises BundleError for a bundle that is not fp32, else as `export_bundle`.
    """
    check_scheme(scheme, target)
    if SCHEMES[scheme].is_float:
        raise ExportError(
            f"{bundle.path} is {scheme} already", hint=f"use --scheme {', '.join(QUANTIZED)}"
        )
    if bundle.config.takes_adapters:
        raise ExportError(
            f"{bundle.path} is a base: it is quantized when it is exported",
            hint=f"gpt-edge export CHECKPOINT OUT --to base --scheme {scheme}",
        )
    if bundle.task is not None:
        check_task(bundle.task, scheme, bundle.path)
    weights = BundleSource(bundle)
    source = smooth(weights, bundle.graph, scheme)
    subject = subject_of(bundle.config, bundle.task, tokenizer_of(bundle))
    n_bytes = estimated_bytes(bundle.config, scheme)
    with new_bundle(out, force=force, source=bundle.path, n_bytes=n_bytes) as writer:
        progress("running the fp32 bundle")
        # published figures are those of every user: without custom operators
        expected = subject.outputs(subject.open(bundle, native=False))
        own_noise = OwnNoise(partial(model_of, weights), subject, expected)
        verifier = Verifier(FP32.name, subject, expected, progress, own_noise=own_noise)
        write_scheme(
            writer.path, source, bundle.graph, scheme, target, progress, plan=plan, rounder=rounder
        )
        made = unpublished(writer.path, bundle.config, bundle.graph, scheme, bundle.task)
        verifier.check(subject.open(made, native=False), scheme)
        accepted = verifier.report.accepted(accept_parity)
        for name in set(bundle.manifest.files) - {MODEL_FILE, *DATA_FILES.values()}:
            shutil.copyfile(bundle.path / name, writer.path / name)
        manifest = dataclasses.replace(
            bundle.manifest,
            name=bundle_name(out),
            scheme=scheme,
            provenance={
                **bundle.manifest.provenance,
                "gpt_edge": __version__,
                **source.smoothing.provenance,
                **accepted,
                **({"quantization": dict(quantization)} if quantization else {}),
            },
            parity={**bundle.manifest.parity, **verifier.report.figures},
        )
        progress("publishing")
        writer.finalize(manifest)
    return writer.bundle, verifier.report
