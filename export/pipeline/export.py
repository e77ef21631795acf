"""The export pipeline: from a checkpoint to a verified bundle."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from gpt_edge.bundle.bundle import CHAT_TEMPLATE_FILE, Bundle, Manifest
from gpt_edge.bundle.writer import BundleWriter, new_bundle
from gpt_edge.evaluate.calibrate import CALIBRATION
from gpt_edge.export.graph.optimum_int8 import write_optimum_config
from gpt_edge.export.pipeline.shared import (
    bundle_name,
    check_scheme,
    check_task,
    estimated_bytes,
    kind_of,
    tokenizer_for,
    unpublished,
    write_scheme,
)
from gpt_edge.export.verify.own_noise import OwnNoise
from gpt_edge.export.verify.reference import reference_model, run_reference
from gpt_edge.export.verify.verifier import Verifier
from gpt_edge.export.weights.chat_template import read_chat_template
from gpt_edge.export.weights.generation_config import read_generation_defaults
from gpt_edge.export.weights.smoothing import smooth
from gpt_edge.reference.checkpoint import read_checkpoint_config
from gpt_edge.reference.importers import Checkpoint, open_checkpoint
from gpt_edge.reference.importers.nanogpt import with_activation
from gpt_edge.schemes import FP32, INT8
from gpt_edge.tasks import n_text_rows
from gpt_edge.tokenizer import TokenizerSource, build_tokenizer, fit_to_rows
from gpt_edge.verify.report import Progress, Verification, silent
from gpt_edge.verify.subject import subject_of
from gpt_edge.version import __version__


def export_bundle(
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
    """Export the checkpoint at `source` into a bundle at `out`, and return it with the figures that
    prove it.

    graph: "edge" or "portable". scheme: one of schemes.EXPORTED. target: Optimum's preset, for
    int8-dynamic only.
    tokenizer: a file, a folder, a name, or "none"; None looks into `source`. pattern: the split
    pattern of a rank file that does not say it, see `tokenizer_from`. activation: of a checkpoint
    that does not say it, see `with_activation`. config, adapter: as for `open_checkpoint`.
    accept_parity: publish also what is out of tolerance; the manifest says so. force: replace a
    bundle at `out`.
    progress: called with the name of each stage and of each weight.
    Raises CheckpointError, TokenizerError, ExportError, ParityError (a figure is out of tolerance)
    or OutputError; then `out` is as it was.
    Figures are measured without custom operators: with what every user has.
    """
    check_scheme(scheme, target)
    checkpoint = with_activation(
        open_checkpoint(source, config=config, adapter=adapter), activation
    )
    tokenizer_source = tokenizer_for(checkpoint, tokenizer, pattern)
    end_token = tokenizer_source.spec.end_token if tokenizer_source else None
    generation_defaults = read_generation_defaults(checkpoint, end_token)
    chat_template = read_chat_template(checkpoint)
    shape = checkpoint.config
    if checkpoint.task is not None:
        check_task(checkpoint.task, scheme, checkpoint.path)
    encoder = None
    if tokenizer_source is not None:
        n_rows = n_text_rows(shape.vocab_size, checkpoint.task)
        encoder = fit_to_rows(build_tokenizer(tokenizer_source), n_rows)
    subject = subject_of(shape, checkpoint.task, encoder)
    smoothed = smooth(checkpoint, graph, scheme)
    n_bytes = estimated_bytes(shape, scheme)
    with new_bundle(out, force=force, source=checkpoint.path, n_bytes=n_bytes) as writer:
        progress("running the reference")
        expected = run_reference(checkpoint, subject)
        own_noise = OwnNoise(partial(reference_model, checkpoint), subject, expected)
        verifier = Verifier("torch", subject, expected, progress, own_noise=own_noise)
        # The fp32 graph is the baseline between torch and a quantized graph.
        for step in dict.fromkeys((FP32.name, scheme)):
            folder = writer.path if step == scheme else writer.path / FP32.name
            folder.mkdir(exist_ok=True)
            weights = checkpoint if step == FP32.name else smoothed
            write_scheme(folder, weights, graph, step, target, progress)
            made = unpublished(folder, shape, graph, step, checkpoint.task)
            # published figures are those of every user: without custom operators
            verifier.check(subject.open(made, native=False), step)
            if step != scheme:
                shutil.rmtree(folder)
        accepted = verifier.report.accepted(accept_parity)
        _write_tokenizer(writer, tokenizer_source, checkpoint, graph)
        if chat_template is not None and tokenizer_source is not None:
            (writer.path / CHAT_TEMPLATE_FILE).write_bytes(chat_template.encode())
        manifest = Manifest(
            name=bundle_name(out),
            kind=kind_of(shape, checkpoint.task),
            graph=graph,
            scheme=scheme,
            config=shape,
            task=checkpoint.task,
            tokenizer=tokenizer_source.spec.to_dict() if tokenizer_source else None,
            generation_defaults=generation_defaults,
            provenance={
                "gpt_edge": __version__,
                "source": checkpoint.kind,
                **checkpoint.provenance,
                **smoothed.smoothing.provenance,
                **accepted,
            },
            parity=verifier.report.figures,
            quality=quality_of(checkpoint),
        )
        progress("publishing")
        writer.finalize(manifest)
    return writer.bundle, verifier.report


def quality_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """The figures that `train` or `finetune` left in a checkpoint, of torch in float32; nothing is
    known of others.
    """
    if checkpoint.kind != "gpt-edge":
        return {}
    training = read_checkpoint_config(checkpoint.path).get("training")
    if not isinstance(training, dict):
        return {}
    if checkpoint.task is not None:
        return {name: training[name] for name in (CALIBRATION,) if name in training}
    scores = training.get("validation", {})
    return {
        name: round(value, 5) if isinstance(value, float) else value
        for name, value in scores.items()
    }


def _write_tokenizer(
    writer: BundleWriter, source: TokenizerSource | None, checkpoint: Checkpoint, graph: str
) -> None:
    """The tokenizer's file, and what Optimum reads beside a portable language model."""
    if source is not None:
        (writer.path / source.spec.file).write_bytes(source.content)
    if graph == "portable" and checkpoint.task is None:
        end_token = source.spec.end_token if source else None
        write_optimum_config(checkpoint.config, end_token, writer.path)
