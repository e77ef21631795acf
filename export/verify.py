"""Does the exported graph say what the reference says? torch against fp32 ONNX against the quantised graph, and each
graph against itself on every path a prompt can take. What is out of tolerance stops the publication.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from gpt_edge import parity
from gpt_edge.errors import ParityError
from gpt_edge.parity import Agreement, Flip, FloatArray, IntArray, Probe
from gpt_edge.reference.importers import Checkpoint
from gpt_edge.reference.model import GPT
from gpt_edge.session import Session

# max |difference| of logits, as a share of their spread within a row (and at least as if that were 1).
REFERENCE_TOLERANCE = 1e-3  # torch against ONNX fp32: summation order (RELIABILITY N1)
PATH_TOLERANCE = 1e-4  # fp32: one path against another (N3, N4)
# int8 activations: a sum that differs in its last bit may be rounded to the next of 127 steps.
QUANTIZED_PATH_TOLERANCE = 0.25
# Mean KL in nats against fp32. The gate is for broken graphs; how good a scheme is, the figures themselves say.
QUANTIZED_KL = {"int8": 5e-3, "int4": 0.5, "int8-dynamic": 2.0}
N_GREEDY, N_PROMPT = 32, 12

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model said to the probes: logits [rows, V] of each, and its greedy continuation of the first.

    gaps: the logit margin of each greedy choice over the second best; known for the reference only.
    """

    logits: list[FloatArray]
    greedy: list[int]
    gaps: tuple[float, ...] = ()


@dataclass(slots=True)
class Verification:
    """Figures by section and name, with their limits; `faults` says in words what is out of tolerance."""

    figures: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def add(
        self, section: str, name: str, agreement: Agreement, limits: Mapping[str, float], *, excuse_ties: bool
    ) -> None:
        """Record an Agreement. limits: of max_difference or mean_kl; excuse_ties: a flip must be a near tie."""
        values = agreement.to_dict()
        wrong = [
            f"{section}, {name}: {key} is {values[key]:.3g}, at most {limit:.3g} is allowed"
            for key, limit in limits.items()
            if not values[key] <= limit
        ]
        if excuse_ties and (flips := agreement.unexcused()):
            wrong.append(f"{section}, {name}: {describe(flips[0])} is no near tie")
        self.faults += wrong
        self.figures.setdefault(section, {})[name] = {**values, "limits": dict(limits), "ok": not wrong}

    def add_greedy(self, section: str, name: str, wanted: Answers, found: Answers, noise: float) -> None:
        """Record whether two greedy continuations are equal; they may part only at a near tie, of twice the noise."""
        pairs = zip(wanted.greedy, found.greedy, strict=True)
        same = next((i for i, pair in enumerate(pairs) if pair[0] != pair[1]), len(wanted.greedy))
        is_equal = same == len(wanted.greedy)
        gap = 0.0 if is_equal else wanted.gaps[same]
        ok = is_equal or gap <= 2 * noise
        if not ok:
            self.faults.append(
                f"{section}, {name}: tokens part after {same} of {len(wanted.greedy)}, where the gap is {gap:.3g}"
            )
        values = {"equal_tokens": same, "tokens": len(wanted.greedy), "gap": gap, "ok": ok}
        self.figures.setdefault(section, {})[name] = values

    def raise_if_wrong(self) -> None:
        """Raise ParityError with the first fault."""
        if self.faults:
            more = f" (and {len(self.faults) - 1} more)" if len(self.faults) > 1 else ""
            hint = "nothing was published; --json shows every figure"
            raise ParityError(self.faults[0] + more, hint=hint, figures=self.figures)


def describe(flip: Flip) -> str:
    """One flip in words."""
    return (
        f"in {flip.probe}, row {flip.row}, token {flip.tokens[0]} against {flip.tokens[1]} with a gap of {flip.gap:.3g}"
    )


def ask_reference(checkpoint: Checkpoint, probes: list[Probe]) -> Answers:
    """Run the probes through torch fp32. The model is loaded and dropped here, so that its memory is free afterwards."""
    model = checkpoint.load_model()
    with torch.inference_mode():
        logits = [_reference_logits(model, probe) for probe in probes]
        tokens, gaps = reference_greedy(model, probes[0].ids[:N_PROMPT], N_GREEDY)
    return Answers(logits, tokens, gaps)


def _reference_logits(model: GPT, probe: Probe) -> FloatArray:
    hidden, _ = model.hidden(torch.from_numpy(probe.ids)[None])
    return model.lm_head(hidden[0, probe.first_row :]).numpy()  # type: ignore[no-any-return]


def reference_greedy(model: GPT, prompt: IntArray, n_new: int) -> tuple[list[int], tuple[float, ...]]:
    """The most likely continuation by the reference, with its cache, and the margin of each choice.

    Stops where the context is full.
    """
    ids, past, tokens, gaps = torch.from_numpy(prompt)[None], None, [], []
    with torch.inference_mode():
        for _ in range(min(n_new, model.config.n_ctx - prompt.size)):
            logits, past = model(ids, None, past)
            best = logits[0, -1].topk(min(2, model.config.vocab_size))
            tokens.append(int(best.indices[0]))
            gaps.append(float(best.values[0] - best.values[-1]))
            ids = torch.tensor([tokens[-1:]])
    return tokens, tuple(gaps)


def ask_session(session: Session, probes: list[Probe]) -> Answers:
    """Run the probes through onnxruntime."""
    return Answers(
        [parity.answer(session, probe) for probe in probes], parity.greedy(session, probes[0].ids[:N_PROMPT], N_GREEDY)
    )


@dataclass(frozen=True, slots=True)
class Verifier:
    """Holds graphs against one reference. `reference` is its name in the figures: "torch" or "fp32"."""

    reference: str
    probes: list[Probe]
    wanted: Answers
    progress: Progress
    report: Verification = field(default_factory=Verification)

    def check(self, session: Session, scheme: str) -> None:
        """Record how a graph of this scheme agrees with the reference, and with itself on every path."""
        self.progress(f"checking {scheme} against {self.reference}")
        self._against_reference(session, scheme)
        self.progress(f"checking the paths of {scheme}")
        check_paths(self.report, session, self.probes, scheme)

    def _against_reference(self, session: Session, scheme: str) -> None:
        section, found = f"{self.reference} against {scheme}", ask_session(session, self.probes)
        agreement = parity.compare(self.probes, self.wanted.logits, found.logits)
        if scheme != "fp32":
            self.report.add(section, "logits", agreement, {"mean_kl": QUANTIZED_KL[scheme]}, excuse_ties=False)
            return
        limit = REFERENCE_TOLERANCE * max(1.0, agreement.spread)
        self.report.add(section, "logits", agreement, {"max_difference": limit, "mean_kl": 1e-6}, excuse_ties=True)
        self.report.add_greedy(section, "greedy", self.wanted, found, agreement.max_difference)


def check_paths(report: Verification, session: Session, probes: list[Probe], scheme: str) -> None:
    """Hold a graph against itself: step by step, chunks, batch and rewind against the whole prompt at once."""
    for name, agreement in parity.paths(session, probes).items():
        limits = {}
        if scheme != "int8-dynamic":  # one activation scale for the whole call: reported, not promised
            tolerance = PATH_TOLERANCE if scheme == "fp32" else QUANTIZED_PATH_TOLERANCE
            limits["max_difference"] = tolerance * max(1.0, agreement.spread)
        report.add(f"{scheme} paths", name, agreement, limits, excuse_ties=bool(limits))
