"""The road behind `report`: everything that a release page says of a bundle is measured here, or
read in its manifest.

Versions are opened one after the other, so memory holds one model, its trace, and the reference's
logits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
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
from gpt_edge.export.report.data import REFERENCE, BundleReport, Sample, TokenDivergences, Variant
from gpt_edge.export.report.samples import (
    Continuation,
    continue_prompt,
    pieces_of,
    prompts_of,
    sample_of,
)
from gpt_edge.export.verify.divergence import Divergence, layer_divergences
from gpt_edge.export.verify.reference import run_reference
from gpt_edge.export.weights.bundle_source import BundleSource
from gpt_edge.export.weights.smoothing import Smoothing, smooth
from gpt_edge.export.weights.source import DATA_FILE, Source
from gpt_edge.reference.importers import Checkpoint, open_checkpoint
from gpt_edge.runtime.session import Session
from gpt_edge.schemes import FP32, INT4, INT8, MIXED, SCHEMES
from gpt_edge.tokenizer import Tokenizer
from gpt_edge.verify import parity
from gpt_edge.verify.language_models import LanguageModelSubject
from gpt_edge.verify.report import Progress, silent, tokenizer_of
from gpt_edge.verify.token_diff import check_same_vocabulary, compare_models, probe_ids

REPORT_TOKENS, REPORT_VALUES = 8192, 1 << 27  # at most 512 MiB of logits
SENSITIVITY_TOKENS = 2048
N_SHOWN = 192  # tokens of the text that is shown token by token
MADE = (INT8.name, INT4.name)  # rounded to nearest
SENSITIVITY_FORMATS = (TensorFormat(4, 32), TensorFormat(8, 64))


@dataclass(frozen=True, slots=True)
class _Reference:
    """The unrounded model: its fp32 bundle, where its weights come from, and in words what
    it is.
    """

    bundle: Bundle
    source: Source
    words: str
    checkpoint: Checkpoint | None = None


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
    """Measure all that the page shows, and say what cannot be known.

    against: the checkpoint, or an fp32 bundle of it; int8 and int4 are made of it for comparison.
    Without it the bundle itself serves where it is fp32, else an fp32 one in `also`; where there is
    none, no loss is measured. text: a corpus as `eval` reads it; without one the fp32 model writes
    its own. prompts: for the samples; three of our own if empty. Raises BundleError for models of
    other shapes, EvaluationError for another vocabulary or prompts without a tokenizer,
    CheckpointError, ExportError for a text that is too short.
    """
    work = _Work(bundle, also, text, prompts, n_tokens, progress)
    with tempfile.TemporaryDirectory(prefix="gpt-edge-") as scratch:
        work.find_reference(against, Path(scratch))
        work.measure(Path(scratch))
        if with_sensitivity:
            work.measure_sensitivity(Path(scratch))
        return work.report()


class _Work:
    """One report while it is made."""

    def __init__(
        self,
        bundle: Bundle,
        also: Sequence[Bundle],
        text: Path | None,
        prompts: Sequence[str],
        n_tokens: int,
        progress: Progress,
    ) -> None:
        self.bundle, self.also, self.text, self.n_tokens, self.progress = (
            bundle,
            also,
            text,
            n_tokens,
            progress,
        )
        for model in (bundle, *also):
            if model.manifest.kind != "causal-lm":
                raise BundleError(
                    f"{model.path} is a {model.manifest.kind}: reports are about language models"
                )
        for other in also:
            check_same_vocabulary(
                bundle.config, other.config, (bundle.manifest.name, other.manifest.name)
            )
        self.words: Tokenizer | None = tokenizer_of(bundle)
        self.has_own_prompts = bool(prompts)
        self.prompts = prompts_of(prompts, self.words, bundle.config)
        self.reference: _Reference | None = None
        self.rows: Rows | None = None
        self.variants: list[Variant] = []
        self.tokens: TokenDivergences | None = None
        self.torch: dict[str, Any] | None = None
        self.missing: list[str] = []
        self.sensitivity, self.sensitivity_origin = _stored_sensitivity(bundle)
        self._wanted: list[Continuation] = []  # the reference's continuations, and their margins

    def find_reference(self, against: Path | None, scratch: Path) -> None:
        """Open the checkpoint or bundle that everything is held against."""
        if against is not None and not (against / MANIFEST_FILE).exists():
            self._open_checkpoint(against, scratch)
            return
        candidates = [Bundle.open(against)] if against is not None else [self.bundle, *self.also]
        for found in candidates:
            if against is not None or (
                SCHEMES[found.scheme].is_float and not found.is_optimum_export
            ):
                self._check_shape(found, str(found.path))
                self.reference = _Reference(
                    found, BundleSource(found), f"the fp32 bundle {found.manifest.name}"
                )
                return
        self.missing.append(
            "Loss against the unrounded model, layer by layer too: no checkpoint was given "
            "(--against CHECKPOINT, or an "
            "fp32 bundle)."
        )

    def measure(self, scratch: Path) -> None:
        """The reference first, then every version against it."""
        if self.reference is not None:
            self._ask_reference(self.reference)
        if self.reference is None or self.reference.bundle.path != self.bundle.path:
            self._add(self.bundle, f"this bundle ({self.bundle.scheme})", is_main=True)
        for other in self.also:
            if self.reference is None or other.path != self.reference.bundle.path:
                self._add(other, other.manifest.name)
        if self.reference is not None:
            for scheme in MADE:
                if scheme != self.bundle.scheme:
                    self._make(self.reference, scheme, scratch / scheme)

    def measure_sensitivity(self, scratch: Path) -> None:
        """What rounding each weight alone costs, in 4 bits and in 8."""
        if self.reference is None or self.rows is None:
            self.missing.append(
                "Sensitivity: it is measured on the unrounded weights, and there are none."
            )
            return
        self.progress("loading the reference")
        folder = scratch / "rounder"
        folder.mkdir()
        config, graph = self.bundle.config, self.bundle.graph
        few = self.rows.first(rows_that_fit(config, SENSITIVITY_TOKENS, REPORT_VALUES // 2))
        probe = SensitivityProbe(
            load_reference(smooth(self.reference.source, graph, MIXED.name)),
            few,
            graph,
            Rounder(config, graph, folder),
        )
        found = probe.sensitivities(
            dict.fromkeys(shapes(config, graph), SENSITIVITY_FORMATS), self.progress
        )
        self.sensitivity = {
            name: {form.label: degradation.mean_kl for form, degradation in of_name.items()}
            for name, of_name in found.items()
        }
        self.sensitivity_origin = f"measured on {few.n_tokens:,} tokens of {few.origin}"

    def report(self) -> BundleReport:
        """What was found, in the order of the columns: reference, the bundle, others, those that
        were made.
        """
        if not self.sensitivity:
            self.missing.append(
                "Sensitivity of each weight: not in the manifest; it is measured with "
                "--sensitivity."
            )
        origin = "given for this report" if self.has_own_prompts else "the report's own"
        return BundleReport(
            self.bundle,
            self.reference.words if self.reference else None,
            tuple(self.variants),
            self.rows.origin if self.rows else None,
            self.rows.n_tokens if self.rows else 0,
            origin if self.words else "random ids, as there is no tokenizer",
            self.tokens,
            self.sensitivity,
            self.sensitivity_origin,
            self.torch,
            tuple(self.missing),
        )

    def _check_shape(self, found: Bundle | Checkpoint, name: str) -> None:
        check_same_shape(self.bundle, found.config, name)

    def _open_checkpoint(self, path: Path, scratch: Path) -> None:
        checkpoint = open_checkpoint(path)
        self._check_shape(checkpoint, str(path))
        folder = scratch / FP32.name
        folder.mkdir()
        write_scheme(folder, checkpoint, self.bundle.graph, FP32.name, None, self.progress)
        made = _draft(folder, self.bundle, FP32.name)
        self.progress("asking torch")
        probes = parity.probes(self.bundle.config, self.words)
        session = Session(made)
        found = parity.compare(
            probes,
            run_reference(checkpoint, LanguageModelSubject(probes)).logits,
            [parity.probe_logits(session, probe) for probe in probes],
        )
        self.torch = found.to_dict()
        self.reference = _Reference(
            made, checkpoint, "the fp32 graph of the checkpoint", checkpoint
        )

    def _ask_reference(self, reference: _Reference) -> None:
        """Its text, what it says to it, and its continuations."""
        session = Session(reference.bundle)
        n_tokens = rows_that_fit(session.config, self.n_tokens, REPORT_VALUES)
        if self.text is not None:
            self.progress("reading the text")
            found = read_rows(self.text, self.words, session.config, n_tokens)
            self.rows = Rows(found.ids, f"{self.text.name} ({found.origin})")
        else:
            self.progress("writing a text")
            end = self.words.end_token if self.words else None
            self.rows = own_text(session, end, n_tokens, EVALUATION_SEED)
        self.progress("asking fp32")
        self._text_reference = TextReference(session, self.rows)
        self._wanted = [continue_prompt(session, ids, self.words) for _, ids in self.prompts]
        is_main = reference.bundle.path == self.bundle.path
        samples = tuple(self._sample(i, ids) for i, (ids, _) in enumerate(self._wanted))
        self.variants.append(
            Variant(
                REFERENCE,
                FP32.name,
                _graph_bytes(reference.bundle),
                is_main=is_main,
                samples=samples,
            )
        )

    def _add(
        self, bundle: Bundle, label: str, *, is_main: bool = False, is_made: bool = False
    ) -> None:
        """Measure one version."""
        self.progress(f"measuring {label}")
        session = Session(bundle)
        degradation = self._text_reference.measure(session) if self.reference is not None else None
        samples = tuple(
            self._sample(i, continue_prompt(session, ids, self.words)[0])
            for i, (_, ids) in enumerate(self.prompts)
        )
        if is_main and self.reference is not None:
            self._compare_tokens(session, self.reference)
        del session
        size = _graph_bytes(bundle)
        layers = self._layers(bundle, label)
        self.variants.append(
            Variant(label, bundle.scheme, size, is_main, is_made, degradation, samples, layers)
        )

    def _make(self, reference: _Reference, scheme: str, folder: Path) -> None:
        folder.mkdir()
        source = smooth(reference.source, self.bundle.graph, scheme)
        write_scheme(folder, source, self.bundle.graph, scheme, None, self.progress)
        self._add(_draft(folder, self.bundle, scheme, source.smoothing), scheme, is_made=True)

    def _compare_tokens(self, session: Session, reference: _Reference) -> None:
        """The bundle beside the reference on the beginning of the text, token by token."""
        if self.words is None or self.rows is None:
            return
        ids = self.rows.ids[0][:N_SHOWN] if self.text is not None else self._passage()
        first = SessionScorer(Session(reference.bundle), REFERENCE)
        found = compare_models(first, SessionScorer(session, "this bundle"), ids)
        self.tokens = TokenDivergences(pieces_of(found.ids, self.words), (0.0, *found.kl[:-1]))

    def _passage(self) -> IntArray:
        return probe_ids(
            None, self.words, self.bundle.config, min(N_SHOWN, self.bundle.config.n_ctx)
        )

    def _layers(self, bundle: Bundle, label: str) -> tuple[Divergence, ...]:
        if self.reference is None:
            return ()
        if bundle.is_optimum_export or bundle.config != self.bundle.config:
            self.missing.append(
                f"Error layer by layer of {label}: its operators cannot be told apart or differ in "
                "shape."
            )
            return ()
        self.progress(f"comparing the operators of {label}")
        ids = probe_ids(
            None, self.words, self.bundle.config, min(N_SHOWN, self.bundle.config.n_ctx)
        )
        return tuple(layer_divergences(self.reference.bundle, bundle, ids))

    def _sample(self, index: int, ids: Sequence[int]) -> Sample:
        wanted = self._wanted[index] if self._wanted else None
        return sample_of(self.prompts[index][0], ids, wanted, self.words)


def _draft(folder: Path, bundle: Bundle, scheme: str, smoothing: Smoothing | None = None) -> Bundle:
    """A graph in a folder as a bundle."""
    manifest = Manifest(
        name=scheme,
        graph=bundle.graph,
        scheme=scheme,
        config=bundle.config,
        provenance=smoothing.provenance if smoothing else {},
    )
    return Bundle.unpublished(folder, manifest)


def _graph_bytes(bundle: Bundle) -> int:
    """Graph and weights: what a scheme changes."""
    names = (MODEL_FILE, DATA_FILE)
    found = sum(record["size"] for name, record in bundle.manifest.files.items() if name in names)
    return found or bundle.n_bytes


def _stored_sensitivity(bundle: Bundle) -> tuple[dict[str, dict[str, float]], str | None]:
    """What `quantize` left in the manifest. Figures there are somebody else's: what is not a number
    is left out.
    """
    described = bundle.manifest.provenance.get("quantization")
    budget = described.get("budget") if isinstance(described, dict) else None
    tensors = budget.get("tensors") if isinstance(budget, dict) else None
    found: dict[str, dict[str, float]] = {}
    for name, values in tensors.items() if isinstance(tensors, dict) else ():
        kl = values.get("kl") if isinstance(values, dict) else None
        numbers = (
            {form: float(v) for form, v in kl.items() if type(v) in (int, float)}
            if isinstance(kl, dict)
            else {}
        )
        if numbers:
            found[name] = numbers
    return found, "stored in the manifest by gpt-edge quantize" if found else None
