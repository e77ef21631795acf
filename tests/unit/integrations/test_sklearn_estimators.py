"""The estimators in the real scikit-learn: its own checks, cross-validation, pipelines, pickles."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from sklearn.utils.validation import check_is_fitted

from gpt_edge.classify.classifier import Classifier
from gpt_edge.classify.embedder import Embedder
from gpt_edge.integrations.sklearn_estimators import GPTEdgeClassifier, GPTEdgeEmbedder
from tests.conftest import REPO
from tests.support.pages import Page

REVIEWS = "sentiment-6m-int8"
TEXTS = [
    "I loved every minute of it.",
    "The food was cold and bland.",
    "A wonderful place, we will be back.",
    "Never again, a waste of money.",
    "Great phone, works well.",
    "The worst film of the year.",
]
LABELS = ["positive", "negative"] * 3
# those of `check_estimator` that do not feed numbers in place of texts
CHECKS = (
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_mixin_order",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("estimator", [GPTEdgeClassifier(REVIEWS), GPTEdgeEmbedder()])
def test_sklearns_own_checks_pass(check: str, estimator: object) -> None:
    getattr(estimator_checks, check)(type(estimator).__name__, estimator)


def test_a_bundle_predicts_without_fit_as_its_classifier_does() -> None:
    model = GPTEdgeClassifier(REVIEWS)
    check_is_fitted(model)
    wanted = Classifier.load(REVIEWS).predict(TEXTS)
    assert model.classes_.tolist() == ["negative", "positive"]
    assert model.predict(TEXTS).tolist() == list(wanted.labels)
    np.testing.assert_array_equal(model.predict_proba(TEXTS), np.array(wanted.probabilities))
    assert model.score(TEXTS, LABELS) == 1.0
    column = np.array(TEXTS, dtype=object)[:, None]  # as a table has it
    np.testing.assert_array_equal(model.predict_proba(column), model.predict_proba(TEXTS))


def test_it_works_in_cross_validation_and_searches() -> None:
    model = GPTEdgeClassifier(REVIEWS)
    assert cross_val_score(model, TEXTS, LABELS, cv=2).tolist() == [1.0, 1.0]
    loss = get_scorer("neg_log_loss")(model.fit(TEXTS, LABELS), TEXTS, LABELS)
    assert -1.0 < loss < 0.0
    search = GridSearchCV(model, {"truncate": ["left", "right"]}, cv=2).fit(TEXTS, LABELS)
    assert search.best_score_ == 1.0
    copy = pickle.loads(pickle.dumps(clone(model).fit(TEXTS, LABELS)))
    assert copy.predict(TEXTS).tolist() == LABELS


def test_vectors_feed_a_pipeline() -> None:
    pipeline = make_pipeline(GPTEdgeEmbedder(REVIEWS, pooling="last"), LogisticRegression())
    assert pipeline.fit(TEXTS, LABELS).score(TEXTS, LABELS) == 1.0
    vectors = pipeline[0].transform(TEXTS)
    wanted = Embedder.load(REVIEWS).embed(TEXTS, pooling="last")
    np.testing.assert_array_equal(vectors, wanted)
    again = pickle.loads(pickle.dumps(pipeline))
    np.testing.assert_array_equal(again.predict(TEXTS), pipeline.predict(TEXTS))


def test_what_cannot_be_is_told() -> None:
    with pytest.raises(ValueError, match="give either bundle"):
        GPTEdgeClassifier().predict(TEXTS)
    with pytest.raises(ValueError, match="give either bundle"):
        GPTEdgeClassifier(REVIEWS, checkpoint="x").fit(TEXTS, LABELS)
    with pytest.raises(NotFittedError, match="call fit first"):
        GPTEdgeClassifier(checkpoint="x").predict(TEXTS)
    with pytest.raises(ValueError, match="has no label 'great'"):
        GPTEdgeClassifier(REVIEWS).fit(TEXTS, ["great", *LABELS[1:]])
    with pytest.raises(ValueError, match="X has 6 examples, y 5"):
        GPTEdgeClassifier(REVIEWS).fit(TEXTS, LABELS[1:])
    with pytest.raises(ValueError, match="got one text"):
        GPTEdgeClassifier(REVIEWS).predict("a text")


@pytest.mark.slow  # trains and exports
def test_fit_makes_a_model_of_a_checkpoint(tmp_path: Path) -> None:
    from tests.support.finetune_factory import LARGER, make_checkpoint, write_examples

    source = make_checkpoint(tmp_path / "tiny", LARGER)
    rows = write_examples(tmp_path / "train.tsv", "classification", 60).read_text().splitlines()[1:]
    texts = [row.split("\t")[0] for row in rows]
    labels = np.array([1 if row.endswith("yes") else -1 for row in rows])
    model = GPTEdgeClassifier(
        checkpoint=source, epochs=12, learning_rate=3e-3, lm_weight=0.0, hold_out=0.2, scheme="int8"
    )
    assert model.fit(texts, labels) is model
    assert model.classes_.tolist() == [-1, 1]
    assert model.score(texts, labels) > 0.9
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.predict_proba(texts), model.predict_proba(texts))
    assert copy.classes_.dtype == labels.dtype
    assert not hasattr(clone(model), "_files")


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (source,) = Page(REPO / "docs" / "integrations.md").blocks("python")
    names: dict[str, object] = {}
    exec(source, names)
    assert getattr(names["model"], "bundle", None) == REVIEWS
