"""A language model as the subject of a verification: its logits, its greedy tokens, and its
execution paths. Torch-free; `export.verify` adds the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from gpt_edge.arrays import FloatArray
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.native.library import Native
from gpt_edge.runtime.session import Session
from gpt_edge.schemes import SCHEMES
from gpt_edge.verify import parity
from gpt_edge.verify.execution_paths import Effort, execution_paths
from gpt_edge.verify.parity import Probe, Runner
from gpt_edge.verify.report import (
    NOISE_FACTOR,
    PATH_TOLERANCE,
    QUANTIZED_PATH_TOLERANCE,
    OwnNoise,
    Verification,
)

# max |difference| of logits between torch and ONNX fp32, as a fraction of their spread within a
# row (and of 1 where the spread is smaller): summation order
REFERENCE_TOLERANCE = 1e-3
MAX_FP32_KL = 1e-6
# mean KL of neighbouring rows, as a multiple of what a quarter of the context stays below: sound
# random models showed 2.1 at most, trained ones WINDOW_TRAINED
WINDOW_FACTOR = 8.0
WINDOW_FLOOR = 0.002  # of the limit of the mean: where there is hardly any noise
N_GREEDY = 32  # tokens
N_PROMPT = 12


@dataclass(frozen=True, slots=True)
class Outputs:
    """Logits [rows, V] of each probe, and the greedy continuation of the first.

    margins: the logit margin of each greedy choice; known for the reference only.
    """

    logits: list[FloatArray]
    greedy: list[int]
    margins: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class LanguageModelSubject:
    """See `subject.Subject`. A runner is a Session, or what has its methods."""

    probes: list[Probe]

    def open(self, bundle: Bundle, native: Native = None) -> Session:
        """A session."""
        return Session(bundle, native=native)

    def outputs(self, runner: Runner) -> Outputs:
        """Logits of every probe, and greedy tokens."""
        return Outputs(
            [parity.probe_logits(runner, probe) for probe in self.probes],
            parity.greedy_tokens(runner, self.probes[0].ids[:N_PROMPT], N_GREEDY),
        )

    def check_outputs(
        self,
        report: Verification,
        section: str,
        scheme: str,
        expected: Outputs,
        actual: Outputs,
        own_noise: OwnNoise | None = None,
    ) -> None:
        """fp32: logits within summation order, and equal greedy tokens; else the mean KL."""
        agreement = parity.compare(self.probes, expected.logits, actual.logits)
        noise_of_scheme = partial(own_noise, scheme) if own_noise is not None else None
        max_mean_kl = SCHEMES[scheme].max_mean_kl
        if max_mean_kl is not None:
            limits = {"mean_kl": max_mean_kl}
            report.add(
                section, "logits", agreement, limits, excuse_ties=False, own_noise=noise_of_scheme
            )
            self._check_windows(report, section, scheme, expected, actual, own_noise)
            return
        limits = {
            "max_difference": REFERENCE_TOLERANCE * max(1.0, agreement.spread),
            "mean_kl": MAX_FP32_KL,
        }
        report.add(
            section, "logits", agreement, limits, excuse_ties=True, own_noise=noise_of_scheme
        )
        noise = min(agreement.noise, parity.NEAR_TIE * agreement.spread)
        if noise_of_scheme is not None and expected.greedy != actual.greedy:
            noise = max(noise, NOISE_FACTOR * noise_of_scheme().max_difference)
        report.add_greedy(section, expected.greedy, actual.greedy, expected.margins, noise)

    def _check_windows(
        self,
        report: Verification,
        section: str,
        scheme: str,
        expected: Outputs,
        actual: Outputs,
        own_noise: OwnNoise | None,
    ) -> None:
        """The rows of a full context that are farthest from the reference, against the others: what
        goes wrong in a part of the context is not averaged away. Where they are too far, against
        the reference's own noise in the same rows: the first rows, which attend to few tokens, are
        noisier in some models.
        """
        floor = WINDOW_FLOOR * (SCHEMES[scheme].max_mean_kl or 0.0)
        for probe, x, y in zip(self.probes, expected.logits, actual.logits, strict=True):
            found = parity.worst_window(x, y, probe) if probe.fills_context else None
            if found is not None:
                agreement, noise, row = found
                limits = {"mean_kl": max(WINDOW_FACTOR * noise, floor)}
                name = f"worst {parity.WINDOW} rows, from {row}"
                own = partial(own_noise, scheme, (probe.name, row)) if own_noise else None
                report.add(section, name, agreement, limits, excuse_ties=False, own_noise=own)

    def check_paths(
        self,
        report: Verification,
        runner: Runner,
        scheme: str,
        effort: Effort = "export",
        name: str | None = None,
        own_noise: OwnNoise | None = None,
    ) -> None:
        """Every execution path that `effort` names against the whole prompt at once."""
        for path, agreement in execution_paths(runner, self.probes, effort):
            limits = {}
            # one activation scale for the whole call: reported, not promised
            if SCHEMES[scheme].activations != "tensor":
                is_float = SCHEMES[scheme].is_float
                tolerance = PATH_TOLERANCE if is_float else QUANTIZED_PATH_TOLERANCE
                limits["max_difference"] = tolerance * max(1.0, agreement.spread)
            report.add(
                f"{name or scheme} paths",
                path,
                agreement,
                limits,
                excuse_ties=bool(limits),
                own_noise=partial(own_noise, scheme) if own_noise is not None else None,
            )
