"""The measures against their textbook definitions, worked out in the slow and obvious way."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_edge.evaluate import negative_log_likelihood
from gpt_edge.evaluate.compare import Pair, add_rows, comparison
from gpt_edge.evaluate.measures import Sums, Tally, kl_divergence, log_softmax, text_score
from gpt_edge.evaluate.quantiles import Quantiles

V = 23


def some_rows(n_rows: int, seed: int = 0, noise: float = 0.0) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, 2, (n_rows, V))
    return (logits + noise * np.random.default_rng(seed + 1).normal(0, 1, logits.shape)).astype(
        np.float32
    )


def probabilities(logits: np.ndarray) -> np.ndarray:
    """One row at a time, in Python's own floats."""
    rows = []
    for row in logits.tolist():
        weights = [math.exp(value) for value in row]
        rows.append([weight / sum(weights) for weight in weights])
    return np.array(rows)


def test_perplexity_is_exp_of_minus_the_mean_log_probability_and_accuracy_correct_by_total() -> (
    None
):
    logits, targets = some_rows(100), np.random.default_rng(5).integers(0, V, 100)
    tally = Tally()
    for start in (0, 64):
        add_rows([logits[start : start + 64]], targets[start : start + 64], [tally], {})
    score = text_score(tally, n_words=40, n_bytes=300)
    p = probabilities(logits)[np.arange(100), targets]
    assert score.perplexity is not None
    assert score.perplexity.value == pytest.approx(math.exp(-np.log(p).mean()), rel=1e-9)
    assert score.perplexity.value > 1  # the sign
    assert score.loss.error == pytest.approx(np.log(p).std(ddof=1) / math.sqrt(100), rel=1e-9)
    assert score.perplexity.error == pytest.approx(score.perplexity.value * score.loss.error)
    assert score.word_perplexity == pytest.approx(math.exp(-np.log(p).sum() / 40))
    assert score.bits_per_byte == pytest.approx(-np.log2(p).sum() / 300)
    correct = sum(int(row.argmax() == target) for row, target in zip(logits, targets, strict=True))
    assert score.accuracy.value == correct / 100


def test_bits_per_byte_of_a_text_worked_out_by_hand() -> None:
    """Two targets with probabilities 1/4 and 1/8 in a text of 10 bytes: (2 + 3) / 10."""
    logits = np.log(np.array([[0.25, 0.75], [0.125, 0.875]])).astype(np.float32)
    tally = Tally()
    add_rows([logits], np.array([0, 0]), [tally], {})
    score = text_score(tally, 1, 10)
    assert score.bits_per_byte == pytest.approx(0.5, rel=1e-6)
    assert score.perplexity is not None
    assert score.perplexity.value == pytest.approx(math.sqrt(32), rel=1e-6)


@pytest.mark.parametrize("size", [2, 277, 50257])
def test_a_uniform_model_has_the_perplexity_of_its_vocabulary(size: int) -> None:
    tally = Tally()
    add_rows([np.full((5, size), 7.0, np.float32)], np.array([0, 1, 0, size - 1, 0]), [tally], {})
    score = text_score(tally, 1, 1)
    assert score.perplexity is not None
    assert score.perplexity.value == pytest.approx(size, rel=1e-9)
    assert score.accuracy.value == 3 / 5  # a tie goes to the lower id


def test_figures_beyond_a_float_are_none_and_nothing_is_a_value_error() -> None:
    tally = Tally()
    add_rows([np.array([[0.0, 5000.0]], np.float32)], np.array([0]), [tally], {})
    score = text_score(tally, 1, 1)
    assert (score.loss.value, score.perplexity, score.word_perplexity) == (5000.0, None, None)
    with pytest.raises(ValueError, match="0 targets"):
        text_score(Tally(), 1, 1)


def test_the_likelihood_of_logits_far_from_zero_is_exact() -> None:
    logits = np.array([[1e4, 1e4 + 1], [-1e4, -1e4 - 1]], np.float32)
    found = negative_log_likelihood(logits, np.array([0, 1]))
    assert found == pytest.approx([math.log(1 + math.e)] * 2, rel=1e-9)
    assert negative_log_likelihood(logits[:0], np.array([], np.int64)).size == 0


def test_kl_divergence_is_that_of_its_definition_and_never_below_zero() -> None:
    logs = [log_softmax(some_rows(30, noise=noise)) for noise in (0.0, 0.3)]
    p, q = np.exp(logs[0]), np.exp(logs[1])
    np.testing.assert_allclose(kl_divergence(*logs), (p * np.log(p / q)).sum(-1), rtol=1e-9)
    assert kl_divergence(*logs).shape == (30,)
    assert kl_divergence(logs[0][0], logs[1][0]) == kl_divergence(*logs)[0]
    nearly = logs[0] * (1 - 1e-15)
    assert (kl_divergence(logs[0], nearly) >= 0).all()
    assert np.isnan(kl_divergence(logs[0] * np.nan, logs[1])).all()


def compared(base: np.ndarray, model: np.ndarray, targets: np.ndarray, block: int = 37):
    tallies, pair = [Tally(), Tally()], Pair()
    for start in range(0, len(targets), block):
        part = slice(start, start + block)
        add_rows([model[part], base[part]], targets[part], tallies, {(1, 0): pair})
    return comparison(pair, base=tallies[1], model=tallies[0])


def test_a_model_has_no_divergence_from_itself() -> None:
    rows, targets = some_rows(200), np.zeros(200, np.int64)
    found = compared(rows, rows, targets)
    assert (found.mean_kl.value, found.mean_kl.error, found.max_kl, found.median_kl) == (0, 0, 0, 0)
    assert set(found.kl_quantiles.values()) == {0}
    assert (found.top1.value, found.rms_delta_p.value, found.rms_delta_p.error) == (1, 0, 0)
    assert found.perplexity_ratio is not None
    assert (found.perplexity_ratio.value, found.perplexity_ratio.error) == (1, 0)
    assert found.correlation == pytest.approx(1)


def test_every_figure_of_a_comparison_is_that_of_its_definition() -> None:
    n = 500
    base, model = some_rows(n), some_rows(n, noise=0.3)
    targets = np.random.default_rng(9).integers(0, V, n)
    found = compared(base, model, targets)
    p, q = probabilities(base), probabilities(model)
    kl = (p * np.log(p / q)).sum(-1)
    before, after = p[np.arange(n), targets], q[np.arange(n), targets]
    delta, ratio = after - before, np.log(before) - np.log(after)

    def error(values: np.ndarray) -> float:
        return float(values.std(ddof=1) / math.sqrt(len(values)))

    assert found.n_rows == n
    assert found.mean_kl.value == pytest.approx(kl.mean(), rel=1e-6)
    assert found.mean_kl.error == pytest.approx(error(kl), rel=1e-6)
    for share, value in found.kl_quantiles.items():
        assert value == pytest.approx(np.quantile(kl, share), rel=1.3e-4)
    assert found.max_kl == pytest.approx(kl.max(), rel=1e-6)
    assert found.top1.value == (p.argmax(-1) == q.argmax(-1)).mean()
    assert found.top1.error == pytest.approx(
        math.sqrt(found.top1.value * (1 - found.top1.value) / (n - 1))
    )
    assert found.mean_delta_p.value == pytest.approx(delta.mean(), rel=1e-6)
    assert found.mean_delta_p.error == pytest.approx(error(delta), rel=1e-6)
    assert found.rms_delta_p.value == pytest.approx(math.sqrt((delta**2).mean()), rel=1e-6)
    assert found.rms_delta_p.error == pytest.approx(
        0.5 * error(delta**2) / found.rms_delta_p.value, rel=1e-6
    )
    for share, value in found.delta_p_quantiles.items():
        assert value == pytest.approx(np.quantile(delta, share), rel=1.3e-4, abs=1e-6)
    assert (found.min_delta_p, found.max_delta_p) == pytest.approx(
        (delta.min(), delta.max()), rel=1e-6
    )
    assert found.log_perplexity_ratio.value == pytest.approx(ratio.mean(), rel=1e-6)
    assert found.log_perplexity_ratio.error == pytest.approx(error(ratio), rel=1e-6)
    assert found.correlation == pytest.approx(
        np.corrcoef(np.log(before), np.log(after))[0, 1], rel=1e-6
    )
    assert found.perplexity_difference is not None
    both = math.exp(-np.log(after).mean()), math.exp(-np.log(before).mean())
    assert found.perplexity_difference.value == pytest.approx(both[0] - both[1], rel=1e-6)
    # the derivative of the difference
    wanted = error(both[0] * -np.log(after) - both[1] * -np.log(before))
    assert found.perplexity_difference.error == pytest.approx(wanted, rel=1e-6)


def test_divergence_is_of_the_base_from_the_model_and_not_the_other_way() -> None:
    base, model = np.log([[0.5, 0.5]]).astype(np.float32), np.log([[0.9, 0.1]]).astype(np.float32)
    found = compared(base, model, np.array([0]))
    assert found.mean_kl.value == pytest.approx(
        0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1), rel=1e-6
    )
    assert found.mean_delta_p.value == pytest.approx(0.4, rel=1e-6)


def test_a_pair_goes_on_from_json_bit_by_bit() -> None:
    base, model, targets = some_rows(90), some_rows(90, noise=0.2), np.zeros(90, np.int64)
    once, tallies = Pair(), [Tally(), Tally()]
    add_rows([model[:50], base[:50]], targets[:50], tallies, {(1, 0): once})
    again = Pair.from_dict(json.loads(json.dumps(once.to_dict())))
    for pair in (once, again):
        add_rows([model[50:], base[50:]], targets[50:], [Tally(), Tally()], {(1, 0): pair})
    assert again.to_dict() == once.to_dict()


finite = st.floats(-(2.0**100), 2.0**100, width=32).filter(
    lambda value: value == 0 or abs(value) > 1e-30
)


@given(
    values=st.lists(finite, min_size=1, max_size=60), share=st.floats(0, 1), cut=st.integers(0, 60)
)
def test_a_quantile_is_that_of_numpy_to_one_part_in_sixteen_thousand(
    values: list[float], share: float, cut: int
) -> None:
    quantiles = Quantiles()
    quantiles.add(np.array(values[:cut]))
    quantiles.add(np.array(values[cut:]))
    size = max(map(abs, values))
    near = sorted(values)
    rank = share * (len(values) - 1)
    scale = max(abs(near[int(rank)]), abs(near[math.ceil(rank)]))
    assert quantiles.at(share) == pytest.approx(
        np.quantile(values, share), abs=scale * 6.2e-5 + size * 1e-12
    )
    assert quantiles.at(0) == min(values)
    assert quantiles.at(1) == max(values)
    assert Quantiles.from_dict(json.loads(json.dumps(quantiles.to_dict()))).at(
        share
    ) == quantiles.at(share)


def test_quantiles_of_nothing_and_of_a_corrupt_file_are_refused() -> None:
    with pytest.raises(ValueError, match="of 0 values"):
        Quantiles().at(0.5)
    with pytest.raises(ValueError, match="do not belong together"):
        Quantiles.from_dict({"limits": [0, 1], "bins": [1, 2], "counts": [1]})


def test_sums_of_one_row_have_no_error() -> None:
    sums = Sums()
    sums.add(np.array([3.0]))
    assert (sums.estimate().value, sums.estimate().error) == (3.0, 0.0)
