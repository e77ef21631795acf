"""Bundles in scikit-learn: a classifier, and a transformer of texts to vectors.

    from gpt_edge.integrations.sklearn_estimators import GPTEdgeClassifier

    GPTEdgeClassifier("sentiment-6m-int8").predict(["I loved it."])
    cross_val_score(GPTEdgeClassifier(checkpoint="runs/base/checkpoint"), texts, labels)

Both follow scikit-learn's rules for estimators: settings are the arguments of the constructor, and
nothing is opened before it is needed. Source: scikit-learn's guide for developers of estimators.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import column_or_1d

from gpt_edge.arrays import FloatArray
from gpt_edge.classify.classifier import Classifier, Texts
from gpt_edge.classify.embedder import Embedder
from gpt_edge.errors import require
from gpt_edge.runtime.encoder import BATCH
from gpt_edge.schemes import INT8

Labels = npt.NDArray[Any]


class GPTEdgeClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fine-tuned bundle, or one that `fit` makes of a checkpoint.

    bundle: folder or name of a bundle with classes. It predicts without `fit`, which only checks
    that the labels are the bundle's. checkpoint: a model to start from, in any format that
    `gpt-edge finetune` reads; `fit` fine-tunes it, with hold_out of the examples to choose the best
    epoch and to calibrate on, and exports it as `scheme` (extras `train` and `export`). The other
    settings are those of `FinetuneSettings`, with the defaults for models of a few million weights;
    random_state is the seed, None 0. truncate: what to do with a text that is too long, see
    `Classifier.encode`. threads, batch: as for `Classifier`.

    X is a sequence of texts; for pairs, of (text, text). A pickle of a fitted estimator holds the
    model; where a bundle was given, its name.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | None = None,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        kind: str = "classification",
        epochs: int = 8,
        learning_rate: float = 1e-3,
        warmup: float = 0.05,
        lm_weight: float = 0.5,
        token_noise: float = 0.0,
        lora_rank: int | None = None,
        hold_out: float = 0.1,
        precision: str = "float32",
        random_state: int | None = None,
        scheme: str = INT8.name,
        truncate: str | None = "right",
        batch: int = BATCH,
        threads: int | None = None,
    ) -> None:
        self.bundle = bundle
        self.checkpoint = checkpoint
        self.kind = kind
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.warmup = warmup
        self.lm_weight = lm_weight
        self.token_noise = token_noise
        self.lora_rank = lora_rank
        self.hold_out = hold_out
        self.precision = precision
        self.random_state = random_state
        self.scheme = scheme
        self.truncate = truncate
        self.batch = batch
        self.threads = threads

    def fit(self, X: Sequence[Texts], y: Sequence[Any]) -> GPTEdgeClassifier:
        """Fine-tune the checkpoint; with a bundle, check that it has the labels. Raises ValueError
        for labels or settings that cannot be, and as `finetune` and `export_bundle`.
        """
        texts = _texts(X)
        labels = column_or_1d(y, warn=True)
        if len(texts) != len(labels):
            raise ValueError(f"X has {len(texts)} examples, y {len(labels)} labels")
        self._check_source()
        if self.checkpoint is not None:
            self._files = self._finetuned(texts, labels)
            self._drop_model()
        names = self._model().labels
        known = np.unique(labels)
        if missing := sorted({str(label) for label in known} - set(names)):
            raise ValueError(
                f"{self.bundle} has no label {missing[0]!r:.80}: give a checkpoint to fine-tune"
            )
        self._fitted_classes = _as_labels(names, known)
        return self

    @property
    def classes_(self) -> Labels:
        """The classes in sorted order, that of the columns of `predict_proba`; of the type of y
        after `fit`, else texts.
        """
        return np.sort(self._columns())

    def predict(self, X: Sequence[Texts]) -> Labels:
        """The most likely class of each example. Raises ValueError and ContextLengthError with its
        number.
        """
        labels: Labels = self.classes_[self.predict_proba(X).argmax(1)]
        return labels

    def predict_proba(self, X: Sequence[Texts]) -> FloatArray:
        """Probabilities float32 [N, K], in the order of `classes_`; calibrated where the bundle is.
        Raises as `predict`.
        """
        model = self._model()
        truncate: Any = self.truncate
        found = model.predict(_texts(X), truncate=truncate, batch=self.batch).probabilities
        order = np.argsort(self._columns())
        rows: FloatArray = np.array(found, np.float32).reshape(-1, len(order))[:, order]
        return rows

    def _columns(self) -> Labels:
        """The classes in the bundle's order."""
        fitted: Labels | None = getattr(self, "_fitted_classes", None)
        return np.array(self._model().labels) if fitted is None else fitted

    def __sklearn_is_fitted__(self) -> bool:
        return self.checkpoint is None or hasattr(self, "_files")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = self.checkpoint is not None
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_loaded", None)  # an open session cannot be pickled; it is opened again
        return state

    def _check_source(self) -> None:
        if (self.bundle is None) == (self.checkpoint is None):
            raise ValueError("give either bundle, a fine-tuned model, or checkpoint, one to tune")

    def _model(self) -> Classifier:
        """The classifier, opened at its first use."""
        loaded: Classifier | None = getattr(self, "_loaded", None)
        if loaded is None:
            self._check_source()
            loaded = self._loaded = self._open()
            if not loaded.labels or loaded.task.problem == "multi-label":
                self._drop_model()
                raise ValueError(f"{loaded.encoder.path} does not choose one of several classes")
        return loaded

    def _open(self) -> Classifier:
        if self.checkpoint is None:
            assert self.bundle is not None
            return Classifier.load(self.bundle, threads=self.threads)
        if not hasattr(self, "_files"):
            raise NotFittedError(f"{type(self).__name__} has a checkpoint: call fit first")
        # a system that keeps open files on the disk removes the folder later
        with tempfile.TemporaryDirectory(prefix="gpt-edge-", ignore_cleanup_errors=True) as folder:
            for name, content in self._files.items():
                (Path(folder) / name).write_bytes(content)
            return Classifier.load(folder, threads=self.threads)

    def _drop_model(self) -> None:
        loaded: Classifier | None = self.__dict__.pop("_loaded", None)
        if loaded is not None:
            loaded.close()

    def _finetuned(self, texts: list[Texts], labels: Labels) -> dict[str, bytes]:
        """The files of the bundle that fine-tuning gives, by name."""
        require("gpt_edge.training.finetune.run", "train")
        require("gpt_edge.export.pipeline.export", "export")
        from gpt_edge.data.examples import default_columns
        from gpt_edge.export.pipeline.export import export_bundle
        from gpt_edge.training.finetune.run import finetune
        from gpt_edge.training.finetune.settings import FinetuneData, FinetuneSettings

        settings = FinetuneSettings(
            kind=self.kind,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            warmup=self.warmup,
            lm_weight=self.lm_weight,
            token_noise=self.token_noise,
            lora_rank=self.lora_rank,
            precision=self.precision,
            seed=self.random_state or 0,
            threads=self.threads or 0,
        )
        assert self.checkpoint is not None
        with tempfile.TemporaryDirectory(prefix="gpt-edge-") as name:
            folder = Path(name)
            columns = default_columns(self.kind)
            rows = [
                dict(zip((*columns.texts, columns.label), (*_parts(one), str(label)), strict=True))
                for one, label in zip(texts, labels, strict=True)
            ]
            train = folder / "train.jsonl"
            train.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
            data = FinetuneData(train=train, hold_out=self.hold_out)
            run = finetune(Path(self.checkpoint), folder / "run", data, settings, progress=False)
            made, _ = export_bundle(run.checkpoint, folder / "bundle", scheme=self.scheme)
            return {path.name: path.read_bytes() for path in made.path.iterdir()}


class GPTEdgeEmbedder(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Texts to vectors float32 [N, C] of length 1, from any bundle, for a pipeline.

    bundle: folder or name; None is the built-in story model. pooling: "mean" or "last".
    truncate, batch, threads: as for `GPTEdgeClassifier`. `fit` learns nothing.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | None = None,
        *,
        pooling: str = "mean",
        truncate: str | None = "right",
        batch: int = BATCH,
        threads: int | None = None,
    ) -> None:
        self.bundle = bundle
        self.pooling = pooling
        self.truncate = truncate
        self.batch = batch
        self.threads = threads

    def fit(self, X: Sequence[str], y: object = None) -> GPTEdgeEmbedder:
        """Return self."""
        return self

    def transform(self, X: Sequence[str]) -> FloatArray:
        """Vectors in the order of the texts. Raises as `Embedder.embed`."""
        embedder: Embedder | None = getattr(self, "_loaded", None)
        if embedder is None:
            embedder = self._loaded = Embedder.load(self.bundle, threads=self.threads)
        pooling: Any = self.pooling
        truncate: Any = self.truncate
        texts = ["".join(_parts(one)) for one in _texts(X)]
        return embedder.embed(texts, pooling=pooling, truncate=truncate, batch=self.batch)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_loaded", None)
        return state


def _texts(X: Sequence[Texts]) -> list[Texts]:
    """The examples of a list, an array or a column of a table. Raises ValueError for one text."""
    if isinstance(X, str):
        raise ValueError("X must be a sequence of texts, got one text")
    return [one if isinstance(one, str) else tuple(one) for one in X]


def _parts(example: Texts) -> tuple[str, ...]:
    return (example,) if isinstance(example, str) else tuple(example)


def _as_labels(names: Sequence[str], known: Labels) -> Labels:
    """The names of a bundle's labels as values of y's type: 0 and "0" have one name."""
    by_name = {str(value): value for value in known}
    if known.dtype.kind in "iu":
        by_name = {name: int(name) for name in names if name.lstrip("-").isdigit()} | by_name
    return np.array([by_name.get(name, name) for name in names])
