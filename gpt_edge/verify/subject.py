"""What a verification has to know of a model's kind, and the check that needs nothing but a bundle.

Language models and classifiers differ in their probes, in what runs them, and in what may differ;
the steps of an export, a quantization and a verification are the same.
"""

from __future__ import annotations

from typing import Any, Protocol

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.config import GPTConfig
from gpt_edge.native.library import Native
from gpt_edge.tasks import TaskSpec
from gpt_edge.tokenizer import Tokenizer
from gpt_edge.verify import parity
from gpt_edge.verify.adapters import base_subject
from gpt_edge.verify.classifiers import ClassifierSubject, task_probes
from gpt_edge.verify.execution_paths import Effort
from gpt_edge.verify.language_models import LanguageModelSubject
from gpt_edge.verify.report import (
    PATHS_AGREE,
    OwnNoise,
    Progress,
    Verification,
    proof_line,
    silent,
    tokenizer_of,
)


class Subject(Protocol):
    """A kind of model with its probes: `LanguageModelSubject` or `ClassifierSubject`.

    A runner is what `open` returns; outputs are what `outputs` returns, of any runner.
    """

    def open(self, bundle: Bundle, native: Native = None) -> Any:
        """A runner on a bundle's graph. native: see `native.library.find_library`. Raises
        BundleError for a graph that cannot be loaded.
        """

    def outputs(self, runner: Any) -> Any:
        """Run the probes. Raises GPTEdgeError for a graph that cannot be run."""

    def check_outputs(
        self,
        report: Verification,
        section: str,
        scheme: str,
        expected: Any,
        actual: Any,
        own_noise: OwnNoise | None = None,
    ) -> None:
        """Record how a graph of `scheme` agrees with a reference, within the scheme's limits, or
        within what the reference's own noise explains.
        """

    def check_paths(
        self,
        report: Verification,
        runner: Any,
        scheme: str,
        effort: Effort = "export",
        name: str | None = None,
        own_noise: OwnNoise | None = None,
    ) -> None:
        """Record how a runner agrees with itself on every execution path.

        scheme: sets the limits; torch has those of fp32. name: in the figures, in its place.
        """


def subject_of(
    config: GPTConfig,
    task: TaskSpec | None,
    tokenizer: Tokenizer | None,
    *,
    thorough: bool = False,
    complete: bool = False,
) -> Subject:
    """The subject for a model of this shape. thorough, complete: see `parity.probes`."""
    if config.takes_adapters:
        return base_subject(config, tokenizer)
    if task is None:
        probes = parity.probes(config, tokenizer, thorough=thorough, complete=complete)
        return LanguageModelSubject(probes)
    return ClassifierSubject(task_probes(config, task, tokenizer))


def what_is_proved(bundle: Bundle, *, paths_agree: bool) -> str:
    """What a bundle alone has proved, and what it cannot."""
    facts = [PATHS_AGREE] if paths_agree else []
    if not bundle.is_optimum_export:
        n_files = len(bundle.manifest.files)
        facts = [
            f"its {n_files} files have the sizes and hashes of its manifest",
            "its graph has the operators and shapes of its config",
            *facts,
        ]
    named = ["weights"] + ["tokenizer"] * (bundle.manifest.tokenizer is not None)
    named += ["labels"] * (bundle.task is not None and bool(bundle.task.labels))
    return proof_line(facts, named)


def verify_alone(
    bundle: Bundle, *, full: bool = False, progress: Progress = silent
) -> Verification:
    """Compare a bundle with itself on every execution path; needs no checkpoint and no torch.

    full: of a language model, every split, and the whole context token by token; minutes for a
    large one. Faults are in the report.
    """
    subject = subject_of(
        bundle.config, bundle.task, tokenizer_of(bundle), thorough=True, complete=full
    )
    report = Verification()
    progress(f"checking the execution paths of {bundle.scheme}")
    effort: Effort = "full" if full else "verify"
    subject.check_paths(report, subject.open(bundle), bundle.scheme, effort)
    report.notes.append(what_is_proved(bundle, paths_agree=not report.faults))
    return report
