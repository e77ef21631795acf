"""Metrics of predictions: accuracy, F1, Matthews' correlation, Pearson, Spearman, each with a 95 %
confidence interval.

Accuracy has Wilson's score interval; the others have percentiles of a bootstrap over the examples
(Efron 1979). Knows nothing of models, texts and names of labels. Sources at each function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpt_edge.arrays import BoolArray, DoubleArray, IntArray

Z95 = 1.959963984540054  # of a two-sided 95 % interval of the normal distribution
N_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class IntervalEstimate:
    """A figure and the ends of its 95 % confidence interval. `interval` names the method: "wilson"
    or "bootstrap".
    """

    value: float
    low: float
    high: float
    interval: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def confusion_matrix(gold: IntArray, predicted: IntArray, n_label: int) -> IntArray:
    """int64 [n_label, n_label]: how often class i (row) was predicted as class j (column).

    Raises ValueError for arrays of different or no length, and for classes outside 0 .. n_label -
    1.
    """
    _check_lengths(gold, predicted)
    if min(gold.min(), predicted.min()) < 0 or max(gold.max(), predicted.max()) >= n_label:
        raise ValueError(f"classes must be from 0 to {n_label - 1}")
    return np.bincount(gold * n_label + predicted, minlength=n_label * n_label).reshape(
        n_label, n_label
    )


def accuracy(confusion: IntArray) -> float:
    """Fraction of the examples on the diagonal."""
    return float(np.trace(confusion) / confusion.sum())


def macro_f1(confusion: IntArray) -> float:
    """Mean of the classes' F1 = 2 tp / (2 tp + fp + fn), over classes that occur in the gold or the
    predictions.
    """
    hits = np.diag(confusion).astype(np.float64)
    both = (confusion.sum(0) + confusion.sum(1)).astype(np.float64)  # 2 tp + fp + fn
    occurs = both > 0
    return float(np.mean(2 * hits[occurs] / both[occurs]))


def matthews(confusion: IntArray) -> float:
    """Matthews' correlation coefficient, for any number of classes; 0 where gold or predictions
    have only one class.

    Source: Gorodkin 2004 (R_K); Matthews 1975 for two classes.
    """
    table = confusion.astype(np.float64)
    n, hits = table.sum(), np.trace(table)
    predicted, gold = table.sum(0), table.sum(1)
    spread = (n * n - predicted @ predicted) * (n * n - gold @ gold)
    return float((hits * n - predicted @ gold) / math.sqrt(spread)) if spread > 0 else 0.0


def pearson(gold: DoubleArray, predicted: DoubleArray) -> float:
    """Pearson's correlation coefficient; 0 where one side does not vary."""
    _check_lengths(gold, predicted)
    # the mean of equal numbers may be off by a rounding
    if np.ptp(gold) == 0 or np.ptp(predicted) == 0:
        return 0.0
    x, y = gold - gold.mean(), predicted - predicted.mean()
    spread = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / spread if spread > 0 else 0.0


def spearman(gold: DoubleArray, predicted: DoubleArray) -> float:
    """Spearman's rank correlation: Pearson's of the ranks, equal values sharing the mean of their
    ranks.
    """
    _check_lengths(gold, predicted)
    return pearson(ranks(gold), ranks(predicted))


def ranks(values: DoubleArray) -> DoubleArray:
    """Ranks from 1, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], dtype=np.float64)


def wilson(n_hits: int, n: int) -> tuple[float, float]:
    """95 % interval of the fraction `n_hits` / `n`. Source: Wilson 1927."""
    share, z2 = n_hits / n, Z95 * Z95
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(figure: Callable[[IntArray], float], n: int, seed: int = 0) -> tuple[float, float]:
    """95 % interval of `figure(rows)`, rows drawn with replacement from n, N_RESAMPLES times:
    percentiles 2.5 and 97.5.
    """
    rng = np.random.default_rng(seed)
    values = [figure(rng.integers(0, n, n)) for _ in range(N_RESAMPLES)]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def class_metrics(gold: IntArray, predicted: IntArray, n_label: int) -> dict[str, IntervalEstimate]:
    """accuracy, macro_f1 and matthews of predicted classes. Raises as `confusion_matrix`."""
    confusion = confusion_matrix(gold, predicted, n_label)
    n, hits = len(gold), int(np.trace(confusion))
    metrics = {"accuracy": IntervalEstimate(accuracy(confusion), *wilson(hits, n), "wilson")}
    for name, figure in (("macro_f1", macro_f1), ("matthews", matthews)):

        def of_rows(rows: IntArray, figure: Callable[[IntArray], float] = figure) -> float:
            return figure(confusion_matrix(gold[rows], predicted[rows], n_label))

        metrics[name] = IntervalEstimate(figure(confusion), *bootstrap(of_rows, n), "bootstrap")
    return metrics


def set_metrics(gold: IntArray, predicted: IntArray) -> dict[str, IntervalEstimate]:
    """micro_f1, macro_f1 and exact_match of predicted sets of labels, int [N, K], 0 or 1.

    micro_f1: over all labels of all examples together; macro_f1: mean over the labels that occur in
    gold or predictions; exact_match: fraction of the examples of which every label is right.
    Raises ValueError for different shapes or no example.
    """
    if gold.shape != predicted.shape or gold.ndim != 2 or gold.size == 0:
        raise ValueError(
            f"gold and predicted must be sets of the same labels, got {gold.shape} and "
            f"{predicted.shape}"
        )
    n = len(gold)
    metrics = {}
    for name, figure in (("micro_f1", micro_f1_of_sets), ("macro_f1", macro_f1_of_sets)):

        def of_rows(
            rows: IntArray, figure: Callable[[IntArray, IntArray], float] = figure
        ) -> float:
            return figure(gold[rows], predicted[rows])

        value = figure(gold, predicted)
        metrics[name] = IntervalEstimate(value, *bootstrap(of_rows, n), "bootstrap")
    hits = int((gold == predicted).all(1).sum())
    metrics["exact_match"] = IntervalEstimate(hits / n, *wilson(hits, n), "wilson")
    return metrics


def micro_f1_of_sets(gold: IntArray, predicted: IntArray) -> float:
    """2 tp / (2 tp + fp + fn) over all labels of all examples; 0 where none is given or true."""
    both = int(gold.sum() + predicted.sum())
    return 2 * int((gold & predicted).sum()) / both if both else 0.0


def macro_f1_of_sets(gold: IntArray, predicted: IntArray) -> float:
    """Mean of the labels' F1, over labels that occur in gold or predictions; 0 where none does."""
    both = gold.sum(0) + predicted.sum(0)
    occurs = both > 0
    if not occurs.any():
        return 0.0
    return float((2 * (gold & predicted).sum(0)[occurs] / both[occurs]).mean())


def found_first(first: DoubleArray, second: DoubleArray) -> BoolArray:
    """Whether each text of pairs is nearest, by cosine, to its other one among all: bool [2 N],
    first the pairs' first texts. first, second: vectors [N, K]. Of equal ones any counts as found.
    """
    cosines = _unit(first) @ _unit(second).T
    own = np.diag(cosines)
    return np.concatenate([own >= cosines.max(1), own >= cosines.max(0)])


def retrieval_metrics(first: DoubleArray, second: DoubleArray) -> dict[str, IntervalEstimate]:
    """retrieval: the fraction of the texts of pairs that find their other one, see `found_first`.
    The interval is of the pairs, whose two directions are counted together.
    """
    found = found_first(first, second).reshape(2, -1).mean(0)
    low, high = bootstrap(lambda rows: float(found[rows].mean()), len(found))
    return {"retrieval": IntervalEstimate(float(found.mean()), low, high, "bootstrap")}


def _unit(vectors: DoubleArray) -> DoubleArray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: DoubleArray = vectors / np.maximum(lengths, np.finfo(np.float64).tiny)
    return unit


def choice_metrics(gold: IntArray, predicted: IntArray) -> dict[str, IntervalEstimate]:
    """accuracy of chosen answers. Their numbers are positions in a list, not classes, so there is
    no F1.
    """
    _check_lengths(gold, predicted)
    hits = int((gold == predicted).sum())
    return {"accuracy": IntervalEstimate(hits / len(gold), *wilson(hits, len(gold)), "wilson")}


def score_metrics(gold: DoubleArray, predicted: DoubleArray) -> dict[str, IntervalEstimate]:
    """pearson, spearman and root_mean_squared_error of predicted scores."""
    _check_lengths(gold, predicted)
    figures = (
        ("pearson", pearson),
        ("spearman", spearman),
        ("root_mean_squared_error", root_mean_squared_error),
    )
    metrics = {}
    for name, figure in figures:

        def of_rows(
            rows: IntArray, figure: Callable[[DoubleArray, DoubleArray], float] = figure
        ) -> float:
            return figure(gold[rows], predicted[rows])

        metrics[name] = IntervalEstimate(
            figure(gold, predicted), *bootstrap(of_rows, len(gold)), "bootstrap"
        )
    return metrics


def root_mean_squared_error(gold: DoubleArray, predicted: DoubleArray) -> float:
    """Root mean squared error, in the unit of the scores."""
    return math.sqrt(float(np.mean((gold - predicted) ** 2)))


def _check_lengths(gold: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> None:
    if gold.shape != predicted.shape or gold.ndim != 1 or gold.size == 0:
        raise ValueError(
            f"gold and predicted must be lists of one length, got {gold.shape} and "
            f"{predicted.shape}"
        )
