"""Encoder without torch: states are those that a session's logits are made of, whatever is computed
beside them; logits and vectors go to their examples.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import pytest

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.errors import BundleError, ContextLengthError, NumericError
from gpt_edge.runtime.adapter import Adapter
from gpt_edge.runtime.encoder import Encoder
from gpt_edge.runtime.session import Session
from gpt_edge.tasks import TaskSpec, new_task
from tests.support.tiny_model import GOLDEN, bundle_path

BUNDLE = GOLDEN / "native-int8"  # a language model whose graph gives hidden states
N_CTX, VOCAB_SIZE, WIDTH = 96, 97, 80
SIZES = (5, 1, N_CTX, 17, 5, 2)


def random_ids(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCAB_SIZE, (1, n))


@functools.cache
def open_encoder() -> Encoder:
    return Encoder(Bundle.open(BUNDLE), threads=1)


def sequences() -> list[list[int]]:
    return [random_ids(size, seed)[0].tolist() for seed, size in enumerate(SIZES)]


def beginnings(ids: list[int]) -> list[list[int]]:
    return [ids[: end + 1] for end in range(len(ids))]


def test_the_last_state_is_what_the_logits_are_made_of() -> None:
    """The head is linear, but for the rounding of its input: what maps the states of three texts to
    their logits maps those of a fourth.
    """
    session, encoder = Session(Bundle.open(BUNDLE), threads=1), open_encoder()
    states, logits = [], []
    for seed in range(4):
        ids = random_ids(N_CTX, seed)
        states.append(encoder.states(beginnings(ids[0].tolist()), "last"))
        logits.append(session.forward(ids, session.new_cache(), "all")[0].copy())
    head = np.linalg.lstsq(np.concatenate(states[:3]), np.concatenate(logits[:3]), rcond=None)[0]
    error = states[3] @ head - logits[3]
    assert np.square(error).mean() < 0.02**2 * np.square(logits[3]).mean()


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_the_mean_is_that_of_the_last_states_of_all_beginnings(batch: int) -> None:
    encoder = open_encoder()
    found = encoder.states(sequences(), batch=batch)
    assert found.shape == (len(SIZES), WIDTH)
    for ids, mean in zip(sequences(), found, strict=True):
        last = encoder.states(beginnings(ids), "last", batch=batch)
        np.testing.assert_allclose(mean, last.mean(0), atol=1e-3)
    assert encoder.states([]).shape == (0, WIDTH)


def test_an_older_graph_gives_no_states() -> None:
    with pytest.raises(BundleError, match="gives no hidden states"):
        Encoder(Bundle.open(bundle_path()), threads=1).states([[1]])


@pytest.mark.parametrize("ids", [[], [-1], [VOCAB_SIZE], [3, VOCAB_SIZE, 4]])
def test_ids_that_are_none_are_refused(ids: list[int]) -> None:
    with pytest.raises(ValueError, match=f"one or more ids from 0 to {VOCAB_SIZE - 1}"):
        open_encoder().states([[1, 2], ids])
    assert open_encoder().states([[0, VOCAB_SIZE - 1]]).shape == (1, WIDTH)


def test_a_sequence_fills_the_context_at_most() -> None:
    with pytest.raises(ContextLengthError, match=f"{N_CTX + 1} tokens do not fit into the context"):
        open_encoder().states([[1] * (N_CTX + 1)])


def test_a_language_model_has_no_logits_of_a_task_and_pooling_has_two_kinds() -> None:
    with pytest.raises(BundleError, match="is a language model: it has no task to answer"):
        open_encoder().logits([[1]])
    with pytest.raises(ValueError, match="pooling must be 'last' or 'mean', got 'first'"):
        open_encoder().states([[1]], "first")  # type: ignore[arg-type]


def test_a_closed_encoder_says_so() -> None:
    encoder = Encoder(Bundle.open(BUNDLE), threads=1)
    assert encoder.describe() == f"vectors of {WIDTH}, context of {N_CTX}, threads 1"
    encoder.close()
    assert encoder.describe().endswith("threads 1, closed")
    with pytest.raises(ValueError, match="closed"):
        encoder.states([[1]])


def scripted(task: TaskSpec, answer: Callable[..., np.ndarray]) -> Encoder:
    """An encoder of this task whose graph answers by a function of padded ids and lengths."""
    encoder = copy.copy(open_encoder())
    encoder.task = task
    encoder._run = lambda ids, lengths, output, rows: answer(ids, lengths, rows)  # type: ignore
    return encoder


def of_examples(ids: np.ndarray, lengths: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of each example the sum of its tokens, and its last token."""
    np.testing.assert_array_equal(rows, lengths[:, None] - 1)
    inside = np.arange(ids.shape[1]) < lengths[:, None]
    sums = (ids * inside).sum(1)
    return np.stack([sums, ids[np.arange(len(ids)), lengths - 1]], -1)[:, None].astype(np.float32)


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_logits_go_to_their_examples(batch: int) -> None:
    encoder = scripted(new_task("classification", VOCAB_SIZE, ("a", "b")), of_examples)
    wanted = [[sum(ids), ids[-1]] for ids in sequences()]
    assert encoder.logits(sequences(), batch=batch).tolist() == wanted
    assert encoder.logits([]).shape == (0, 2)


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_the_two_orders_of_a_pair_are_one_example(batch: int) -> None:
    def of_pairs(ids: np.ndarray, lengths: np.ndarray, rows: np.ndarray) -> np.ndarray:
        each = of_examples(ids, lengths, rows)
        return 2 * each[0::2] + each[1::2]

    encoder = scripted(new_task("similarity", VOCAB_SIZE, ("a", "b")), of_pairs)
    both = [order for ids in sequences() for order in (ids, ids[::-1])]
    wanted = [[3 * sum(ids), 2 * ids[-1] + ids[0]] for ids in sequences()]
    assert encoder.logits(both, batch=batch).tolist() == wanted


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_logits_of_tokens_follow_each_other(batch: int) -> None:
    def of_tokens(ids: np.ndarray, lengths: np.ndarray, rows: np.ndarray) -> np.ndarray:
        np.testing.assert_array_equal(rows, np.repeat([np.arange(ids.shape[1])], len(ids), 0))
        return np.stack([ids, -ids], -1).astype(np.float32)

    task = TaskSpec("token-classification", labels=("a", "b"), problem="single-label")
    every_id = [id for ids in sequences() for id in ids]
    found = scripted(task, of_tokens).logits(sequences(), batch=batch)
    assert found.tolist() == [[id, -id] for id in every_id]
    vectors = scripted(new_task("embedding", VOCAB_SIZE, dimensions=2), of_tokens)
    means = [np.mean(ids) for ids in sequences()]
    found = vectors.vectors(sequences(), batch=batch)
    np.testing.assert_allclose(found, [[mean, -mean] for mean in means], rtol=1e-6)
    assert vectors.vectors([]).shape == (0, 2)
    assert vectors.logits([]).shape == (0, 2)


def with_head(task: TaskSpec, graph: str) -> Encoder:
    """An encoder with an adapter, whose graph gives each token's state: its id, and its place."""

    def states(ids: np.ndarray, lengths: np.ndarray, rows: np.ndarray) -> np.ndarray:
        every = np.stack([ids, np.broadcast_to(np.arange(ids.shape[1]), ids.shape)], -1)
        if graph == "portable":  # it gives all, and past the end something else
            return np.where(np.arange(ids.shape[1])[:, None] < lengths[:, None, None], every, 99.0)
        return np.take_along_axis(every, rows[:, :, None], 1).astype(np.float64)

    encoder = scripted(task, states)
    head = np.array([[1, 0, 2], [0, 1, 10]], np.float32)
    bias = np.array([0.25, 0.5, -0.125], np.float32)
    encoder.adapter = Adapter(BUNDLE, "adapter", task, 1, {}, head, bias)
    encoder.graph = graph
    return encoder


def headed(id: int, place: int) -> list[float]:
    return [id + 0.25, place + 0.5, 2 * id + 10 * place - 0.125]


LABELS = ("a", "b", "c")


@pytest.mark.parametrize("graph", ["edge", "portable"])
@pytest.mark.parametrize("batch", [1, 2, 64])
def test_an_adapters_head_reads_the_states_of_its_rows(graph: str, batch: int) -> None:
    classes = with_head(new_task("classification", VOCAB_SIZE, LABELS), graph)
    found = classes.logits(sequences(), batch=batch)
    assert found.tolist() == [headed(ids[-1], len(ids) - 1) for ids in sequences()]
    tags = TaskSpec("token-classification", labels=LABELS, problem="single-label")
    found = with_head(tags, graph).logits(sequences(), batch=batch)
    places = [(id, place) for ids in sequences() for place, id in enumerate(ids)]
    assert found.tolist() == [headed(id, place) for id, place in places]


@pytest.mark.parametrize("graph", ["edge", "portable"])
@pytest.mark.parametrize("batch", [1, 2, 64])
def test_an_adapters_head_reads_the_sum_of_two_orders(graph: str, batch: int) -> None:
    encoder = with_head(new_task("similarity", VOCAB_SIZE, LABELS), graph)
    both = [order for ids in sequences() for order in (ids, ids[::-1])]
    wanted = [headed(ids[-1] + ids[0], 2 * (len(ids) - 1)) for ids in sequences()]
    assert encoder.logits(both, batch=batch).tolist() == wanted


@pytest.mark.parametrize("kind", ["similarity", "classification"])
@pytest.mark.parametrize("batch", [1, 2, 3, 64])
def test_states_of_a_task_are_those_of_the_rows_that_it_is_asked_for(kind: str, batch: int) -> None:
    """A graph of pairs reads an even number of texts."""

    def states(ids: np.ndarray, lengths: np.ndarray, rows: np.ndarray) -> np.ndarray:
        assert kind == "classification" or len(ids) % 2 == 0
        picked = np.take_along_axis(ids, rows, 1)
        return np.repeat(picked[:, :, None], WIDTH, 2).astype(np.float32)

    encoder = scripted(new_task(kind, VOCAB_SIZE, LABELS), states)
    encoder.config = dataclasses.replace(encoder.config, n_label=3)
    last = encoder.states(sequences(), "last", batch=batch)
    assert last[:, 0].tolist() == [ids[-1] for ids in sequences()]
    means = encoder.states(sequences(), batch=batch)
    np.testing.assert_allclose(means[:, -1], [np.mean(ids) for ids in sequences()], rtol=1e-6)
    odd = encoder.states(sequences()[:1], "last", batch=batch)
    assert odd[:, 0].tolist() == [sequences()[0][-1]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_result_that_is_no_number_is_an_error(value: float) -> None:
    def broken(ids: np.ndarray, lengths: np.ndarray, rows: np.ndarray) -> np.ndarray:
        logits = of_examples(ids, lengths, rows)
        logits[0, 0, 1] = value
        return logits

    encoder = scripted(new_task("classification", VOCAB_SIZE, ("a", "b")), broken)
    with pytest.raises(NumericError, match="gave NaN or infinite logits"):
        encoder.logits(sequences())
    states = scripted(encoder.task, lambda ids, lengths, rows: np.full((*ids.shape, WIDTH), value))  # type: ignore[arg-type]
    with pytest.raises(NumericError, match="gave NaN or infinite hidden states"):
        states.states([[1, 2]])
