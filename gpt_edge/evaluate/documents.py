"""Scores and comparisons of documents that are ids in memory, for training, export and
benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpt_edge.arrays import IntArray
from gpt_edge.evaluate.compare import Comparison, Pair, add_rows, comparison
from gpt_edge.evaluate.measures import Tally, text_score
from gpt_edge.evaluate.scorer import Scorer, SessionScorer, finite
from gpt_edge.evaluate.windows import windows

if TYPE_CHECKING:
    from gpt_edge.runtime.session import Session


@dataclass(frozen=True, slots=True)
class Score:
    """How well a model predicts a text."""

    loss: float  # nats per token
    bits_per_byte: float
    n_tokens: int
    n_bytes: int


def score_documents(
    session: Session,
    documents: Sequence[IntArray],
    n_bytes: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Score:
    """Score `documents`, each int64 `end, tokens, end`, whose texts have `n_bytes` bytes in all, in
    windows that move by half a context.

    progress: called with the number of documents done. Raises ValueError for a document of fewer
    than two ids.
    """
    tally = _tally([SessionScorer(session, "the model")], documents, {}, progress)[0]
    score = text_score(tally, n_words=1, n_bytes=n_bytes)
    return Score(score.loss.value, score.bits_per_byte, tally.nll.n, n_bytes)


def compare_documents(
    model: Scorer,
    base: Scorer,
    documents: Sequence[IntArray],
    progress: Callable[[int], None] = lambda done: None,
) -> Comparison:
    """Compare `model` with `base` on `documents`, each int64 [2 ..], in windows that move by half
    of the shorter context.

    Raises ValueError for no documents, one of fewer than two ids, or models with different
    vocabularies.
    """
    if model.config.vocab_size != base.config.vocab_size:
        raise ValueError(
            f"vocabularies of {model.config.vocab_size} and {base.config.vocab_size} cannot be "
            "compared"
        )
    pair = Pair()
    tallies = _tally([model, base], documents, {(1, 0): pair}, progress)
    return comparison(pair, base=tallies[1], model=tallies[0])


def _tally(
    scorers: Sequence[Scorer],
    documents: Sequence[IntArray],
    pairs: dict[tuple[int, int], Pair],
    progress: Callable[[int], None],
) -> list[Tally]:
    tallies = [Tally() for _ in scorers]
    context = min(scorer.config.n_ctx for scorer in scorers)
    for number, document in enumerate(documents):
        if len(document) < 2:
            raise ValueError(f"document {number} has {len(document)} ids, expected at least 2")
        for ids, n_counted in windows(np.asarray(document, np.int64), context):
            score_window(scorers, ids, n_counted, tallies, pairs)
        progress(number + 1)
    return tallies


def score_window(
    scorers: Sequence[Scorer],
    ids: IntArray,
    n_counted: int,
    tallies: Sequence[Tally],
    pairs: dict[tuple[int, int], Pair],
) -> None:
    """Count the targets of one window after the first `n_counted`. pairs: by (base, model), indices
    into `scorers`.

    Raises NumericError for NaN or infinite logits, ValueError for ids beyond the vocabulary.
    """
    targets = ids[1 + n_counted :]
    for logits in zip(*(scorer.rows(ids[:-1], n_counted) for scorer in scorers), strict=True):
        n_rows = len(logits[0])
        checked = [finite(rows, scorer.name) for rows, scorer in zip(logits, scorers, strict=True)]
        add_rows(checked, targets[:n_rows], tallies, pairs)
        targets = targets[n_rows:]
