"""A classifier as the subject of a verification: probes for any task, and each example alone
against all of them in batches. Torch-free; `export.verify` adds the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from gpt_edge.arrays import FloatArray
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.config import GPTConfig
from gpt_edge.native.library import Native
from gpt_edge.runtime.encoder import Encoder
from gpt_edge.schemes import SCHEMES
from gpt_edge.task_inputs import transform
from gpt_edge.tasks import EMBEDDING, N_TEXTS, TOKENS, TaskSpec
from gpt_edge.tokenizer import Tokenizer
from gpt_edge.verify import parity
from gpt_edge.verify.execution_paths import Effort
from gpt_edge.verify.parity import Agreement, Probe, encode_passage
from gpt_edge.verify.report import (
    NOISE_FACTOR,
    PATH_TOLERANCE,
    QUANTIZED_PATH_TOLERANCE,
    OwnNoise,
    Verification,
    describe,
)

N_EXAMPLES = 64
N_EXAMPLES_OF_LARGE = 12
LONGEST = 160  # tokens of most probes; one fills the context, up to MAX_FULL
MAX_FULL = 1024
LARGE = 500_000_000  # parameters
SEED = 20180611
# max |difference| of logits between torch and ONNX fp32, as a fraction of their spread, at least 1:
# summation order
REFERENCE_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class TaskProbes:
    """Examples to run. sequences: of all of them; n_rows: logit rows of each example, in multiple
    choice one for each answer.
    """

    sequences: list[tuple[int, ...]]
    n_rows: list[int]
    # a regression's outputs, several labels', or a vector's numbers: each is compared by itself
    are_outputs_apart: bool = False
    are_vectors: bool = False  # the mean of each example's rows is what is compared

    def by_example(self, logits: FloatArray) -> list[FloatArray]:
        """Logits [E, n_label] as one row for each example: its classes, its answers, or
        its score. A token of token-classification is an example.
        """
        if self.are_vectors:
            examples = np.split(logits, np.cumsum(self.n_rows)[:-1])
            logits = np.array([rows.mean(0) for rows in examples])
        if self.are_outputs_apart:
            return list(logits.reshape(-1, 1, 1))
        examples = np.split(logits, np.cumsum(self.n_rows)[:-1])
        return [rows.reshape(1, -1) for rows in examples]


def task_probes(config: GPTConfig, task: TaskSpec, tokenizer: Tokenizer | None) -> TaskProbes:
    """Examples of all lengths, half of them from a passage and half of random tokens; the same at
    every call.
    """
    rng = np.random.default_rng(SEED)
    n_plain = min(task.tokens, default=config.vocab_size)  # ids that are no task token
    passage = []
    if tokenizer is not None:
        passage = [id for id in encode_passage(tokenizer) if id < n_plain]
    is_costly = config.n_parameters > LARGE or task.kind == EMBEDDING  # each number is compared
    n_examples = N_EXAMPLES_OF_LARGE if is_costly else N_EXAMPLES
    sequences: list[tuple[int, ...]] = []
    n_rows: list[int] = []
    for number in range(n_examples):
        is_full = number == 0
        longest = min(config.n_ctx, MAX_FULL if is_full else LONGEST)
        n_texts = _n_texts(task, rng)
        texts = []
        for _ in range(n_texts):
            size = longest
            if not is_full:
                size = int(np.exp(rng.uniform(0, np.log(max(2, longest // n_texts)))))
            start = int(rng.integers(0, max(1, len(passage) - size)))
            random = rng.integers(0, n_plain, size).tolist()
            texts.append(passage[start : start + size] if passage and number % 2 else random)
        made = transform(task, texts, longest).sequences
        sequences += made
        if task.kind == TOKENS:
            n_rows += [1] * len(made[0])
        elif task.kind == EMBEDDING:
            n_rows.append(len(made[0]))
        else:
            n_rows.append(n_texts - 1 if task.kind == "multiple-choice" else 1)
    return TaskProbes(sequences, n_rows, _are_apart(task), task.kind == EMBEDDING)


def _n_texts(task: TaskSpec, rng: np.random.Generator) -> int:
    if task.kind == "multiple-choice":
        return int(rng.integers(3, 6))
    return 1 if task.kind == EMBEDDING else N_TEXTS[task.kind]


def _are_apart(task: TaskSpec) -> bool:
    return task.problem in ("multi-label", "regression") or task.kind == EMBEDDING


def compare_tasks(probes: TaskProbes, reference: FloatArray, candidate: FloatArray) -> Agreement:
    """Compare logits [E, n_label], example by example. A flip is an example whose label changes."""
    expected = probes.by_example(reference)
    named = [Probe(f"example {i}", np.zeros(1, np.int64)) for i in range(len(expected))]
    return parity.compare(named, expected, probes.by_example(candidate))


def scale_of(agreement: Agreement, logits: FloatArray) -> float:
    """What a difference of logits is measured against: their spread within an example or between
    them, at least 1.
    """
    return max(1.0, agreement.spread, float(logits.std()))


def unexplained(agreement: Agreement, own_noise: Callable[[], Agreement] | None = None) -> str:
    """The first example whose label changed although its margin is more than the difference of the
    others, and than what the model's own noise explains; or "".
    """
    for flip in agreement.flips:
        if flip.margin > 2 * agreement.noise:
            if own_noise and flip.margin <= 2 * NOISE_FACTOR * own_noise().max_difference:
                continue
            return f"the label {describe(flip).removeprefix('in ')} is no near tie"
    return ""


@dataclass(frozen=True, slots=True)
class ClassifierSubject:
    """See `subject.Subject`. A runner is an Encoder; its outputs are logits [E, n_label]."""

    probes: TaskProbes

    def open(self, bundle: Bundle, native: Native = None) -> Encoder:
        """An encoder."""
        return Encoder(bundle, native=native)

    def outputs(self, runner: Encoder) -> FloatArray:
        """Logits of all examples, in batches of like lengths."""
        return runner.logits(self.probes.sequences)

    def check_outputs(
        self,
        report: Verification,
        section: str,
        scheme: str,
        expected: FloatArray,
        actual: FloatArray,
        own_noise: OwnNoise | None = None,
    ) -> None:
        """fp32: logits within summation order; else the mean KL, or the difference of scores. Every
        label that changes must be a near tie.
        """
        agreement = compare_tasks(self.probes, expected, actual)
        scale = scale_of(agreement, expected)
        row = SCHEMES[scheme]
        is_score = self.probes.by_example(expected)[0].size == 1
        if row.task_max_mean_kl is None or row.task_max_difference is None:
            limits = {"max_difference": REFERENCE_TOLERANCE * scale}
        elif is_score:
            limits = {"max_difference": row.task_max_difference * scale}
        else:
            limits = {"mean_kl": row.task_max_mean_kl}
        noise_of_scheme = partial(own_noise, scheme) if own_noise is not None else None
        report.add(
            section, "labels", agreement, limits, excuse_ties=False, own_noise=noise_of_scheme
        )
        if fault := unexplained(agreement, noise_of_scheme):
            report.faults.append(f"{section}: {fault}")
            report.figures[section]["labels"]["ok"] = False

    def check_paths(
        self,
        report: Verification,
        runner: Encoder,
        scheme: str,
        effort: Effort = "export",
        name: str | None = None,
        own_noise: OwnNoise | None = None,
    ) -> None:
        """Every example alone against all of them in padded batches, whatever the effort."""
        together = self.outputs(runner)
        alone = np.concatenate([runner.logits(part) for part in _examples(self.probes, runner)])
        agreement = compare_tasks(self.probes, together, alone)
        tolerance = PATH_TOLERANCE if SCHEMES[scheme].is_float else QUANTIZED_PATH_TOLERANCE
        limits = {"max_difference": tolerance * scale_of(agreement, together)}
        section = f"{name or scheme} paths"
        report.add(
            section,
            "labels one by one",
            agreement,
            limits,
            excuse_ties=False,
            own_noise=partial(own_noise, scheme) if own_noise is not None else None,
        )


def _examples(probes: TaskProbes, encoder: Encoder) -> list[Sequence[tuple[int, ...]]]:
    """The sequences of each example; one of similarity has both orders of its texts."""
    is_pair = encoder.task is not None and encoder.task.kind == "similarity"
    size = 2 if is_pair else 1
    starts = range(0, len(probes.sequences), size)
    return [probes.sequences[start : start + size] for start in starts]
