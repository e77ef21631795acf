"""The verify pipeline: a bundle against the checkpoint that it was exported from."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.errors import BundleError, TokenizerError
from gpt_edge.export.graph.build import build_graph
from gpt_edge.export.pipeline.adapters import verify_base
from gpt_edge.export.pipeline.shared import check_same_shape, tokenizer_for, unpublished
from gpt_edge.export.verify.check_settings import check_settings
from gpt_edge.export.verify.own_noise import OwnNoise
from gpt_edge.export.verify.reference import reference_model, run_reference
from gpt_edge.export.verify.verifier import Verifier
from gpt_edge.reference.checkpoint import task_model_of
from gpt_edge.reference.heads import TaskModel
from gpt_edge.reference.importers import Checkpoint, open_checkpoint
from gpt_edge.reference.importers.nanogpt import like
from gpt_edge.reference.model import GPT
from gpt_edge.schemes import FP32, SCHEMES
from gpt_edge.tasks import TaskSpec
from gpt_edge.tokenizer import TokenizerSource, find_tokenizer
from gpt_edge.verify.language_models import LanguageModelSubject
from gpt_edge.verify.report import Progress, Verification, silent, tokenizer_of
from gpt_edge.verify.subject import subject_of


def verify_bundle(
    bundle: Bundle,
    against: Path,
    *,
    config: Path | None = None,
    adapter: str | None = None,
    tokenizer: str | None = None,
    full: bool = False,
    progress: Progress = silent,
) -> Verification:
    """Compare a bundle with a checkpoint: outputs of torch, of a newly built fp32 graph and of the
    bundle's own, each on every execution path. Then its weights and operators one by one, so that
    the first operator where they diverge is named. And tokenizer, labels, generation defaults and
    chat template.

    config, adapter: as for `open_checkpoint`. tokenizer: as for `export_bundle`, where the bundle
    was exported with another one than the checkpoint's. full: of a language model also a new
    portable graph, every split, and the whole context token by token; minutes for a large one.
    Faults are in the report; nothing is raised for them. Raises BundleError where the shapes or
    tasks already differ.
    """
    if bundle.config.takes_adapters:
        return verify_base(bundle, against, config=config, adapter=adapter, progress=progress)
    checkpoint = like(open_checkpoint(against, config=config, adapter=adapter), bundle.config)
    check_same_shape(bundle, checkpoint.config, str(against))
    _check_same_kind(bundle, checkpoint)
    subject = subject_of(
        bundle.config, bundle.task, tokenizer_of(bundle), thorough=True, complete=full
    )
    progress("running the reference")
    expected = run_reference(checkpoint, subject)
    verifier = Verifier(
        "torch",
        subject,
        expected,
        progress,
        effort="full" if full else "verify",
        own_noise=OwnNoise(partial(reference_model, checkpoint), subject, expected),
    )
    if not bundle.is_optimum_export:
        source = _tokenizer_of(bundle, checkpoint, tokenizer)
        check_settings(verifier.report, bundle, checkpoint, source)
    for graph in _baseline_graphs(bundle, full):
        with tempfile.TemporaryDirectory(prefix="gpt-edge-") as name:
            folder = Path(name)
            progress(f"building the fp32 {graph} graph")
            build_graph(checkpoint, folder, graph=graph, scheme=FP32.name, progress=progress)
            made = unpublished(folder, bundle.config, graph, FP32.name, bundle.task)
            label = FP32.name if graph == bundle.graph else f"{graph} {FP32.name}"
            verifier.check(subject.open(made), FP32.name, label)
    verifier.check_bundle(bundle)
    model: GPT | TaskModel
    if isinstance(subject, LanguageModelSubject):
        model = checkpoint.load_model()
        verifier.check_reference(model, subject.probes)
    else:
        model = task_model_of(checkpoint)
    if not bundle.is_optimum_export:
        verifier.localize(bundle, model)
    else:
        verifier.report.notes.append(
            "another tool wrote this folder: its weights and operators cannot be told apart, so no "
            "place is named"
        )
    return verifier.report


def _baseline_graphs(bundle: Bundle, full: bool) -> list[str]:
    """The fp32 graphs to build and check before the bundle's own."""
    graphs = [] if SCHEMES[bundle.scheme].is_float else [bundle.graph]
    if full and bundle.task is None and "portable" not in graphs:
        graphs.append("portable")
    return graphs


def _tokenizer_of(
    bundle: Bundle, checkpoint: Checkpoint, name: str | None
) -> TokenizerSource | None:
    """The tokenizer that is named, or the one beside the checkpoint; None where there is none, or
    one that cannot be read and that the bundle does without.
    """
    folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    try:
        if name is None and find_tokenizer(folder) is None:
            return None
    except TokenizerError:
        if bundle.manifest.tokenizer is None:
            return None
        raise
    return tokenizer_for(checkpoint, name)


def _check_same_kind(bundle: Bundle, checkpoint: Checkpoint) -> None:
    """Raise BundleError where the head answers another kind of question, or with another number of
    outputs.
    """
    ours, theirs = bundle.task, checkpoint.task
    described = [None if task is None else (task.kind, task.problem) for task in (ours, theirs)]
    if described[0] != described[1]:
        raise BundleError(
            f"{bundle.path} answers {_described(ours)}, {checkpoint.path} was made for "
            f"{_described(theirs)}"
        )


def _described(task: TaskSpec | None) -> str:
    if task is None:
        return "no task"
    return f"{task.kind} with {len(task.labels)} labels" if task.labels else task.kind
