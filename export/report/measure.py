"""The report pipeline: measure, or read in the manifest, every figure that a report shows of a
bundle.

Versions of the model are opened one after the other, so memory holds one model, its trace, and the
reference's logits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt_edge.arrays import IntArray
from gpt_edge.bundle.bundle import Bundle, Manifest
from gpt_edge.bundle.manifest import MANIFEST_FILE
from gpt_edge.errors import BundleError
from gpt_edge.evaluate import SessionScorer
from gpt_edge.export.budget.calibrated_rounding import Rounder
from gpt_edge.export.budget.calibration import (
    EVALUATION_SEED,
    Rows,
    load_reference,
    own_text,
    read_rows,
)
from gpt_edge.export.budget.degradation import TextReference, rows_that_fit
from gpt_edge.export.budget.sensitivity import SensitivityProbe
from gpt_edge.export.formats.plan import shapes
from gpt_edge.export.formats.tensor_format import TensorFormat
from gpt_edge.export.graph.build import MODEL_FILE
from gpt_edge.export.pipeline.shared import check_same_shape, write_scheme
from gpt_edge.export.report.data import REFERENCE, BundleReport, TokenDivergences, Variant
from gpt_edge.export.report.samples import (
    Continuation,
    Prompt,
    continue_prompt,
    pieces_of,
    prompts_of,
    sample_of,
)
from gpt_edge.export.verify.divergence import Divergence, layer_divergences
from gpt_edge.export.verify.reference import run_reference
from gpt_edge.export.weights.bundle_source import BundleSource
from gpt_edge.export.weights.data_file import DATA_FILES
from gpt_edge.export.weights.smoothing import Smoothing, smooth
from gpt_edge.export.weights.source import WeightSource
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.reference.importers.nanogpt import like
from gpt_edge.runtime.session import Session
from gpt_edge.schemes import FP32, INT4, INT8, MIXED, SCHEMES
from gpt_edge.tokenizer import Tokenizer
from gpt_edge.verify import parity
from gpt_edge.verify.language_models import LanguageModelSubject
from gpt_edge.verify.report import Progress, silent, tokenizer_of
from gpt_edge.verify.token_diff import check_same_vocabulary, compare_models, probe_ids

REPORT_TOKENS = 8192
REPORT_VALUES = 1 << 27  # logits: 512 MiB
SENSITIVITY_TOKENS = 2048
N_SHOWN = 192  # tokens of the passage that the page shows token by token
BUILT = (INT8.name, INT4.name)  # for comparison, rounded to nearest
SENSITIVITY_FORMATS = (TensorFormat(4, 32), TensorFormat(8, 64))


@dataclass(frozen=True, slots=True)
class Inputs:
    """What every step needs: the bundle of the report, and what its versions are measured on."""

    bundle: Bundle
    also: Sequence[Bundle]
    tokenizer: Tokenizer | None
    text: Path | None
    prompts: Sequence[Prompt]
    progress: Progress


@dataclass(frozen=True, slots=True)
class Reference:
    """The unquantized model: its fp32 bundle and the source of its weights. torch: the figures of
    the fp32 graph against torch, if there is a checkpoint.
    """

    bundle: Bundle
    source: WeightSource
    description: str
    torch: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Baseline:
    """The reference's outputs: logits of the text, and a continuation of each prompt."""

    reference: Reference
    logits: TextReference
    continuations: Sequence[Continuation]

    @property
    def rows(self) -> Rows:
        """The text."""
        return self.logits.rows


@dataclass(frozen=True, slots=True)
class Version:
    """A bundle to measure. is_built: for this report, in a temporary folder."""

    bundle: Bundle
    label: str
    is_main: bool = False
    is_built: bool = False


def make_report(
    bundle: Bundle,
    *,
    against: Path | None = None,
    also: Sequence[Bundle] = (),
    text: Path | None = None,
    prompts: Sequence[str] = (),
    n_tokens: int = REPORT_TOKENS,
    with_sensitivity: bool = False,
    progress: Progress = silent,
) -> BundleReport:
    """Measure all figures of the page, and list those that cannot be measured.

    against: the checkpoint, or an fp32 bundle of it; int8 and int4 are built from it for
    comparison. Without it the bundle itself serves if it is fp32, else an fp32 one in `also`; else
    no loss is measured. text: a corpus as `eval` reads it; without one the fp32 model generates its
    own. prompts: for the samples; DEFAULT_PROMPTS if empty. Raises BundleError for models of other
    shapes, EvaluationError for another vocabulary or prompts without a tokenizer, CheckpointError,
    ExportError for a text that is too short.
    """
    _check_models(bundle, also)
    tokenizer = tokenizer_of(bundle)
    encoded = prompts_of(prompts, tokenizer, bundle.config)
    inputs = Inputs(bundle, also, tokenizer, text, encoded, progress)
    missing: list[str] = []
    with tempfile.TemporaryDirectory(prefix="gpt-edge-") as name:
        folder = Path(name)
        reference = open_reference(inputs, against, folder)
        if reference is None:
            missing.append(
                "Loss against the unquantized model, also layer by layer: no checkpoint was given "
                "(--against CHECKPOINT, or an fp32 bundle)."
            )
        baseline = None
        variants: list[Variant] = []
        if reference is not None:
            baseline = measure_baseline(inputs, reference, n_tokens)
            variants.append(reference_variant(inputs, baseline))
        for version in versions(inputs, reference, folder):
            variants.append(measure_version(inputs, baseline, version))
            if baseline is not None and not has_same_operators(inputs, version):
                missing.append(
                    f"Error layer by layer of {version.label}: its operators cannot be matched or "
                    "differ in shape."
                )
        tokens = token_divergences(inputs, baseline) if baseline is not None else None
        sensitivity, origin = stored_sensitivity(bundle)
        if with_sensitivity and baseline is None:
            missing.append(
                "Sensitivity: it is measured on the unquantized weights, and there are none."
            )
        elif with_sensitivity and baseline is not None:
            sensitivity, origin = measure_sensitivity(inputs, baseline, folder)
    if not sensitivity:
        missing.append(
            "Sensitivity of each weight: not in the manifest; --sensitivity measures it."
        )
    return BundleReport(
        bundle=bundle,
        reference=reference.description if reference else None,
        variants=tuple(variants),
        text=baseline.rows.origin if baseline else None,
        n_tokens=baseline.rows.n_tokens if baseline else 0,
        prompts=_origin_of_prompts(inputs, prompts),
        tokens=tokens,
        sensitivity=sensitivity,
        sensitivity_origin=origin,
        torch=reference.torch if reference else None,
        missing=tuple(missing),
    )


def open_reference(inputs: Inputs, against: Path | None, folder: Path) -> Reference | None:
    """Open the checkpoint or fp32 bundle that every version is compared with; None if there is
    none. folder: for the graph of a checkpoint.
    """
    if against is not None and not (against / MANIFEST_FILE).exists():
        return _open_checkpoint(inputs, against, folder / FP32.name)
    if against is not None:
        return _reference_of(inputs, Bundle.open(against))
    for candidate in (inputs.bundle, *inputs.also):
        if SCHEMES[candidate.scheme].is_float and not candidate.is_optimum_export:
            return _reference_of(inputs, candidate)
    return None


def measure_baseline(inputs: Inputs, reference: Reference, n_tokens: int) -> Baseline:
    """Read or generate the text, and run the reference on it and on the prompts."""
    session = Session(reference.bundle)
    n_tokens = rows_that_fit(session.config, n_tokens, REPORT_VALUES)
    if inputs.text is not None:
        inputs.progress("reading the text")
        rows = read_rows(inputs.text, inputs.tokenizer, session.config, n_tokens)
        rows = Rows(rows.ids, f"{inputs.text.name} ({rows.origin})")
    else:
        inputs.progress("generating a text")
        end_token = inputs.tokenizer.end_token if inputs.tokenizer else None
        rows = own_text(session, end_token, n_tokens, EVALUATION_SEED)
    inputs.progress("running fp32")
    logits = TextReference(session, rows)
    continuations = [continue_prompt(session, ids, inputs.tokenizer) for _, ids in inputs.prompts]
    return Baseline(reference, logits, continuations)


def reference_variant(inputs: Inputs, baseline: Baseline) -> Variant:
    """The reference as a version of the model."""
    bundle = baseline.reference.bundle
    samples = tuple(
        sample_of(prompt, continuation[0], continuation, inputs.tokenizer)
        for (prompt, _), continuation in zip(inputs.prompts, baseline.continuations, strict=True)
    )
    is_main = bundle.path == inputs.bundle.path
    return Variant(REFERENCE, FP32.name, _graph_bytes(bundle), is_main=is_main, samples=samples)


def versions(inputs: Inputs, reference: Reference | None, folder: Path) -> Iterator[Version]:
    """Every version but the reference, in the order of the page; those that are built are built
    when their turn comes.
    """
    reference_path = reference.bundle.path if reference is not None else None
    if inputs.bundle.path != reference_path:
        yield Version(inputs.bundle, f"this bundle ({inputs.bundle.scheme})", is_main=True)
    for other in inputs.also:
        if other.path != reference_path:
            yield Version(other, other.manifest.name)
    if reference is None:
        return
    for scheme in BUILT:
        if scheme != inputs.bundle.scheme:
            source = smooth(reference.source, inputs.bundle.graph, scheme)
            built = _build(inputs, source, scheme, folder / scheme, source.smoothing)
            yield Version(built, scheme, is_built=True)


def measure_version(inputs: Inputs, baseline: Baseline | None, version: Version) -> Variant:
    """Measure size, degradation, samples and layers of one version; without a baseline, size and
    samples.
    """
    inputs.progress(f"measuring {version.label}")
    session = Session(version.bundle)
    samples = []
    for index, (prompt, ids) in enumerate(inputs.prompts):
        expected = baseline.continuations[index] if baseline is not None else None
        tokens, _ = continue_prompt(session, ids, inputs.tokenizer)
        samples.append(sample_of(prompt, tokens, expected, inputs.tokenizer))
    degradation = baseline.logits.measure(session) if baseline is not None else None
    del session  # frees the model before its operators are compared
    layers: tuple[Divergence, ...] = ()
    if baseline is not None and has_same_operators(inputs, version):
        inputs.progress(f"comparing the operators of {version.label}")
        ids = _passage(inputs)
        layers = tuple(layer_divergences(baseline.reference.bundle, version.bundle, ids))
    return Variant(
        label=version.label,
        scheme=version.bundle.scheme,
        n_bytes=_graph_bytes(version.bundle),
        is_main=version.is_main,
        is_built=version.is_built,
        degradation=degradation,
        samples=tuple(samples),
        layers=layers,
    )


def has_same_operators(inputs: Inputs, version: Version) -> bool:
    """Whether the version's operators correspond to the reference's."""
    bundle = version.bundle
    return not bundle.is_optimum_export and bundle.config == inputs.bundle.config


def token_divergences(inputs: Inputs, baseline: Baseline) -> TokenDivergences | None:
    """The bundle against the reference on a passage, token by token; None if they are one, or
    without a tokenizer.
    """
    reference = baseline.reference.bundle
    if inputs.tokenizer is None or reference.path == inputs.bundle.path:
        return None
    ids = baseline.rows.ids[0][:N_SHOWN] if inputs.text is not None else _passage(inputs)
    diff = compare_models(
        SessionScorer(Session(reference), REFERENCE),
        SessionScorer(Session(inputs.bundle), "this bundle"),
        ids,
    )
    return TokenDivergences(pieces_of(diff.ids, inputs.tokenizer), (0.0, *diff.kl[:-1]))


def measure_sensitivity(
    inputs: Inputs, baseline: Baseline, folder: Path
) -> tuple[dict[str, dict[str, float]], str]:
    """Mean KL of quantizing each weight alone, in 4 bits and in 8, by weight and format; and what
    it was measured on.
    """
    config, graph = inputs.bundle.config, inputs.bundle.graph
    inputs.progress("loading the reference")
    (folder / "rounder").mkdir()
    rows = baseline.rows.first(rows_that_fit(config, SENSITIVITY_TOKENS, REPORT_VALUES // 2))
    probe = SensitivityProbe(
        load_reference(smooth(baseline.reference.source, graph, MIXED.name)),
        rows,
        graph,
        Rounder(config, graph, folder / "rounder"),
    )
    formats = dict.fromkeys(shapes(config, graph), SENSITIVITY_FORMATS)
    sensitivities = probe.sensitivities(formats, inputs.progress)
    by_label = {
        name: {form.label: degradation.mean_kl for form, degradation in of_name.items()}
        for name, of_name in sensitivities.items()
    }
    return by_label, f"measured on {rows.n_tokens:,} tokens of {rows.origin}"


def stored_sensitivity(bundle: Bundle) -> tuple[dict[str, dict[str, float]], str | None]:
    """The figures of `quantize` in the manifest, and their origin. They are untrusted: values that
    are not numbers are left out.
    """
    record = bundle.manifest.provenance.get("quantization")
    budget = record.get("budget") if isinstance(record, dict) else None
    tensors = budget.get("tensors") if isinstance(budget, dict) else None
    sensitivity: dict[str, dict[str, float]] = {}
    for name, values in tensors.items() if isinstance(tensors, dict) else ():
        kl = values.get("kl") if isinstance(values, dict) else None
        if not isinstance(kl, dict):
            continue
        numbers = {form: float(v) for form, v in kl.items() if type(v) in (int, float)}
        if numbers:
            sensitivity[name] = numbers
    return sensitivity, "stored in the manifest by gpt-edge quantize" if sensitivity else None


def _check_models(bundle: Bundle, also: Sequence[Bundle]) -> None:
    for model in (bundle, *also):
        if model.manifest.kind != "causal-lm":
            raise BundleError(
                f"{model.path} is a {model.manifest.kind}: reports are about language models"
            )
    for other in also:
        names = (bundle.manifest.name, other.manifest.name)
        check_same_vocabulary(bundle.config, other.config, names)


def _origin_of_prompts(inputs: Inputs, prompts: Sequence[str]) -> str:
    if inputs.tokenizer is None:
        return "random ids, as there is no tokenizer"
    return "given for this report" if prompts else "the report's own"


def _reference_of(inputs: Inputs, bundle: Bundle) -> Reference:
    check_same_shape(inputs.bundle, bundle.config, str(bundle.path))
    return Reference(bundle, BundleSource(bundle), f"the fp32 bundle {bundle.manifest.name}")


def _open_checkpoint(inputs: Inputs, path: Path, folder: Path) -> Reference:
    """Build the checkpoint's fp32 graph in `folder` and compare it with torch."""
    checkpoint = like(open_checkpoint(path), inputs.bundle.config)
    check_same_shape(inputs.bundle, checkpoint.config, str(path))
    built = _build(inputs, checkpoint, FP32.name, folder)
    inputs.progress("running torch")
    probes = parity.probes(inputs.bundle.config, inputs.tokenizer)
    session = Session(built)
    agreement = parity.compare(
        probes,
        run_reference(checkpoint, LanguageModelSubject(probes)).logits,
        [parity.probe_logits(session, probe) for probe in probes],
    )
    return Reference(built, checkpoint, "the fp32 graph of the checkpoint", agreement.to_dict())


def _build(
    inputs: Inputs,
    source: WeightSource,
    scheme: str,
    folder: Path,
    smoothing: Smoothing | None = None,
) -> Bundle:
    """Build a graph of a scheme in a new folder, as an unpublished bundle."""
    folder.mkdir()
    write_scheme(folder, source, inputs.bundle.graph, scheme, None, inputs.progress)
    manifest = Manifest(
        name=scheme,
        graph=inputs.bundle.graph,
        scheme=scheme,
        config=inputs.bundle.config,
        provenance=smoothing.provenance if smoothing else {},
    )
    return Bundle.unpublished(folder, manifest)


def _passage(inputs: Inputs) -> IntArray:
    """Ids [T] for comparisons operator by operator and token by token."""
    config = inputs.bundle.config
    return probe_ids(None, inputs.tokenizer, config, min(N_SHOWN, config.n_ctx))


def _graph_bytes(bundle: Bundle) -> int:
    """Size of graph and weights, which a scheme changes."""
    names = (MODEL_FILE, *DATA_FILES.values())
    sizes = [record["size"] for name, record in bundle.manifest.files.items() if name in names]
    return sum(sizes) or bundle.n_bytes
