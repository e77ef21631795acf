"""How well a bundle predicts a text: loss per token and bits per byte, through onnxruntime.

Each document is read on its own, from an empty context. What counts: every token of it and the end token after it; the
bytes are those of the document's text in UTF-8. A document longer than the context is read in windows of it that overlap
by half, each token counted once, so that none but the first ones is predicted from less than half a context.
loss = -(1/N) sum log p(token), in nats; bits per byte = total loss / ln 2 / bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from gpt_edge.session import Session  # training scores in torch and has no use for onnxruntime

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Score:
    """What a model makes of a text."""

    loss: float  # nats per token
    bits_per_byte: float
    n_tokens: int
    n_bytes: int


def windows(document: IntArray, context: int) -> list[tuple[IntArray, int]]:
    """Cut ids [N] into parts of at most `context` + 1, and say how many of each one's targets were counted before."""
    n_targets, stride = len(document) - 1, max(1, context // 2)
    parts = [(document[: context + 1], 0)]
    counted = min(context, n_targets)
    while counted < n_targets:
        stop = min(counted + stride, n_targets)
        start = stop - context
        parts.append((document[start : stop + 1], counted - start))
        counted = stop
    return parts


def score_documents(
    session: Session, documents: Sequence[IntArray], n_bytes: int, progress: Callable[[int], None] = lambda done: None
) -> Score:
    """Score `documents`, each int64 `end, tokens, end`, whose texts have `n_bytes` bytes in all.

    progress: called with the number of documents done. Raises ValueError for a document of fewer than two ids.
    """
    total, n_tokens = 0.0, 0
    for done, document in enumerate(documents):
        if len(document) < 2:
            raise ValueError(f"document {done} has {len(document)} ids, at least 2 are wanted")
        for ids, n_counted in windows(document, session.config.n_ctx):
            cache = session.new_cache(capacity=len(ids) - 1)
            rows = np.arange(n_counted, len(ids) - 1)
            logits = session.forward(ids[None, :-1], cache, rows)[0]
            total += float(negative_log_likelihood(logits, ids[1 + n_counted :]).sum())
            n_tokens += rows.size
        progress(done + 1)
    return Score(total / n_tokens, total / math.log(2) / n_bytes, n_tokens, n_bytes)


def negative_log_likelihood(logits: npt.NDArray[np.float32], targets: IntArray) -> npt.NDArray[np.float64]:
    """-log p(target) in nats, float64 [R], of float32 logits [R, V] and ids [R]."""
    largest = logits.max(-1, keepdims=True)
    log_sum = np.log(np.exp(logits - largest).sum(-1, dtype=np.float64)) + largest[:, 0]
    return np.asarray(log_sum - np.take_along_axis(logits, targets[:, None], -1)[:, 0])
