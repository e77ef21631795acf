"""The quantize pipeline: from options and a loss budget to a plan, and from the plan to a verified
bundle.

quantize_to_budget runs the steps in order: calibrate, reference_logits, search_formats, publish.
Each is a function whose arguments are the results of the steps before it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.writer import new_bundle
from gpt_edge.errors import ExportError, require
from gpt_edge.export.budget.calibrated_rounding import Rounder
from gpt_edge.export.budget.calibration import (
    CALIBRATION_SEED,
    CALIBRATION_TOKENS,
    EVALUATION_SEED,
    EVALUATION_TOKENS,
    Rows,
    load_reference,
    own_text,
    read_rows,
)
from gpt_edge.export.budget.degradation import Degradation, TextReference, rows_that_fit
from gpt_edge.export.budget.loss_budget import LossBudget
from gpt_edge.export.budget.search import Option, Outcome, Point, search
from gpt_edge.export.budget.sensitivity import SensitivityProbe
from gpt_edge.export.formats.plan import (
    DEFAULT_BLOCK,
    EMBEDDING,
    QuantizeOptions,
    candidates,
    describe,
    shapes,
    uniform_plan,
)
from gpt_edge.export.formats.tensor_format import Plan, TensorFormat
from gpt_edge.export.pipeline.quantize import quantize_bundle
from gpt_edge.export.pipeline.shared import open_folder, write_scheme
from gpt_edge.export.weights.bundle_source import BundleSource
from gpt_edge.export.weights.smoothing import SmoothedSource, smooth
from gpt_edge.runtime.session import Session
from gpt_edge.schemes import FOR_TASKS, SCHEMES, UNIFORM, Scheme
from gpt_edge.verify.report import Progress, Verification, silent, tokenizer_of

SENSITIVITY_TOKENS = 4096
SENSITIVITY_VALUES = 1 << 26  # logits: 256 MiB


class BudgetError(ExportError):
    """No assignment meets the budget. `outcome` says how close the closest came."""

    def __init__(self, outcome: Outcome) -> None:
        best = outcome.best
        super().__init__(
            f"no assignment meets the budget; the closest of {len(outcome.points)} has "
            f"{outcome.budget.exceeded(best.measured)}, with {best.n_bytes / 1e6:.3g} MB of "
            "weights",
            hint="nothing was published; allow more loss, or more formats: --scheme mixed without "
            "--block-size",
        )
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class Quantized:
    """The published bundle. outcome: of the search; None without a budget. notes: for the user, in
    words.
    """

    bundle: Bundle
    verification: Verification
    plan: Plan | None
    outcome: Outcome | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """What is quantized, and how: the values that every step needs.

    source: the bundle's weights, smoothed for the scheme. folder: for temporary graphs and weights.
    """

    bundle: Bundle
    source: SmoothedSource
    options: QuantizeOptions
    target: str | None  # for int8-dynamic
    folder: Path
    progress: Progress
    accept_parity: bool = False

    @property
    def scheme(self) -> Scheme:
        """The row of the table."""
        return SCHEMES[self.options.scheme]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Weights quantized with the help of a text. origin: of the text; None if no format needs
    one.
    """

    rounder: Rounder
    origin: str | None


def quantize_to_budget(
    bundle: Bundle,
    out: Path,
    options: QuantizeOptions,
    *,
    budget: LossBudget | None = None,
    calibration: Path | None = None,
    eval_text: Path | None = None,
    plot: Path | None = None,
    target: str | None = None,
    accept_parity: bool = False,
    force: bool = False,
    progress: Progress = silent,
) -> Quantized:
    """Quantize the weights of an fp32 bundle, within the budget, and publish a bundle at `out`.

    calibration, eval_text: texts for GPTQ and for measuring; without one the model generates its
    own, with different seeds. plot: a PNG of every measured point, written even if the budget is
    exceeded. target: for int8-dynamic. accept_parity: as for `export_bundle`. Raises ValueError
    for options that contradict each other or the model, BudgetError if nothing meets the budget,
    EvaluationError for a text that cannot be read, else as `quantize_bundle`; then `out` is as it
    was.
    """
    budget = budget or LossBudget()
    if bundle.task is not None:
        extras = (
            budget,
            options.is_special,
            SCHEMES[options.scheme].is_mixed,
            calibration,
            eval_text,
            plot,
            target,
        )
        if any(extras):
            raise ValueError(
                "a classifier is quantized by --scheme alone: fp32 bundle in, "
                f"{', '.join(name for name in FOR_TASKS if name in UNIFORM)} out"
            )
        made, verification = quantize_bundle(
            bundle,
            out,
            scheme=options.scheme,
            accept_parity=accept_parity,
            force=force,
            progress=progress,
        )
        return Quantized(made, verification, None, None, ())
    _check_request(options, budget, plot)
    with new_bundle(out, force=force, source=bundle.path):
        pass  # publishes nothing: an `out` that cannot be written fails before minutes of work
    source = smooth(BundleSource(bundle), bundle.graph, options.scheme)
    plan, formats = wanted_formats(bundle, options)
    with tempfile.TemporaryDirectory(prefix="gpt-edge-") as folder:
        request = Request(bundle, source, options, target, Path(folder), progress, accept_parity)
        calibrated = calibrate(request, formats, calibration)
        outcome = None
        reference = None
        if budget:
            reference = reference_logits(request, eval_text)
            outcome = meet_budget(request, budget, plan, formats, calibrated, reference, plot)
            plan = outcome.plan
        text = reference.rows if reference is not None else None
        made, verification = publish(request, out, plan, outcome, calibrated, text, force=force)
    notes = notes_for(bundle, options, calibrated.origin, text)
    return Quantized(made, verification, plan, outcome, notes)


def wanted_formats(
    bundle: Bundle, options: QuantizeOptions
) -> tuple[Plan | None, dict[str, list[TensorFormat]]]:
    """Return the plan of a uniform scheme, else None, and the formats that each weight may get.

    int8-dynamic has no plan and no formats: Optimum quantizes it. Raises ValueError as
    `uniform_plan`.
    """
    scheme = SCHEMES[options.scheme]
    if scheme.by_optimum:
        return None, {}
    if scheme.is_mixed:
        return None, candidates(bundle.config, bundle.graph, options)
    plan = uniform_plan(bundle.config, bundle.graph, options)
    return plan, {name: [form] for name, form in plan.items()}


def calibrate(
    request: Request, formats: Mapping[str, Sequence[TensorFormat]], text: Path | None
) -> Calibration:
    """Quantize by GPTQ every weight that has such a format. Raises ValueError for a text that no
    format needs.
    """
    folder = request.folder / "quantized"
    folder.mkdir()
    rounder = Rounder(request.bundle.config, request.bundle.graph, folder)
    if not any(form.rounding == "gptq" for of_name in formats.values() for form in of_name):
        if text is not None:
            raise ValueError(
                "a calibration text is for rounding by gptq, and no weight is rounded so"
            )
        return Calibration(rounder, None)
    rows = read_or_generate(
        request.bundle,
        text,
        CALIBRATION_TOKENS,
        CALIBRATION_SEED,
        "calibration",
        request.progress,
    )
    rounder.prepare(formats, request.source, rows, request.progress)
    return Calibration(rounder, rows.origin)


def reference_logits(request: Request, text: Path | None) -> TextReference:
    """Run the fp32 bundle on the evaluation text."""
    n_tokens = rows_that_fit(request.bundle.config, EVALUATION_TOKENS)
    rows = read_or_generate(
        request.bundle, text, n_tokens, EVALUATION_SEED, "evaluation", request.progress
    )
    request.progress("running the fp32 bundle")
    return TextReference(Session(request.bundle, native=False), rows)


def meet_budget(
    request: Request,
    budget: LossBudget,
    plan: Plan | None,
    formats: Mapping[str, Sequence[TensorFormat]],
    calibration: Calibration,
    reference: TextReference,
    plot: Path | None,
) -> Outcome:
    """Search for a plan, or measure that of a uniform scheme; draw the measured points to `plot`.
    Raises BudgetError if nothing meets the budget.
    """
    if request.scheme.is_mixed:
        outcome = search_formats(request, budget, formats, calibration, reference)
    else:
        outcome = measure_scheme(request, budget, plan, calibration, reference)
    if plot is not None:
        from gpt_edge.export.budget.plot import plot_outcome  # needs matplotlib

        outcome = add_uniform_schemes(request, outcome, calibration, reference)
        plot_outcome(outcome, plot, request.bundle.manifest.name)
    if not outcome.best.is_met:
        raise BudgetError(outcome)
    return outcome


def search_formats(
    request: Request,
    budget: LossBudget,
    formats: Mapping[str, Sequence[TensorFormat]],
    calibration: Calibration,
    reference: TextReference,
) -> Outcome:
    """Measure the sensitivity of each weight to each format, then search for the cheapest plan."""
    bundle = request.bundle
    request.progress("loading the reference")
    n_tokens = rows_that_fit(bundle.config, SENSITIVITY_TOKENS, SENSITIVITY_VALUES)
    probe = SensitivityProbe(
        load_reference(request.source),
        reference.rows.first(n_tokens),
        bundle.graph,
        calibration.rounder,
    )
    sensitivities = probe.sensitivities(formats, request.progress)
    sizes = shapes(bundle.config, bundle.graph)
    choices = {
        name: [
            Option(form, form.n_bytes(*sizes[name], bundle.graph), degradation.mean_kl)
            for form, degradation in of_name.items()
        ]
        for name, of_name in sensitivities.items()
    }
    del probe  # frees the reference before graphs are built

    def measure(plan: Plan) -> Degradation:
        return measure_plan(request, plan, request.options.scheme, calibration, reference)

    return search(choices, budget, measure, request.progress)


def measure_scheme(
    request: Request,
    budget: LossBudget,
    plan: Plan | None,
    calibration: Calibration,
    reference: TextReference,
) -> Outcome:
    """Measure the one plan of a uniform scheme."""
    point = _point(request, budget, plan, request.options.scheme, calibration, reference)
    return Outcome(budget, plan or {}, point, (point,), {})


def add_uniform_schemes(
    request: Request, outcome: Outcome, calibration: Calibration, reference: TextReference
) -> Outcome:
    """Put points of the uniform schemes, rounded to nearest, before those of the outcome."""
    config, graph = request.bundle.config, request.bundle.graph
    measured = {point.label for point in outcome.points}
    points = []
    for scheme in UNIFORM:
        if scheme not in measured:
            plan = uniform_plan(config, graph, QuantizeOptions(scheme, rounding="nearest"))
            points.append(_point(request, outcome.budget, plan, scheme, calibration, reference))
    return replace(outcome, points=(*points, *outcome.points))


def measure_plan(
    request: Request,
    plan: Plan | None,
    scheme: str,
    calibration: Calibration,
    reference: TextReference,
) -> Degradation:
    """Build the graph of a plan and run the evaluation text through it."""
    config, graph = request.bundle.config, request.bundle.graph
    with tempfile.TemporaryDirectory(dir=request.folder) as name:
        folder = Path(name)
        write_scheme(
            folder,
            request.source,
            graph,
            scheme,
            request.target,
            request.progress,
            plan=plan,
            rounder=calibration.rounder,
        )
        return reference.measure(open_folder(folder, config, graph, scheme, native=False))


def publish(
    request: Request,
    out: Path,
    plan: Plan | None,
    outcome: Outcome | None,
    calibration: Calibration,
    text: Rows | None,
    *,
    force: bool,
) -> tuple[Bundle, Verification]:
    """Build, verify and publish the bundle of a plan. The manifest records the format of each
    tensor, the calibration text, and how the budget was met.
    """
    record: dict[str, Any] = {}
    if plan is not None:
        record["calibration"] = calibration.origin
        record["formats"] = describe(plan)
        record["tensors"] = {name: form.label for name, form in plan.items()}
    if outcome is not None and text is not None:
        record["budget"] = {"text": text.origin, **outcome.to_dict()}
    return quantize_bundle(
        request.bundle,
        out,
        scheme=request.options.scheme,
        target=request.target,
        accept_parity=request.accept_parity,
        force=force,
        progress=request.progress,
        plan=plan,
        rounder=calibration.rounder,
        quantization=record,
    )


def notes_for(
    bundle: Bundle, options: QuantizeOptions, calibrated_on: str | None, text: Rows | None
) -> tuple[str, ...]:
    """What the user should know. text: the evaluation text, if anything was measured."""
    notes = []
    bits = options.head or options.embedding
    if bundle.config.tied_embeddings and bits:
        notes.append(
            f"embedding and head are one table in this model, {EMBEDDING}: both have {bits} bits"
        )
    if calibrated_on is not None:
        notes.append(f"calibrated on {calibrated_on}")
    if text is not None:
        notes.append(f"measured on {text.n_tokens:,} tokens of {text.origin}")
    return tuple(notes)


def read_or_generate(
    bundle: Bundle, path: Path | None, n_tokens: int, seed: int, purpose: str, progress: Progress
) -> Rows:
    """About `n_tokens` tokens of the text at `path`; without one the bundle generates them."""
    if path is not None:
        progress(f"reading the {purpose} text")
        return read_rows(path, tokenizer_of(bundle), bundle.config, n_tokens)
    tokenizer = tokenizer_of(bundle)
    progress(f"generating {purpose} text")
    end_token = tokenizer.end_token if tokenizer is not None else None
    return own_text(Session(bundle, native=False), end_token, n_tokens, seed)


def _check_request(options: QuantizeOptions, budget: LossBudget, plot: Path | None) -> None:
    if SCHEMES[options.scheme].is_mixed and not budget:
        raise ValueError(
            "scheme mixed is searched for a budget: give max_kl, max_ppl_increase or min_top1"
        )
    if plot is None:
        return
    if not budget:
        raise ValueError("a plot shows measured points: give max_kl, max_ppl_increase or min_top1")
    require("matplotlib", "plot")


def _point(
    request: Request,
    budget: LossBudget,
    plan: Plan | None,
    scheme: str,
    calibration: Calibration,
    reference: TextReference,
) -> Point:
    """One measured plan; without a plan, that of Optimum, whose weights have 8 bits."""
    request.progress(f"measuring {scheme}")
    degradation = measure_plan(request, plan, scheme, calibration, reference)
    sizes = shapes(request.bundle.config, request.bundle.graph)
    forms = plan or {name: TensorFormat(8, DEFAULT_BLOCK[8]) for name in sizes}
    n_bytes = sum(form.n_bytes(*sizes[name], request.bundle.graph) for name, form in forms.items())
    return Point(scheme, n_bytes, None, degradation, budget.is_met_by(degradation))
