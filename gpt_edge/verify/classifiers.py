"""Does a fine-tuned bundle say the same whichever way it is asked? Probes for any task, and one
text against many at once.

Torch-free; `export.task_verify` brings the reference in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpt_edge.arrays import FloatArray
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.config import GPTConfig
from gpt_edge.runtime.encoder import Encoder
from gpt_edge.tasks import TaskSpec, transform
from gpt_edge.tokenizer import Tokenizer
from gpt_edge.verify import parity
from gpt_edge.verify.parity import PASSAGE, Agreement, Probe
from gpt_edge.verify.report import (
    PATH_TOLERANCE,
    QUANTIZED_PATH_TOLERANCE,
    Progress,
    Verification,
    describe,
    silent,
    words_of,
)

N_EXAMPLES, N_OF_LARGE = 64, 12  # how many are asked
LONGEST = 160  # tokens of most probes; one fills the context, up to MAX_FULL
MAX_FULL = 1024
LARGE = 500_000_000  # parameters
SEED = 20180611


@dataclass(frozen=True, slots=True)
class TaskProbes:
    """Examples to ask. sequences: of all of them; n_rows: logit rows of each example, its answers
    in multiple choice.
    """

    sequences: list[tuple[int, ...]]
    n_rows: list[int]

    def by_example(self, logits: FloatArray) -> list[FloatArray]:
        """Logits [E, n_label] as one row for each example: its classes, its answers, or
        its score.
        """
        parts = np.split(logits, np.cumsum(self.n_rows)[:-1])
        return [part.reshape(1, -1) for part in parts]


def task_probes(config: GPTConfig, task: TaskSpec, words: Tokenizer | None) -> TaskProbes:
    """Examples of all lengths, half of them parts of a passage and half random tokens; the same at
    every call.
    """
    rng = np.random.default_rng(SEED)
    n_words = min((task.start, task.delimiter, task.extract))
    passage = [id for id in words.encode(PASSAGE) if id < n_words] if words is not None else []
    n_examples = N_OF_LARGE if config.n_parameters > LARGE else N_EXAMPLES
    sequences: list[tuple[int, ...]] = []
    n_rows: list[int] = []
    for number in range(n_examples):
        longest = min(config.n_ctx, MAX_FULL) if number == 0 else min(config.n_ctx, LONGEST)
        n_texts = (
            int(rng.integers(3, 6))
            if task.kind == "multiple-choice"
            else 1 + (task.kind != "classification")
        )
        texts = []
        for _ in range(n_texts):
            size = (
                longest
                if number == 0
                else int(np.exp(rng.uniform(0, np.log(max(2, longest // n_texts)))))
            )
            start = int(rng.integers(0, max(1, len(passage) - size)))
            random = rng.integers(0, n_words, size).tolist()
            texts.append(passage[start : start + size] if passage and number % 2 else random)
        found = transform(task, texts, longest).sequences
        sequences += found
        n_rows.append(n_texts - 1 if task.kind == "multiple-choice" else 1)
    return TaskProbes(sequences, n_rows)


def compare_tasks(probes: TaskProbes, first: FloatArray, second: FloatArray) -> Agreement:
    """Hold the second way's logits against the first's. A flip is an example with another label."""
    n = len(probes.n_rows)
    named = [Probe(f"example {i}", np.zeros(1, np.int64)) for i in range(n)]
    return parity.compare(named, probes.by_example(first), probes.by_example(second))


def scale_of(agreement: Agreement, logits: FloatArray) -> float:
    """What a difference of logits is measured against: their spread within an example or between
    them, at least 1.
    """
    return max(1.0, agreement.spread, float(logits.std()))


def unexplained(agreement: Agreement) -> str:
    """The first example whose label changed although its margin is more than the difference of the
    others; or "".
    """
    far = [flip for flip in agreement.flips if flip.gap > 2 * agreement.noise]
    return "" if not far else f"the label {describe(far[0]).removeprefix('in ')} is no near tie"


def check_alone(
    report: Verification, encoder: Encoder, probes: TaskProbes, scheme: str, name: str | None = None
) -> None:
    """Hold every example read alone against all of them in batches of like lengths, padded."""
    together = encoder.logits(probes.sequences)
    alone = np.concatenate([encoder.logits(part) for part in _examples(probes, encoder.task)])
    agreement = compare_tasks(probes, together, alone)
    share = PATH_TOLERANCE if scheme == "fp32" else QUANTIZED_PATH_TOLERANCE
    limits = {"max_difference": share * scale_of(agreement, together)}
    report.add(f"{name or scheme} paths", "labels one by one", agreement, limits, excuse_ties=False)


def _examples(probes: TaskProbes, task: TaskSpec | None) -> list[Sequence[tuple[int, ...]]]:
    size = 2 if task is not None and task.kind == "similarity" else 1
    return [probes.sequences[at : at + size] for at in range(0, len(probes.sequences), size)]


def verify_task_alone(bundle: Bundle, progress: Progress = silent) -> Verification:
    """Hold a fine-tuned bundle against itself; needs no checkpoint and no torch. Faults are in the
    report.
    """
    assert bundle.task is not None
    report = Verification()
    progress(f"checking the paths of {bundle.scheme}")
    probes = task_probes(bundle.config, bundle.task, words_of(bundle))
    check_alone(report, Encoder(bundle), probes, bundle.scheme)
    return report
