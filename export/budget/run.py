"""The road behind `gpt-edge quantize`: from wishes and a budget to a plan, and from the plan to a
verified bundle.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
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
from gpt_edge.export.weights.smoothing import smooth
from gpt_edge.runtime.session import Session
from gpt_edge.schemes import FOR_TASKS, SCHEMES, UNIFORM
from gpt_edge.verify.report import Progress, Verification, silent, tokenizer_of

SENSITIVITY_TOKENS, SENSITIVITY_VALUES = 4096, 1 << 26  # at most 256 MiB of logits


class BudgetError(ExportError):
    """No assignment keeps the budget. `outcome` says how close the closest came."""

    def __init__(self, outcome: Outcome) -> None:
        best = outcome.best
        super().__init__(
            f"no assignment meets the budget; the closest of {len(outcome.points)} has "
            f"{outcome.budget.exceeded(best.measured)}, with {best.n_bytes / 1e6:.3g} MB of weights",
            hint="nothing was published; allow more loss, or more formats: --scheme mixed without "
            "--block-size",
        )
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class Quantized:
    """What came out. outcome: of the budget; None where there was none. notes: what the user should
    know, in words.
    """

    bundle: Bundle
    verification: Verification
    plan: Plan | None
    outcome: Outcome | None
    notes: tuple[str, ...]


def quantize_to_budget(
    bundle: Bundle,
    out: Path,
    wishes: QuantizeOptions,
    *,
    budget: LossBudget | None = None,
    calibration: Path | None = None,
    eval_text: Path | None = None,
    plot: Path | None = None,
    target: str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Quantized:
    """Round the weights of an fp32 bundle as wished, within the limits, into a bundle at `out`.

    calibration, eval_text: texts for GPTQ and for measuring; without them the model writes its own,
    of different seeds. plot: a PNG of every measured point, also where the budget is missed.
    target: for int8-dynamic. Raises ValueError for wishes that contradict each other or the model,
    BudgetError when nothing meets the limits, EvaluationError for a text that cannot be read, else
    as `quantize_bundle`; then `out` is as it was.
    """
    budget = budget or LossBudget()
    if bundle.task is not None:
        if (
            budget
            or wishes.is_special
            or SCHEMES[wishes.scheme].is_mixed
            or calibration
            or eval_text
            or plot
            or target
        ):
            raise ValueError(
                "a classifier is quantized by --scheme alone: fp32 bundle in, "
                f"{', '.join(name for name in FOR_TASKS if name in UNIFORM)} out"
            )
        made, report = quantize_bundle(
            bundle, out, scheme=wishes.scheme, force=force, progress=progress
        )
        return Quantized(made, report, None, None, ())
    if SCHEMES[wishes.scheme].is_mixed and not budget:
        raise ValueError(
            "scheme mixed is searched for a budget: give max_kl, max_ppl_increase or min_top1"
        )
    if plot is not None and not budget:
        raise ValueError("a plot shows measured points: give max_kl, max_ppl_increase or min_top1")
    if plot is not None:
        require("matplotlib", "plot")
    with new_bundle(out, force=force, source=bundle.path):
        pass  # nothing is published: what stands in the way is found before minutes of work
    work = _Work(bundle, wishes, budget, calibration, eval_text, target, progress)
    with tempfile.TemporaryDirectory(prefix="gpt-edge-") as scratch:
        work.open(Path(scratch))
        outcome = work.outcome(with_schemes=plot is not None) if budget else None
        if plot is not None and outcome is not None:
            from gpt_edge.export.budget.plot import plot_outcome

            plot_outcome(outcome, plot, bundle.manifest.name)
        if outcome is not None and not outcome.best.is_met:
            raise BudgetError(outcome)
        plan = outcome.plan if outcome is not None else work.plan
        made, report = quantize_bundle(
            bundle,
            out,
            scheme=wishes.scheme,
            target=target,
            force=force,
            progress=progress,
            plan=plan,
            rounder=work.rounder,
            quantization=work.described(plan, outcome),
        )
    return Quantized(made, report, plan, outcome, work.notes())


class _Work:
    """One quantisation while it runs: what is opened once and used by several steps."""

    def __init__(
        self,
        bundle: Bundle,
        wishes: QuantizeOptions,
        budget: LossBudget,
        calibration: Path | None,
        eval_text: Path | None,
        target: str | None,
        progress: Progress,
    ) -> None:
        self.bundle, self.wishes, self.budget, self.target, self.progress = (
            bundle,
            wishes,
            budget,
            target,
            progress,
        )
        self.calibration, self.eval_text = calibration, eval_text
        self.source = smooth(BundleSource(bundle), bundle.graph, wishes.scheme)
        config, graph = bundle.config, bundle.graph
        is_mixed = SCHEMES[wishes.scheme].is_mixed
        self.is_dynamic = SCHEMES[wishes.scheme].by_optimum
        self.wanted: dict[str, list[TensorFormat]] = (
            candidates(config, graph, wishes) if is_mixed else {}
        )
        self.plan: Plan | None = None
        if not is_mixed and not self.is_dynamic:
            self.plan = uniform_plan(config, graph, wishes)
            self.wanted = {name: [form] for name, form in self.plan.items()}
        self.rounder: Rounder | None = None
        self.calibrated_on: str | None = None
        self._session: Session | None = None
        self._reference: TextReference | None = None

    def open(self, scratch: Path) -> None:
        """Round by GPTQ what the plan or the candidates want so. scratch: an empty folder for the
        time of the work.
        """
        self._scratch = scratch
        (scratch / "rounded").mkdir()
        self.rounder = Rounder(self.bundle.config, self.bundle.graph, scratch / "rounded")
        if any(form.rounding == "gptq" for forms in self.wanted.values() for form in forms):
            rows = self._text(self.calibration, CALIBRATION_TOKENS, CALIBRATION_SEED, "calibration")
            self.calibrated_on = rows.origin
            self.rounder.prepare(self.wanted, self.source, rows, self.progress)
        elif self.calibration is not None:
            raise ValueError("a calibration text is for rounding by gptq, which nothing here wants")

    def outcome(self, *, with_schemes: bool) -> Outcome:
        """Search, or measure the one plan of a uniform scheme. with_schemes: measure the uniform
        schemes as well.
        """
        n_tokens = rows_that_fit(self.bundle.config, EVALUATION_TOKENS)
        rows = self._text(self.eval_text, n_tokens, EVALUATION_SEED, "evaluation")
        self.progress("asking the fp32 bundle")
        self._reference = TextReference(self._fp32(), rows)
        self._session = None  # gives its memory back before others are opened
        if not SCHEMES[self.wishes.scheme].is_mixed:
            found = self._uniform()
        else:
            options = self._options(rows)
            found = search(options, self.budget, self.measure, self.progress)
        if not with_schemes:
            return found
        return Outcome(
            found.budget,
            found.plan,
            found.best,
            (*self._schemes(found), *found.points),
            found.options,
        )

    def measure(self, plan: Plan | None, scheme: str | None = None) -> Degradation:
        """Build the graph of a plan and run the evaluation text through it."""
        assert self._reference is not None
        scheme = scheme or self.wishes.scheme
        with tempfile.TemporaryDirectory(dir=self._scratch) as name:
            folder, config, graph = Path(name), self.bundle.config, self.bundle.graph
            write_scheme(
                folder,
                self.source,
                graph,
                scheme,
                self.target,
                self.progress,
                plan=plan,
                rounder=self.rounder,
            )
            return self._reference.measure(open_folder(folder, config, graph, scheme))

    def described(self, plan: Plan | None, outcome: Outcome | None) -> Mapping[str, Any]:
        """For the manifest: what each tensor is, what it was calibrated on, and how the budget was
        met.
        """
        values: dict[str, Any] = {}
        if plan is not None:
            values |= {"calibration": self.calibrated_on, "formats": describe(plan)}
            values["tensors"] = {name: form.label for name, form in plan.items()}
        if outcome is not None and self._reference is not None:
            values["budget"] = {"text": self._reference.rows.origin, **outcome.to_dict()}
        return values

    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        notes = []
        config, wishes = self.bundle.config, self.wishes
        if config.tied_embeddings and (wishes.head or wishes.embedding):
            bits = wishes.head or wishes.embedding
            notes.append(
                f"embedding and head are one table in this model, {EMBEDDING}: both have {bits} "
                "bits"
            )
        if self.calibrated_on is not None:
            notes.append(f"calibrated on {self.calibrated_on}")
        if self._reference is not None:
            rows = self._reference.rows
            notes.append(f"measured on {rows.n_tokens:,} tokens of {rows.origin}")
        return tuple(notes)

    def _text(self, path: Path | None, n_tokens: int, seed: int, what: str) -> Rows:
        if path is not None:
            self.progress(f"reading the {what} text")
            return read_rows(path, tokenizer_of(self.bundle), self.bundle.config, n_tokens)
        words = self.bundle.manifest.tokenizer
        self.progress(f"writing {what} text")
        return own_text(self._fp32(), words.get("end_token") if words else None, n_tokens, seed)

    def _fp32(self) -> Session:
        if self._session is None:
            self._session = Session(self.bundle, native=False)
        return self._session

    def _options(self, rows: Rows) -> dict[str, list[Option]]:
        assert self.rounder is not None
        self.progress("loading the reference")
        few = rows.first(rows_that_fit(self.bundle.config, SENSITIVITY_TOKENS, SENSITIVITY_VALUES))
        probe = SensitivityProbe(load_reference(self.source), few, self.bundle.graph, self.rounder)
        found = probe.sensitivities(self.wanted, self.progress)
        sizes = shapes(self.bundle.config, self.bundle.graph)
        return {
            name: [
                Option(form, form.n_bytes(*sizes[name], self.bundle.graph), degradation.mean_kl)
                for form, degradation in of_name.items()
            ]
            for name, of_name in found.items()
        }

    def _uniform(self) -> Outcome:
        point = self._point(self.wishes.scheme, self.plan)
        return Outcome(self.budget, self.plan or {}, point, (point,), {})

    def _schemes(self, found: Outcome) -> list[Point]:
        """The uniform schemes, rounded to nearest, for the picture."""
        points = []
        for scheme in UNIFORM:
            if scheme not in {point.label for point in found.points}:
                plain = QuantizeOptions(scheme, rounding="nearest")
                points.append(
                    self._point(scheme, uniform_plan(self.bundle.config, self.bundle.graph, plain))
                )
        return points

    def _point(self, scheme: str, plan: Plan | None) -> Point:
        self.progress(f"measuring {scheme}")
        degradation = self.measure(plan, scheme)
        sizes = shapes(self.bundle.config, self.bundle.graph)
        forms = plan or {name: TensorFormat(8, DEFAULT_BLOCK[8]) for name in sizes}
        n_bytes = sum(form.n_bytes(*sizes[name], self.bundle.graph) for name, form in forms.items())
        return Point(scheme, n_bytes, None, degradation, self.budget.is_met_by(degradation))
