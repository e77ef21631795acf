"""Examples as ids: encoding that counts truncated tokens, splitting, batches, padding.

Batches are drawn at random; within a pool of POOL batches, examples of similar lengths come into
one batch, so there is little padding and each batch keeps its size. Knows nothing of files and
models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from gpt_edge.arrays import IntArray
from gpt_edge.data.examples import Example
from gpt_edge.errors import TrainingError
from gpt_edge.reference.heads import pad
from gpt_edge.task_inputs import encode_texts
from gpt_edge.tasks import TaskSpec
from gpt_edge.tokenizer.spec import Tokenizer

POOL = 32  # batches


@dataclass(frozen=True)
class EncodedExamples:
    """Examples as sequences of ids. labels: int64 classes or answers, or float64 scores, [N]; of
    several labels int64 [N, n_label], 0 or 1.
    """

    sequences: list[tuple[tuple[int, ...], ...]]
    labels: npt.NDArray[Any]
    n_truncated_examples: int
    n_truncated_tokens: int

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def n_tokens(self) -> int:
        """Tokens of all sequences."""
        return sum(len(ids) for example in self.sequences for ids in example)

    @property
    def positions(self) -> IntArray:
        """Positions of each example, int64 [N]: its number of sequences times the longest."""
        return np.array(
            [len(example) * max(map(len, example)) for example in self.sequences], dtype=np.int64
        )

    def parts(
        self, rows: Sequence[int] | IntArray, batch_tokens: int, multiple: int = 1
    ) -> Iterator[MicroBatch]:
        """Yield `rows` in micro-batches of at most `batch_tokens` positions, but at least one
        example, short ones first.

        multiple: the length T is rounded up to a multiple of it, beyond `batch_tokens` if
        necessary.
        """
        chosen: list[int] = []
        n_rows = longest = 0
        for row in sorted(rows, key=lambda row: max(map(len, self.sequences[row]))):
            example = self.sequences[row]
            length = max(longest, *map(len, example))
            if chosen and (n_rows + len(example)) * length > batch_tokens:
                yield self._part(chosen, multiple)
                chosen, n_rows, length = [], 0, max(map(len, example))
            chosen.append(int(row))
            n_rows, longest = n_rows + len(example), length
        if chosen:
            yield self._part(chosen, multiple)

    def _part(self, rows: list[int], multiple: int) -> MicroBatch:
        flat = [ids for row in rows for ids in self.sequences[row]]
        ids, extract_at = pad(flat)
        ids = functional.pad(ids, (0, -ids.shape[1] % multiple))
        labels = torch.from_numpy(self.labels[rows])
        return MicroBatch(rows, ids, extract_at, [len(self.sequences[row]) for row in rows], labels)


@dataclass(frozen=True)
class MicroBatch:
    """Examples computed together. ids: int64 [S, T]; extract_at: [S]; n_sequences: of each example;
    labels: [N].
    """

    rows: list[int]
    ids: Tensor
    extract_at: Tensor
    n_sequences: list[int]
    labels: Tensor


def encode(
    spec: TaskSpec,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    labels: Sequence[float] | Sequence[Sequence[int]],
    n_ctx: int,
) -> EncodedExamples:
    """Examples as sequences. labels: as `label_numbers` gives them. Raises TrainingError for an
    n_ctx that is too short.
    """
    sequences = []
    truncated = []
    for example in examples:
        try:
            encoded = encode_texts(spec, tokenizer.encode, example.texts, n_ctx)
        except ValueError as error:
            raise TrainingError(f"line {example.line}: {error}") from error
        sequences.append(encoded.sequences)
        truncated.append(encoded.n_truncated)
    numbers = np.array(labels, dtype=np.float64 if spec.is_score else np.int64)
    return EncodedExamples(sequences, numbers, sum(n > 0 for n in truncated), sum(truncated))


def epoch_batches(data: EncodedExamples, batch: int, seed: int, epoch: int) -> list[IntArray]:
    """The rows of each batch of an epoch, every example once; the last batch of an epoch may be
    smaller.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(data))
    positions = data.positions
    batches: list[IntArray] = []
    for start in range(0, len(order), POOL * batch):
        pool = order[start : start + POOL * batch]
        pool = pool[np.argsort(positions[pool], kind="stable")]
        batches += [pool[first : first + batch] for first in range(0, len(pool), batch)]
    return [batches[i] for i in rng.permutation(len(batches))]


def split_examples(
    examples: Sequence[Example], fraction: float, seed: int, by_label: bool
) -> tuple[list[Example], list[Example]]:
    """Split the examples into two lists. The second has `fraction` of them, the
    same of each label; both keep their order.

    Each label's number is rounded. If they add up to less than that fraction of all, as with many
    labels of few examples each, the labels that lost most by rounding give one more. A label keeps
    at least one example. by_label: whether labels are classes. Raises TrainingError when nothing
    can be taken.
    """
    rng = np.random.default_rng((seed, 1))
    groups: dict[str, list[int]] = {}
    for i, example in enumerate(examples):
        groups.setdefault(example.label if by_label else "", []).append(i)
    shuffled = [[rows[i] for i in rng.permutation(len(rows))] for rows in groups.values()]
    n_taken = [min(round(fraction * len(rows)), len(rows) - 1) for rows in shuffled]
    lost = [fraction * len(rows) - n for rows, n in zip(shuffled, n_taken, strict=True)]
    for group in sorted(rng.permutation(len(shuffled)), key=lambda group: -lost[group]):
        if (
            sum(n_taken) < round(fraction * len(examples))
            and n_taken[group] < len(shuffled[group]) - 1
        ):
            n_taken[group] += 1
    taken = {row for rows, n in zip(shuffled, n_taken, strict=True) for row in rows[:n]}
    if not taken:
        raise TrainingError(
            f"a fraction of {fraction:g} of {len(examples)} examples leaves nothing to hold out",
            hint="give a larger --hold-out, or a file of its own: --dev",
        )
    rest = [example for i, example in enumerate(examples) if i not in taken]
    return rest, [example for i, example in enumerate(examples) if i in taken]
