"""Does an exported graph produce the outputs of the reference? torch against fp32 ONNX against the
quantized graph, and each graph against itself on every execution path. What is out of tolerance
stops the publication.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.errors import BundleError, GPTEdgeError
from gpt_edge.export.verify.bisect import first_beyond_noise
from gpt_edge.export.verify.localize import localize
from gpt_edge.export.verify.reference import ReferenceRunner
from gpt_edge.reference.heads import TaskModel
from gpt_edge.reference.model import GPT
from gpt_edge.schemes import FP32
from gpt_edge.verify.execution_paths import Effort
from gpt_edge.verify.language_models import LanguageModelSubject
from gpt_edge.verify.parity import Probe
from gpt_edge.verify.report import OwnNoise, Progress, Verification
from gpt_edge.verify.subject import Subject

# tokens of the probes that torch processes on every path, unless the effort is "full"
N_REFERENCE_PATHS = 32


@dataclass(frozen=True, slots=True)
class Verifier:
    """Checks graphs against one reference.

    reference: its name in the figures, "torch" or "fp32". expected: its outputs. own_noise: how far
    it is from itself, asked where a limit is exceeded.
    """

    reference: str
    subject: Subject
    expected: Any
    progress: Progress
    report: Verification = field(default_factory=Verification)
    effort: Effort = "export"
    own_noise: OwnNoise | None = None

    def check(self, runner: Any, scheme: str, name: str | None = None) -> None:
        """Record how a graph of this scheme agrees with the reference, and with itself.

        runner: on the graph, as `subject.open` returns it. name: of the graph in the figures; its
        scheme if not given.
        """
        name = name or scheme
        section = f"{self.reference} against {name}"
        self.progress(f"checking {name} against {self.reference}")
        actual = self.subject.outputs(runner)
        self.subject.check_outputs(
            self.report, section, scheme, self.expected, actual, self.own_noise
        )
        self.progress(f"checking the execution paths of {name}")
        self.subject.check_paths(self.report, runner, scheme, self.effort, name, self.own_noise)

    def check_bundle(self, bundle: Bundle) -> None:
        """`check` for a graph that may be broken: that it cannot be run is a fault in the
        report.
        """
        try:
            self.check(self.subject.open(bundle), bundle.scheme)
        except GPTEdgeError as error:
            self.report.faults.append(f"{self.reference} against {bundle.scheme}: {error.message}")

    def check_reference(self, model: GPT, probes: list[Probe]) -> None:
        """Record how the reference agrees with itself on every execution path."""
        self.progress(f"checking the execution paths of {self.reference}")
        limit = None if self.effort == "full" else N_REFERENCE_PATHS
        short = [
            Probe(probe.name, probe.ids[:limit]) for probe in probes if not probe.fills_context
        ]
        long = [probe for probe in probes if probe.fills_context and self.effort == "full"]
        subject = LanguageModelSubject(short + long)
        runner = ReferenceRunner(model)
        subject.check_paths(
            self.report, runner, FP32.name, self.effort, self.reference, self.own_noise
        )

    def localize(self, bundle: Bundle, model: GPT | TaskModel) -> None:
        """Record where the bundle's weights and operators diverge from the reference's, the first
        operator first; of a fault that no operator shows by itself, where the results leave the
        noise.
        """
        is_full = self.effort == "full"
        try:
            result = localize(bundle, model, full=is_full, progress=self.progress)
        except BundleError as error:  # a graph that the gate or onnxruntime refuses
            if not any(str(error) in text for text in self.report.faults):
                self.report.faults.append(str(error))
            return
        self.report.figures["weights"] = result.weights
        self.report.figures["operators"] = result.operators
        for fault in result.faults:
            self.report.add_operator_fault(
                fault.operator.layer, fault.operator.name, str(fault.operator), fault.text
            )
        if self.report.faults and self.report.first is None:
            self.progress("looking for the place")
            gpt = model.gpt if isinstance(model, TaskModel) else model
            self.report.first = first_beyond_noise(bundle, gpt)
