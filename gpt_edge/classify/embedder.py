"""Embedder: texts as vectors, from any bundle's hidden states after the final norm: the last
token's, or their mean.

A language model reads the text alone; a fine-tuned one reads it between its start and its extract
token, as it learned to. Of a model that was trained for vectors they are the mean of its head's
outputs.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from gpt_edge.arguments import check_several
from gpt_edge.arrays import FloatArray
from gpt_edge.bundle.bundle import Bundle, read_bundle
from gpt_edge.classify.classifier import (
    CLI_LENGTH_HINT,
    LENGTH_HINT,
    Truncate,
    check_bytes,
    check_texts,
)
from gpt_edge.errors import ContextLengthError
from gpt_edge.native.library import Native
from gpt_edge.runtime.encoder import BATCH, Encoder, Pooling
from gpt_edge.system.atomic_files import atomic_write
from gpt_edge.system.closable import Closable
from gpt_edge.tasks import EMBEDDING
from gpt_edge.tokenizer.spec import Tokenizer


class Embedder(Closable):
    """Makes vectors with one model. Thread-safe: a call keeps nothing."""

    def __init__(self, encoder: Encoder, tokenizer: Tokenizer) -> None:
        self.encoder, self.tokenizer = encoder, tokenizer

    @classmethod
    def load(
        cls,
        path_or_name: str | os.PathLike[str] | None = None,
        *,
        adapter: str | os.PathLike[str] | None = None,
        threads: int | None = None,
        native: Native = None,
    ) -> Embedder:
        """Open a bundle; None is the default bundle. adapter, threads, native: as for
        `Classifier.load`; a base without an adapter gives its own states.

        Raises BundleError or TokenizerError saying what is wrong.
        """

        opened = None if adapter is None else Bundle.open(adapter)

        def open_embedder(bundle: Bundle) -> Embedder:
            encoder = Encoder(bundle, threads=threads, native=native, adapter=opened)
            return cls(encoder, bundle.load_tokenizer())

        return read_bundle(path_or_name, open_embedder)

    def __repr__(self) -> str:
        return f"<Embedder {self.encoder.path.name}: {self.encoder.describe()}>"

    def close(self) -> None:
        """Let go of the model, as a with-block does at its end; using it then is a ValueError."""
        self.encoder.close()

    @property
    def size(self) -> int:
        """Numbers in a vector."""
        task = self.encoder.task
        return task.n_label if task and self.is_trained else self.encoder.config.n_embd

    @property
    def is_trained(self) -> bool:
        """Whether the model was fine-tuned for vectors, which are then means over the tokens."""
        return self.encoder.task is not None and self.encoder.task.kind == EMBEDDING

    def embed(
        self,
        texts: Sequence[str],
        *,
        pooling: Pooling = "mean",
        normalize: bool = True,
        truncate: Truncate | None = None,
        batch: int = BATCH,
    ) -> FloatArray:
        """Vectors float32 [N, C], in the order of the texts; no text gives [0, C].

        pooling: "mean" over the tokens that the model reads, or "last", which a model that was
        trained for vectors does not have. normalize: to length 1, so
        that a product is the cosine. truncate, batch: as `Classifier.predict`. Raises ValueError
        and ContextLengthError, with the text's number.
        """
        check_several("texts", texts)
        sequences = []
        for number, text in enumerate(texts):
            try:
                sequences.append(self.encode(text, truncate))
            except ContextLengthError as error:
                raise error.within(f"text {number}") from error
            except ValueError as error:
                raise ValueError(f"text {number}: {error}") from error
        return self.embed_encoded(sequences, pooling=pooling, normalize=normalize, batch=batch)

    def encode(self, text: str, truncate: Truncate | None = None) -> list[int]:
        """The ids that the model reads. truncate: "right" cuts the end of a text that is too long,
        "left" its start.

        Raises ValueError for an empty text, ContextLengthError for one that is too long.
        """
        if truncate not in (None, "left", "right"):
            raise ValueError(f"truncate must be 'left', 'right' or None, got {truncate!r}")
        check_texts((text,))
        task, n_ctx = self.encoder.task, self.encoder.config.n_ctx
        if truncate is None:
            check_bytes(text, self.tokenizer, n_ctx)
        ids = self.tokenizer.encode(text)
        ends = task.tokens[:1] + task.tokens[-1:] if task is not None else ()
        room = n_ctx - len(ends)
        if len(ids) > room and truncate is None:
            raise ContextLengthError(
                f"{len(ids):,} tokens of text do not fit into the context of {n_ctx}",
                hint=LENGTH_HINT,
                cli_hint=CLI_LENGTH_HINT,
            )
        kept = ids[-room:] if truncate == "left" else ids[:room]
        return [*ends[:1], *kept, *ends[1:]]

    def embed_encoded(
        self,
        sequences: Sequence[Sequence[int]],
        *,
        pooling: Pooling = "mean",
        normalize: bool = True,
        batch: int = BATCH,
    ) -> FloatArray:
        """Vectors of sequences that `encode` made."""
        if not self.is_trained:
            vectors = self.encoder.states(sequences, pooling, batch=batch)
        elif pooling != "mean":
            raise ValueError(f"{self.encoder.path} was trained for pooling 'mean', got {pooling!r}")
        else:
            vectors = self.encoder.vectors(sequences, batch=batch)
        if normalize:
            lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
            vectors = (vectors / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)
        return vectors


def save_vectors(path: Path, parts: Iterable[FloatArray], size: int) -> int:
    """Write vectors float32 [N, size], which come in parts [n, size], as one .npy file in one step;
    return N.

    Raises OSError; then, and where `parts` fails, what was at `path` stays.
    """
    array, content = np.concatenate([np.empty((0, size), np.float32), *parts]), io.BytesIO()
    np.save(content, array, allow_pickle=False)
    atomic_write(path, content.getbuffer())
    return len(array)
