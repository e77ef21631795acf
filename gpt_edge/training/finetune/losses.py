"""The losses of fine-tuning: of each kind of task, and of the language model beside it. Knows
tensors alone.

Sources: Radford et al. 2018, section 3.2, equations 3 to 5; others at each function.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gpt_edge.arrays import IntArray
from gpt_edge.reference.heads import TaskModel, by_example, mean_of_tokens, read_extract
from gpt_edge.tasks import EMBEDDING, TaskSpec
from gpt_edge.training.finetune.batches import MicroBatch

LM_ROWS = 64  # rows of logits are padded to multiples of this: few shapes, see `Finetuner`


def balanced_weights(spec: TaskSpec, labels: IntArray) -> Tensor:
    """Weights float32 [n_label] under which every class counts as much as another.

    Of classes n / (n_label * occurrences), whose mean over the examples is 1; of several labels
    the weight of an example of which the label is true, as many as those of which it is not. A
    class without an example has weight 1. Source: King and Zeng 2001; scikit-learn's "balanced".
    """
    if spec.is_multi_label:
        n_true = labels.sum(0)
        weights = (len(labels) - n_true) / np.maximum(n_true, 1)
        weights[(n_true == 0) | (weights == 0)] = 1.0
    else:
        counts = np.bincount(labels, minlength=spec.n_label)
        weights = len(labels) / (spec.n_label * np.maximum(counts, 1))
        weights[counts == 0] = 1.0
    return torch.from_numpy(weights).float()


def task_logits(model: TaskModel, hidden: Tensor, part: MicroBatch) -> Tensor:
    """The head's outputs of hidden states [S, T, C]: as `TaskModel.forward`, of an embedding the
    vectors [S, n_label].
    """
    if model.spec.kind == EMBEDDING:
        return mean_of_tokens(model.head(hidden), part.extract_at)
    return model.head(read_extract(hidden, part.extract_at))


def contrastive_loss(vectors: Tensor, part: MicroBatch, temperature: float) -> Tensor:
    """Sum over the pairs of their symmetric InfoNCE loss, float32: how surely each text finds its
    other one among those of the batch, by cosine / temperature, in both directions.

    vectors: [2 N, K], the texts of a pair one after the other. A text that is the same as a pair's
    own is no wrong answer. Sources: van den Oord et al. 2018, equation 4; Radford et al. 2021
    (CLIP), figure 3; Gao et al. 2021 (SimCSE), the temperature.
    """
    unit = F.normalize(vectors.float(), dim=-1)
    cosines = unit[0::2] @ unit[1::2].T / temperature  # [N, N]
    first, second = part.ids[0::2], part.ids[1::2]
    is_same = (first[:, None] == first[None]).all(-1) | (second[:, None] == second[None]).all(-1)
    is_same.fill_diagonal_(False)
    cosines = cosines.masked_fill(is_same, -torch.inf)
    own = torch.arange(len(cosines))
    forth = F.cross_entropy(cosines, own, reduction="sum")
    back = F.cross_entropy(cosines.T, own, reduction="sum")
    return (forth + back) / 2


def task_loss(
    model: TaskModel, logits: Tensor, part: MicroBatch, class_weights: Tensor | None = None
) -> Tensor:
    """Sum of the examples' losses, float32. The target of a score is its position in the range,
    from 0 to 1, for the cross entropy; of several labels the loss is the sum of each one's cross
    entropy. class_weights: as `balanced_weights`.
    """
    logits = logits.float()
    spec = model.spec
    if spec.score_range is not None:
        low, high = spec.score_range
        position = ((part.labels - low) / (high - low)).float()
        return F.binary_cross_entropy_with_logits(logits[:, 0], position, reduction="sum")
    if spec.is_multi_label:
        return F.binary_cross_entropy_with_logits(
            logits, part.labels.float(), reduction="sum", pos_weight=class_weights
        )
    if spec.kind == "multiple-choice":
        logits = by_example(logits, part.n_sequences)
    return F.cross_entropy(logits, part.labels, weight=class_weights, reduction="sum")


def lm_loss(model: TaskModel, hidden: Tensor, part: MicroBatch) -> Tensor:
    """Sum over the sequences of the mean loss of their tokens after the first, delimiter and
    extract included.

    hidden: [S, T, C]. Logits are computed only where there is a target: padding costs nothing.
    """
    n_targets = part.extract_at  # of each sequence, int64 [S]
    is_read = torch.arange(hidden.shape[1] - 1)[None] < n_targets[:, None]  # [S, T - 1]
    rows = is_read.flatten().nonzero()[:, 0]  # [N]
    padded = F.pad(rows, (0, -len(rows) % LM_ROWS))
    logits = model.gpt.lm_head(hidden[:, :-1].flatten(0, 1)[padded])[: len(rows)]  # [N, V]
    losses = F.cross_entropy(logits.float(), part.ids[:, 1:][is_read], reduction="none")
    return (losses / n_targets.repeat_interleave(n_targets)).sum()
