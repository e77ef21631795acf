"""Metrics compared with worked examples, slow obvious versions, and scikit-learn and scipy where
they are installed.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_edge.evaluate import classification_metrics
from gpt_edge.evaluate.classification_metrics import (
    accuracy,
    bootstrap,
    choice_metrics,
    class_metrics,
    confusion_matrix,
    found_first,
    macro_f1,
    matthews,
    pearson,
    ranks,
    retrieval_metrics,
    score_metrics,
    set_metrics,
    spearman,
    wilson,
)

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)
SCORES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=30)


def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    gold, predicted = np.array(pairs, dtype=np.int64).T
    return gold, predicted


def test_worked_figures_of_a_two_class_table() -> None:
    confusion = np.array([[50, 10], [5, 35]])  # true no, true yes
    assert accuracy(confusion) == pytest.approx(0.85)
    assert macro_f1(confusion) == pytest.approx((100 / 115 + 70 / 85) / 2)
    assert matthews(confusion) == pytest.approx((50 * 35 - 10 * 5) / (60 * 40 * 55 * 45) ** 0.5)


@given(PAIRS)
def test_the_confusion_matrix_counts_pairs(pairs: list[tuple[int, int]]) -> None:
    table = confusion_matrix(*columns(pairs), 5)
    assert [[table[i, j] for j in range(5)] for i in range(5)] == [
        [pairs.count((i, j)) for j in range(5)] for i in range(5)
    ]


@settings(deadline=None)  # the first call imports scikit-learn
@given(PAIRS)
def test_class_figures_agree_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    gold, predicted = columns(pairs)
    table = confusion_matrix(gold, predicted, 5)
    assert accuracy(table) == pytest.approx(sklearn.accuracy_score(gold, predicted))
    assert macro_f1(table) == pytest.approx(
        sklearn.f1_score(gold, predicted, average="macro", zero_division=0)
    )
    assert matthews(table) == pytest.approx(sklearn.matthews_corrcoef(gold, predicted))


@settings(deadline=None)
@given(SCORES)
def test_correlations_agree_with_scipy(pairs: list[tuple[int, int]]) -> None:
    stats = pytest.importorskip("scipy.stats")
    gold, predicted = (side.astype(np.float64) for side in columns(pairs))
    assert ranks(gold).tolist() == stats.rankdata(gold).tolist()
    if len(set(gold)) > 1 and len(set(predicted)) > 1:
        assert pearson(gold, predicted) == pytest.approx(
            stats.pearsonr(gold, predicted).statistic, abs=1e-12
        )
        assert spearman(gold, predicted) == pytest.approx(
            stats.spearmanr(gold, predicted).statistic, abs=1e-12
        )
    else:
        assert pearson(gold, predicted) == spearman(gold, predicted) == 0.0


def test_correlations_of_straight_and_bent_lines() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert pearson(x, 2 * x + 1) == pytest.approx(1.0)
    assert pearson(x, -x) == pytest.approx(-1.0)
    assert spearman(x, x**5) == pytest.approx(1.0)
    assert pearson(x, x**5) < 0.99


def test_wilson_figures_of_the_literature() -> None:
    # Newcombe 1998, table I: 81 of 263 is 0.2553 to 0.3662; 0 of 20 is 0 to 0.1611
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(20, 20)[1] == 1.0


def test_bootstrap_intervals_hold_the_value_and_are_the_same_each_time() -> None:
    rng = np.random.default_rng(1)
    gold = rng.integers(0, 3, 300)
    predicted = np.where(rng.random(300) < 0.7, gold, rng.integers(0, 3, 300))
    first, again = class_metrics(gold, predicted, 3), class_metrics(gold, predicted, 3)
    assert first == again
    for name, estimate in first.items():
        assert estimate.low < estimate.value < estimate.high
        assert estimate.interval == ("wilson" if name == "accuracy" else "bootstrap")
        assert estimate.high - estimate.low < 0.2
    assert list(first) == ["accuracy", "macro_f1", "matthews"]


@pytest.mark.parametrize("n_resamples", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_bootstrap_interval_covers_as_often_as_it_says(
    n_resamples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pearson's correlation of normal pairs, true value 0.6: 95 of 100 intervals should hold it;
    85 is 4.6 deviations off.
    """
    monkeypatch.setattr(classification_metrics, "N_RESAMPLES", n_resamples)
    rng, n_held = np.random.default_rng(2), 0
    for _ in range(100):
        x = rng.standard_normal(80)
        y = 0.6 * x + 0.8 * rng.standard_normal(80)
        low, high = bootstrap(lambda rows, x=x, y=y: pearson(x[rows], y[rows]), 80)
        n_held += low <= 0.6 <= high
    assert n_held >= 85


def test_score_and_choice_figures() -> None:
    found = score_metrics(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 5.0]))
    assert list(found) == ["pearson", "spearman", "root_mean_squared_error"]
    assert found["root_mean_squared_error"].value == pytest.approx((4 / 3) ** 0.5)
    chosen = choice_metrics(np.array([0, 3, 2, 1]), np.array([0, 3, 1, 1]))
    assert list(chosen) == ["accuracy"]
    assert chosen["accuracy"].value == 0.75
    assert chosen["accuracy"].to_dict()["interval"] == "wilson"


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        pearson(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="one length"):
        confusion_matrix(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), 2)
    with pytest.raises(ValueError, match="from 0 to 1"):
        confusion_matrix(np.array([0, 2]), np.array([0, 1]), 2)


def test_figures_of_sets_agree_with_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score, f1_score

    rng = np.random.default_rng(3)
    gold = (rng.random((60, 4)) < 0.3).astype(np.int64)
    predicted = (rng.random((60, 4)) < 0.4).astype(np.int64)
    found = set_metrics(gold, predicted)
    assert found["micro_f1"].value == pytest.approx(f1_score(gold, predicted, average="micro"))
    assert found["macro_f1"].value == pytest.approx(f1_score(gold, predicted, average="macro"))
    assert found["exact_match"].value == pytest.approx(accuracy_score(gold, predicted))
    for estimate in found.values():
        assert estimate.low <= estimate.value <= estimate.high
    none = np.zeros((2, 3), np.int64)
    assert set_metrics(none, none)["macro_f1"].value == 0.0
    with pytest.raises(ValueError, match="sets of the same labels"):
        set_metrics(gold, predicted[:, :3])


def test_pairs_that_find_each_other_are_counted() -> None:
    first = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    second = np.array([[3.0, 0.1], [0.9, 1.0], [0.1, 1.0]])  # the last two are exchanged
    assert found_first(first, second).tolist() == [True, False, False, True, False, False]
    found = retrieval_metrics(first, second)["retrieval"]
    assert found.value == pytest.approx(1 / 3)
    assert found.low <= found.value <= found.high
    assert retrieval_metrics(first, first)["retrieval"].value == 1.0
