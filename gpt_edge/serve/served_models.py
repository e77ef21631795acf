"""The models that a server serves: language models with an engine each, and classifiers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.reader import RENAMED, renamed_note, resolve_bundle_path
from gpt_edge.classify.classifier import Classifier
from gpt_edge.classify.embedder import Embedder
from gpt_edge.errors import BundleError
from gpt_edge.generate.batch_engine import BatchEngine
from gpt_edge.generate.chat_template import ChatTemplate
from gpt_edge.generate.generator import Generator, open_generator
from gpt_edge.generate.prefix_cache import PrefixCache
from gpt_edge.serve.api_error import ApiError
from gpt_edge.tasks import EMBEDDING

PREFIX_BYTES = 256 << 20
log = logging.getLogger("gpt_edge.serve")


@dataclass
class ServedModel:
    """One bundle by the name that clients call it.

    engine: of a language model; classifier: of a fine-tuned one, or of an adapter, whose base the
    bundle is then. worker: the thread in which the encoder computes, one request at a time;
    n_pending: requests that it has or that wait for it.
    """

    name: str
    bundle: Bundle
    threads: int | None = None
    engine: BatchEngine | None = None
    generator: Generator | None = None
    classifier: Classifier | None = None
    chat_template: ChatTemplate | None = None
    worker: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    n_pending: int = 0

    @cached_property
    def embedder(self) -> Embedder:
        """Opened when the first client wants vectors: it holds the weights once more, but for an
        adapter.
        """
        if self.classifier is not None and self.classifier.encoder.adapter is not None:
            return Embedder(self.classifier.encoder, self.classifier.tokenizer)
        return Embedder.load(self.bundle.path, threads=self.threads)

    @property
    def vector_size(self) -> int:
        """Numbers in a vector, whether the embedder is open or not."""
        task = self.bundle.task
        own = None if task is None else task.dimensions
        return own or self.bundle.config.n_embd


class ServedModels:
    """All models of a server, by name; the first is the one that a request without a name means
    where there is only one.
    """

    def __init__(self, models: Sequence[ServedModel]) -> None:
        """Raises ValueError for a name that comes twice, or no model."""
        self._models = {model.name: model for model in models}
        if len(self._models) < len(models):
            raise ValueError("two of the bundles have the same name: rename one of the folders")
        if not models:
            raise ValueError("no model to serve")

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def named(self, name: str | None) -> ServedModel:
        """The model that a request asks for. Raises ApiError 400 or 404."""
        if name is None and len(self._models) == 1:
            return next(iter(self._models.values()))
        if name is None:
            raise ApiError(400, "you must provide a model parameter", param="model")
        if name not in self._models and RENAMED.get(name) in self._models:
            log.warning(renamed_note(name))  # the answer has the new name
            name = RENAMED[name]
        if name not in self._models:
            raise ApiError(
                404,
                f"The model {name[:80]!r} does not exist; there are {', '.join(self._models)}",
                param="model",
                code="model_not_found",
            )
        return self._models[name]

    def language_model(self, name: str | None) -> ServedModel:
        """As `named`, but a classifier is an ApiError 400."""
        model = self.named(name)
        if model.engine is None:
            what = "is a classifier: use /v1/classify"
            if model.classifier is None:
                what = "gives vectors: use /v1/embeddings"
            raise ApiError(400, f"{model.name} {what}", param="model")
        return model

    def close(self) -> None:
        """End the engines and what they generate."""
        for model in self._models.values():
            if model.engine is not None:
                model.engine.close()
            model.worker.shutdown(cancel_futures=True)


def open_models(
    paths: Sequence[str | None],
    *,
    threads: int | None = None,
    max_batch: int = 8,
    max_waiting: int = 64,
    chat_template: str | None = None,
    prefix_bytes: int | None = None,
    adapters: Sequence[str] = (),
) -> ServedModels:
    """Open every bundle, None being the built-in story model, and start the engines.

    chat_template: of all language models, in place of their own. prefix_bytes: of keys and values
    that all of them keep for prompts that begin alike, 0 for none; None is 256 MB, for the models
    whose texts cannot change by it (`Session.is_row_exact`). adapters: folders, each served by its
    own name; they share their base, which is one of the paths. Raises BundleError.
    """
    models = []
    unused = [Bundle.open(adapter) for adapter in adapters]
    prefixes = PrefixCache(prefix_bytes or PREFIX_BYTES)
    for path in paths:
        bundle = Bundle.open(resolve_bundle_path(path))
        if bundle.config.takes_adapters and unused:
            models += _adapted(bundle, unused, threads)
            continue
        model = ServedModel(bundle.manifest.name, bundle, threads)
        if bundle.task is not None and bundle.task.kind == EMBEDDING:
            _ = model.embedder  # opened now, so that a corrupt bundle is told at the start
        elif bundle.task is not None:
            model.classifier = Classifier.load(bundle.path, threads=threads)
        else:
            model.generator = open_generator(bundle, threads=threads)
            is_exact = model.generator.session.is_row_exact
            if prefix_bytes or (prefix_bytes is None and is_exact):
                model.generator.prefix_cache = prefixes
            model.engine = BatchEngine(
                model.generator, max_batch=max_batch, max_waiting=max_waiting
            ).start()
            model.chat_template = _template(bundle, chat_template)
        models.append(model)
    if unused:
        raise BundleError(
            f"{unused[0].path} is no adapter of a base among the bundles to serve",
            hint="give the base that it was exported with, too",
        )
    return ServedModels(models)


def _adapted(base: Bundle, adapters: list[Bundle], threads: int | None) -> list[ServedModel]:
    """A model for each of the adapters that are this base's, which are taken out of the list."""
    known_as = base.weights_hash()
    own = [one for one in adapters if (one.manifest.base or {}).get("sha256") == known_as]
    adapters[:] = [one for one in adapters if one not in own]
    classifier: Classifier | None = None
    models = []
    for adapter in own:
        if classifier is None:
            classifier = Classifier.load(base.path, adapter=adapter.path, threads=threads)
        else:
            classifier = classifier.with_adapter(adapter.path)
        model = ServedModel(adapter.manifest.name, base, threads, classifier=classifier)
        models.append(model)
    return models


def _template(bundle: Bundle, given: str | None) -> ChatTemplate | None:
    """The operator's template, or the bundle's own. Raises GPTEdgeError for what is no Jinja."""
    text = given or bundle.read_chat_template()
    if text is None:
        return None
    return ChatTemplate(text, (bundle.manifest.tokenizer or {}).get("roles", {}))
