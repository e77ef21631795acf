"""Classifier and Embedder without a graph: a scripted encoder answers, texts become sequences,
logits become labels.
"""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from gpt_edge.classify.classifier import Classifier
from gpt_edge.classify.embedder import Embedder, save_vectors
from gpt_edge.errors import BundleError, ContextLengthError
from gpt_edge.runtime.encoder import Encoder
from gpt_edge.tasks import TaskSpec, new_task
from gpt_edge.tokenizer import build_tokenizer, source_from_ranks
from gpt_edge.tokenizer.formats.rank_file import format_ranks

WORDS = build_tokenizer(source_from_ranks(format_ranks([bytes([value]) for value in range(256)])))
N_CTX = 16


class Scripted:
    """Stands in for an Encoder: logits from a function of each sequence, of a model that labels
    tokens a row for each of them.
    """

    def __init__(self, task: TaskSpec | None, answer: Any) -> None:
        self.task, self.answer, self.path = task, answer, Path("scripted")
        self.config = types.SimpleNamespace(n_ctx=N_CTX, n_embd=4, takes_adapters=False)

    def logits(self, sequences: list[tuple[int, ...]], *, batch: int) -> np.ndarray:
        assert self.task is not None
        step = 2 if self.task.kind == "similarity" else 1
        found = [value for ids in sequences[::step] for value in np.ravel(self.answer(ids))]
        return np.array(found, np.float32).reshape(-1, self.task.n_label)

    def vectors(self, sequences: list[list[int]], *, batch: int) -> np.ndarray:
        return np.array([self.answer(ids) for ids in sequences], np.float32)

    def states(self, sequences: list[list[int]], pooling: str, *, batch: int) -> np.ndarray:
        return np.array([self.answer(ids) for ids in sequences], np.float32).reshape(-1, 4)


def classifier(task: TaskSpec | None, answer: Any) -> Classifier:
    return Classifier(cast(Encoder, Scripted(task, answer)), WORDS)


def test_labels_and_probabilities_come_apart() -> None:
    model = classifier(
        new_task("classification", 257, ("short", "long")), lambda ids: [0, len(ids) - 4]
    )
    labels, probabilities = model.predict(["abc", "a"])
    assert labels == ("long", "short")
    np.testing.assert_allclose(
        cast(Any, probabilities[0]), [1 / (1 + np.e), np.e / (1 + np.e)], rtol=1e-6
    )
    assert model.labels == ("short", "long")
    assert model.predict(["abc"]).rows[0].probability == pytest.approx(np.e / (1 + np.e))


def test_probabilities_are_those_of_the_temperature_and_the_label_stays() -> None:
    task = dataclasses.replace(new_task("classification", 257, ("a", "b")), temperature=2.0)
    (row,) = classifier(task, lambda ids: [0, 3]).predict(["x"]).rows
    assert (row.label, row.probability) == ("b", pytest.approx(1 / (1 + np.exp(-1.5))))


def test_none_of_the_classes_is_given_below_the_threshold() -> None:
    model = classifier(new_task("classification", 257, ("a", "b")), lambda ids: [0, len(ids) - 3])
    low, high = model.predict(["x", "xxx"], threshold=0.7).rows
    assert (low.label, low.labels, low.index) == (None, (), 0)
    assert low.probability == 0.5
    assert (high.label, high.labels) == ("b", ("b",))
    with pytest.raises(ValueError, match="from 0 to 1, got 2"):
        model.predict(["x"], threshold=2)
    scores = classifier(new_task("similarity", 257, score_range=(0, 4)), lambda ids: [0.0])
    with pytest.raises(ValueError, match="similarity with scores has none"):
        scores.predict([("a", "b")], threshold=0.5)


def test_a_threshold_may_be_just_what_the_label_has_and_lies_from_0_to_1() -> None:
    model = classifier(new_task("classification", 257, ("a", "b")), lambda ids: [0, 0])
    assert model.predict(["x"], threshold=0.5).labels == ("a",)
    assert model.predict(["x"], threshold=0).labels == ("a",)
    assert model.predict(["x"], threshold=1).labels == (None,)
    for bad in (-0.01, -1, 1.01, True, float("nan")):
        with pytest.raises(ValueError, match="from 0 to 1, got"):
            model.predict(["x"], threshold=bad)


def test_a_vector_is_of_a_text_that_fits_or_is_cut_at_a_side() -> None:
    task = new_task("embedding", 257, dimensions=4)
    scripted = Scripted(task, lambda ids: [len(ids), 0, 0, 1])
    scripted.config.n_label = 4
    model = Embedder(cast(Encoder, scripted), WORDS)
    start, end = task.tokens[0], task.tokens[-1]
    fits, long = "a" * (N_CTX - 2), "b" + "a" * (N_CTX - 3) + "c"
    assert model.encode(fits) == [start, *WORDS.encode(fits), end]
    with pytest.raises(ContextLengthError, match=f"{N_CTX - 1} tokens"):
        model.encode(long)
    assert model.encode(long, "right") == [start, *WORDS.encode(long)[:-1], end]
    assert model.encode(long, "left") == [start, *WORDS.encode(long)[1:], end]
    with pytest.raises(ValueError, match="truncate must be 'left', 'right' or None, got 'end'"):
        model.encode("a", "end")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got one string"):
        model.embed("ab")
    for bad in ("", 7):
        with pytest.raises((ValueError, TypeError)):
            model.encode(bad)  # type: ignore[arg-type]
    plain = Embedder(cast(Encoder, Scripted(None, lambda ids: [len(ids), 0, 0, 1])), WORDS)
    assert plain.encode("a" * N_CTX) == WORDS.encode("a" * N_CTX)


def test_each_of_several_labels_has_its_threshold() -> None:
    task = new_task("classification", 257, ("a", "b", "c"), problem="multi-label")
    logits = [0.1, -0.5, 2.0]  # probabilities 0.525, 0.378, 0.881
    assert classifier(task, lambda ids: logits).predict(["x"]).rows[0].labels == ("c", "a")
    own = dataclasses.replace(task, thresholds=(0.6, 0.3, 0.9))
    (row,) = classifier(own, lambda ids: logits).predict(["x"]).rows
    assert (row.labels, row.label) == (("b",), "c")
    np.testing.assert_allclose(row.probabilities, [0.524979, 0.377541, 0.880797], rtol=1e-5)
    (none,) = classifier(own, lambda ids: logits).predict(["x"], threshold=0.95).rows
    assert none.labels == ()


def test_a_model_for_vectors_has_its_own_and_no_labels() -> None:
    task = new_task("embedding", 257, dimensions=4)
    scripted = Scripted(task, lambda ids: [len(ids), 0, 0, 1])
    scripted.config.n_label = 4
    model = Embedder(cast(Encoder, scripted), WORDS)
    assert (model.size, model.is_trained) == (4, True)
    np.testing.assert_array_equal(model.embed(["abc"], normalize=False), [[5, 0, 0, 1]])
    with pytest.raises(ValueError, match="trained for pooling 'mean', got 'last'"):
        model.embed(["abc"], pooling="last")
    with pytest.raises(BundleError, match="gives vectors of texts, no labels"):
        Classifier(cast(Encoder, scripted), WORDS)


def test_no_example_gives_no_answer() -> None:
    found = classifier(new_task("classification", 257, ("a", "b")), lambda ids: [0, 0]).predict([])
    assert (len(found), found.labels, found.probabilities) == (0, (), ())


def test_a_score_lies_in_its_range() -> None:
    task = new_task("similarity", 257, score_range=(0, 4))
    found = classifier(task, lambda ids: [0.0]).predict([("a", "b")])
    assert found.scores == (2.0,)
    assert found.labels == (None,)


def test_an_answer_of_several_is_chosen() -> None:
    model = classifier(new_task("multiple-choice", 257), lambda ids: [len(ids)])
    found = model.predict([("q", "a", "bbb", "cc"), ("q", "aa", "b")])
    assert found.labels == ("bbb", "aa")
    assert [row.index for row in found.rows] == [1, 0]
    assert [len(shares) for shares in found.probabilities] == [3, 2]
    assert all(shares.sum() == pytest.approx(1) for shares in found.probabilities)


def test_a_text_that_is_too_long_is_refused_or_cut_at_the_side_that_was_asked_for() -> None:
    task = new_task("classification", 257, ("a", "b"))
    model = classifier(task, lambda ids: [0, 0])
    text = "abcdefghijklmnopqrstuvwxyz"
    with pytest.raises(
        ContextLengthError, match="example 1: a text of 26 bytes is more than the context"
    ) as caught:
        model.predict(["a", text])
    assert "truncate='right'" in str(caught.value.hint)
    assert "--truncate right" in str(caught.value.cli_hint)
    for side, kept in (("right", text[:14]), ("left", text[-14:])):
        (ids,) = model.encode(text, side).sequences  # type: ignore[arg-type]
        assert bytes(ids[1:-1]).decode() == kept
        assert model.encode(text, side).n_truncated == 12  # type: ignore[arg-type]


def test_pairs_are_cut_at_either_side() -> None:
    model = classifier(new_task("entailment", 257, ("a", "b")), lambda ids: [0, 0])
    for side, kept in (("right", ["abcdefghij", "xyz"]), ("left", ["cdefghijkl", "xyz"])):
        (ids,) = model.encode(("abcdefghijkl", "xyz"), side).sequences  # type: ignore[arg-type]
        parts = "".join(chr(id) if id < 256 else "|" for id in ids).strip("|").split("|")
        assert parts == kept


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ("", "a text is empty"),
        ("  ", "a text is empty"),
        (("a", "b"), "wants 1 text"),
        ((1,), "must be a string"),
        (5, "a text or a sequence of texts, got int"),
    ],
)
def test_what_is_no_example_is_told_with_its_number(example: Any, message: str) -> None:
    model = classifier(new_task("classification", 257, ("a", "b")), lambda ids: [0, 0])
    with pytest.raises(ValueError, match=f"example 2: .*{message}"):
        model.predict(["x", "y", example])
    with pytest.raises(ValueError, match="got one string"):
        model.predict("one text")
    with pytest.raises(ValueError, match="got one NoneType"):
        model.predict(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="truncate must be"):
        model.encode("x", "both")  # type: ignore[arg-type]


def test_a_language_model_is_no_classifier() -> None:
    with pytest.raises(BundleError, match="is a language model"):
        classifier(None, lambda ids: [])
    base = Scripted(None, None)
    base.config.takes_adapters = True
    with pytest.raises(BundleError, match="is a base without a task of its own"):
        Classifier(cast(Encoder, base), WORDS)


def test_vectors_have_length_one_if_not_asked_otherwise() -> None:
    embedder = Embedder(cast(Encoder, Scripted(None, lambda ids: [3, 4, 0, 0])), WORDS)
    np.testing.assert_allclose(embedder.embed(["a"]), [[0.6, 0.8, 0, 0]], rtol=1e-6)
    assert embedder.embed(["a"], normalize=False).tolist() == [[3, 4, 0, 0]]
    assert embedder.embed([]).shape == (0, 4)
    with pytest.raises(ContextLengthError, match="text 1: a text of 17 bytes is more than"):
        embedder.embed(["a", "b" * 17])
    assert embedder.encode("ab" * 10, "left") == list(b"ab" * 8)


def test_a_classifier_embeds_what_it_was_trained_to_read() -> None:
    task = new_task("classification", 257, ("a", "b"))
    embedder = Embedder(cast(Encoder, Scripted(task, None)), WORDS)
    assert embedder.encode("ab") == [task.start, *b"ab", task.extract]
    assert (embedder.size, embedder.is_trained) == (4, False)


def test_scores_of_several_pairs_stay_with_their_pairs() -> None:
    task = new_task("similarity", 257, score_range=(0, 4))
    model = classifier(task, lambda ids: [float(len(ids) - 8)])
    pairs = [("a", "b"), ("abcd", "efgh"), ("ab", "cd"), ("abc", "d")]
    together = model.predict(pairs).scores
    assert together == tuple(model.predict([pair]).scores[0] for pair in pairs)
    lengths = [5, 11, 7, 7]  # start, both texts, delimiter, extract
    assert together == pytest.approx([4 / (1 + np.exp(8 - n)) for n in lengths])


def test_a_text_of_one_token_too_many_is_refused() -> None:
    """Its bytes would fit into the context: only its tokens, with those of the task, do not."""
    model = classifier(new_task("classification", 257, ("a", "b")), lambda ids: [0, 0])
    fits = "a" * (N_CTX - 2)  # start and extract
    assert model.encode(fits).n_truncated == 0
    assert len(model.encode(fits).sequences[0]) == N_CTX
    with pytest.raises(ContextLengthError, match="1 too many"):
        model.encode(fits + "a")
    pairs = classifier(new_task("entailment", 257, ("a", "b")), lambda ids: [0, 0])
    assert pairs.encode(("a" * 7, "b" * 6)).n_truncated == 0
    with pytest.raises(ContextLengthError, match="1 too many"):
        pairs.encode(("a" * 7, "b" * 7))


def token_classifier() -> Classifier:
    """Letters from "c" on are late."""
    task = TaskSpec("token-classification", labels=("early", "late"), problem="single-label")
    return classifier(task, lambda ids: [[0, id - ord("b")] for id in ids])


def test_every_token_of_several_texts_gets_its_own_label() -> None:
    rows = token_classifier().tag(["ab", "dcba", "c"])
    assert [[(item.text, item.label) for item in row] for row in rows] == [
        [("a", "early"), ("b", "early")],
        [("d", "late"), ("c", "late"), ("b", "early"), ("a", "early")],
        [("c", "late")],
    ]
    assert [item.start for item in rows[1]] == [0, 1, 2, 3]


def test_large_logits_of_tokens_do_not_overflow() -> None:
    task = TaskSpec("token-classification", labels=("early", "late"), problem="single-label")
    ((one,),) = classifier(task, lambda ids: [[800.0, 799.0] for _ in ids]).tag(["a"])
    assert (one.label, one.probability) == ("early", pytest.approx(1 / (1 + np.exp(-1))))


def test_what_is_cut_of_a_text_has_no_labels() -> None:
    model, text = token_classifier(), "abcdefghijklmnopqrst"
    for side, kept in (("right", text[:N_CTX]), ("left", text[-N_CTX:])):
        long, short = model.tag([text, "d"], truncate=side)  # type: ignore[arg-type]
        assert "".join(item.text for item in long) == kept
        assert [item.label for item in long] == ["late" if c > "b" else "early" for c in kept]
        assert long[0].start == text.index(kept)
        assert [(item.text, item.label) for item in short] == [("d", "late")]


def test_texts_are_tagged_by_models_for_tokens_and_with_their_own_ids() -> None:
    labels = classifier(new_task("classification", 257, ("a", "b")), lambda ids: [0, 0])
    with pytest.raises(ValueError, match="labels texts, not tokens: use predict"):
        labels.tag(["x"])
    model = token_classifier()
    with pytest.raises(ValueError, match="texts must be a"):
        model.tag("one text")
    with pytest.raises(ValueError, match="shorter"):
        model.tag_encoded(["a", "b"], [model.encode("a")])


def test_a_regression_of_one_output_is_a_score() -> None:
    one = TaskSpec("text-classification", labels=("stars",), problem="regression")
    (row,) = classifier(one, lambda ids: [3.5]).predict(["x"]).rows
    assert (row.score, row.values.tolist(), row.label) == (3.5, [3.5], None)
    two = TaskSpec("text-classification", labels=("stars", "price"), problem="regression")
    (row,) = classifier(two, lambda ids: [3.5, 9.0]).predict(["x"]).rows
    assert (row.score, row.values.tolist()) == (None, [3.5, 9.0])


def test_closing_closes_the_encoder() -> None:
    for kind in (Classifier, Embedder):
        scripted = Scripted(new_task("classification", 257, ("a", "b")), None)
        closed: list[bool] = []
        scripted.close = lambda closed=closed: closed.append(True)  # type: ignore[attr-defined]
        kind(cast(Encoder, scripted), WORDS).close()
        assert closed == [True]


def test_vectors_are_saved_as_one_array(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    parts = [np.full((n, 3), n, np.float32) for n in (2, 1)]
    assert save_vectors(path, parts, 3) == 3
    np.testing.assert_array_equal(np.load(path), [[2] * 3, [2] * 3, [1] * 3])
    assert save_vectors(path, [], 3) == 0
    assert np.load(path).shape == (0, 3)
