"""Loss per token and bits per byte of documents in PyTorch, by the protocol of `gpt_edge.evaluate`,
in batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from gpt_edge.arrays import IntArray
from gpt_edge.evaluate import Score, windows
from gpt_edge.reference.model import GPT
from gpt_edge.training.corpus.batches import IGNORED
from gpt_edge.training.loss import BatchLoss

BATCH_TOKENS = 8192
BATCH_LOGITS = 1 << 27  # 512 MiB of float32: fewer tokens at once for a large vocabulary


def score_in_torch(
    model: GPT, documents: Sequence[IntArray], n_bytes: int, context: int, precision: str
) -> Score:
    """Score `documents`, each int64 `end, tokens, end`, whose texts have `n_bytes` bytes in all.

    precision: "float32" or "bfloat16" (autocast; the loss itself is float32). The model's mode is
    left as it was.
    """
    total, n_tokens = total_loss(BatchLoss(model), documents, context, precision)
    return Score(total / n_tokens, total / math.log(2) / n_bytes, n_tokens, n_bytes)


@torch.no_grad()
def total_loss(
    loss_of: BatchLoss, documents: Sequence[IntArray], context: int, precision: str
) -> tuple[float, int]:
    """The sum of -log p(token), in nats, over the documents, and how many tokens that is; see
    `score_in_torch`.
    """
    model = loss_of.model
    device = model.wte.weight.device
    batch_tokens = min(BATCH_TOKENS, BATCH_LOGITS // model.config.vocab_size)
    was_training = model.training
    loss_of.eval()
    by_length = sorted(
        (window for document in documents for window in windows(document, context)),
        key=lambda window: len(window[0]),
    )
    total, n_tokens = 0.0, 0
    start = 0
    while start < len(by_length):
        stop = start + 1  # windows of similar lengths together: little padding
        while stop < len(by_length):
            n_positions = (stop + 1 - start) * len(by_length[stop][0])
            if n_positions > batch_tokens:
                break
            stop += 1
        batch = by_length[start:stop]
        n_rows = stop - start
        start = stop
        length = max(len(ids) for ids, _ in batch) - 1
        inputs = torch.zeros((n_rows, length), dtype=torch.int64)
        targets = torch.full((n_rows, length), IGNORED, dtype=torch.int64)
        for row, (ids, n_counted) in enumerate(batch):
            inputs[row, : len(ids) - 1] = torch.from_numpy(ids[:-1])
            targets[row, n_counted : len(ids) - 1] = torch.from_numpy(ids[1 + n_counted :])
        n_tokens += int((targets != IGNORED).sum())
        positions = torch.arange(length, device=device)[None]
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            total += loss_of(inputs.to(device), targets.to(device), positions).item()
    loss_of.train(was_training)
    return total, n_tokens
