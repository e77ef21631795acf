"""The baselines of `tasks.py` that are no GPT: the majority, and TF-IDF with logistic regression
(scikit-learn).

Two texts are two groups of TF-IDF columns. Of a similarity with scores, the majority is the mean
and the other the cosine of the two TF-IDF vectors. Of multiple choice, the majority is the most
frequent place, and the other scores each answer with its context as right or wrong and takes the
best.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from task_sets import TaskSet

from gpt_edge.data.examples import Example, read_examples
from gpt_edge.data.labels import class_labels, class_numbers
from gpt_edge.evaluate.classification_metrics import (
    IntervalEstimate,
    choice_metrics,
    class_metrics,
    score_metrics,
)

STRENGTHS = [1.0, 10.0, 100.0]  # C: the inverse of the regularisation
N_GRAMS = ((1, 1), (1, 2))


def majority(task_set: TaskSet, train_path: Path, test_path: Path) -> dict[str, Any]:
    """Answers that do not look at the texts."""
    train, test = (
        read_examples(train_path, task_set.columns),
        read_examples(test_path, task_set.columns),
    )
    if task_set.score_range is not None:
        gold = np.array([float(example.label) for example in test])
        mean = float(np.mean([float(example.label) for example in train]))
        return _row(score_metrics(gold, np.full(len(gold), mean)), len(test), f"always {mean:.2f}")
    most = Counter(example.label for example in train).most_common(1)[0][0]
    if task_set.kind == "multiple-choice":
        gold = np.array([int(example.label) for example in test])
        return _row(
            choice_metrics(gold, np.full(len(gold), int(most))), len(test), f"always answer {most}"
        )
    labels = class_labels(train_path, train)
    gold = np.array(class_numbers(test_path, test, labels))
    metrics = class_metrics(gold, np.full(len(gold), labels.index(most)), len(labels))
    return _row(metrics, len(test), f"always {most}")


def tfidf(task_set: TaskSet, train_path: Path, test_path: Path) -> dict[str, Any]:
    """Logistic regression on TF-IDF; of scores, the cosine."""
    train, test = (
        read_examples(train_path, task_set.columns),
        read_examples(test_path, task_set.columns),
    )
    if task_set.score_range is not None:
        return _cosine(train, test)
    if task_set.kind == "multiple-choice":
        return _choices(train, test)
    labels = class_labels(train_path, train)
    gold = np.array(class_numbers(train_path, train, labels))
    model = fitted([example.texts for example in train], gold)
    predicted = model.predict([example.texts for example in test])
    metrics = class_metrics(
        np.array(class_numbers(test_path, test, labels)), predicted, len(labels)
    )
    return _row(metrics, len(test), model.described())


class _Model:
    """One vectorizer for each text of an example, and the regression on their columns side
    by side.
    """

    def __init__(self, texts: list[tuple[str, ...]], n_grams: tuple[int, int]) -> None:
        self.n_grams = n_grams
        columns = list(zip(*texts, strict=True))
        self._vectorizers = [
            TfidfVectorizer(ngram_range=n_grams, sublinear_tf=True).fit(column)
            for column in columns
        ]
        self.search: GridSearchCV | None = None

    def matrix(self, texts: list[tuple[str, ...]]) -> csr_matrix:
        columns = zip(*texts, strict=True)
        pairs = zip(self._vectorizers, columns, strict=True)
        return hstack([vectorizer.transform(column) for vectorizer, column in pairs]).tocsr()

    def fit(self, texts: list[tuple[str, ...]], gold: np.ndarray) -> float:
        """Return the best mean accuracy of the cross-validation."""
        self.search = GridSearchCV(LogisticRegression(max_iter=3000), {"C": STRENGTHS}, cv=3)
        return float(self.search.fit(self.matrix(texts), gold).best_score_)

    def predict(self, texts: list[tuple[str, ...]]) -> np.ndarray:
        assert self.search is not None
        return np.asarray(self.search.predict(self.matrix(texts)))

    def is_right(self, texts: list[tuple[str, ...]]) -> np.ndarray:
        """The log odds of class 1."""
        assert self.search is not None
        return np.asarray(self.search.decision_function(self.matrix(texts)))

    def described(self) -> str:
        assert self.search is not None
        units = "words and pairs" if self.n_grams[1] > 1 else "words"
        return f"C = {self.search.best_params_['C']:g}, {units}"


def fitted(texts: list[tuple[str, ...]], gold: np.ndarray) -> _Model:
    """The model whose n-grams and C are best in cross-validation, trained on everything."""
    models = [_Model(texts, n_grams) for n_grams in N_GRAMS]
    figures = [model.fit(texts, gold) for model in models]
    return models[int(np.argmax(figures))]


def _choices(train: list[Example], test: list[Example]) -> dict[str, Any]:
    pairs = [(example.texts[0], answer) for example in train for answer in example.texts[1:]]
    right = [
        int(i == int(example.label)) for example in train for i in range(len(example.texts) - 1)
    ]
    model = fitted(pairs, np.array(right))
    chosen = [
        int(np.argmax(model.is_right([(example.texts[0], answer) for answer in example.texts[1:]])))
        for example in test
    ]
    gold = np.array([int(example.label) for example in test])
    return _row(choice_metrics(gold, np.array(chosen)), len(test), model.described())


def _cosine(train: list[Example], test: list[Example]) -> dict[str, Any]:
    vectorizer = TfidfVectorizer(sublinear_tf=True).fit(
        [text for example in train for text in example.texts]
    )
    sides = [vectorizer.transform([example.texts[side] for example in test]) for side in (0, 1)]
    cosine = np.asarray(sides[0].multiply(sides[1]).sum(1)).ravel()
    gold = np.array([float(example.label) for example in test])
    return _row(score_metrics(gold, 5 * cosine), len(test), "cosine, not trained")


def _row(metrics: dict[str, IntervalEstimate], n_examples: int, settings: str) -> dict[str, Any]:
    values = {name: estimate.to_dict() for name, estimate in metrics.items()}
    return {"metrics": {"n_examples": n_examples, **values}, "settings": settings}
