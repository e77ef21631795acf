"""Classifier: a fine-tuned bundle that answers. Texts go in, labels and probabilities come out, in
one forward.

The four tasks are GPT-1's (Radford et al. 2018, section 3.3): a text; a premise and a hypothesis;
two texts, for a label or a score; a question and its answers. Needs numpy, onnxruntime and the
bundle's tokenizer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Literal

from gpt_edge.arguments import check_several
from gpt_edge.bundle.bundle import Bundle, read_bundle
from gpt_edge.classify.prediction import Encoded, Predictions, prediction_of
from gpt_edge.classify.token_labels import TokenLabel, label_tokens, token_spans
from gpt_edge.errors import BundleError, ContextLengthError
from gpt_edge.native.library import Native
from gpt_edge.runtime.encoder import BATCH, Encoder
from gpt_edge.system.closable import Closable
from gpt_edge.task_inputs import transform
from gpt_edge.tasks import EMBEDDING, FINETUNED, TOKENS
from gpt_edge.tokenizer.spec import Tokenizer

Truncate = Literal["left", "right"]
LENGTH_HINT = "shorten it, or cut it with truncate='right'"
CLI_LENGTH_HINT = "shorten it, or cut it with --truncate right"
Texts = str | Sequence[str]  # one example: a text, or its texts in their order


MAX_LABELS_SHOWN = 5  # in a repr


class Classifier(Closable):
    """Answers with one fine-tuned model. Thread-safe: a call keeps nothing."""

    def __init__(self, encoder: Encoder, tokenizer: Tokenizer) -> None:
        if encoder.task is None and encoder.config.takes_adapters:
            raise BundleError(
                f"{encoder.path} is a base without a task of its own",
                hint="open it with adapter=, a folder that gpt-edge export --base wrote",
                cli_hint="give an adapter with --adapter FOLDER",
            )
        if encoder.task is None:
            raise BundleError(
                f"{encoder.path} is a language model, not a classifier",
                hint="make one with gpt-edge finetune and gpt-edge export, or write with "
                "gpt_edge.load",
                cli_hint="make one with gpt-edge finetune and gpt-edge export, or write with "
                "gpt-edge generate",
            )
        if encoder.task.kind == EMBEDDING:
            raise BundleError(
                f"{encoder.path} gives vectors of texts, no labels",
                hint="use Embedder.load",
                cli_hint="use gpt-edge embed",
            )
        self.encoder, self.tokenizer, self.task = encoder, tokenizer, encoder.task

    @classmethod
    def load(
        cls,
        path_or_name: str | os.PathLike[str],
        *,
        adapter: str | os.PathLike[str] | None = None,
        threads: int | None = None,
        native: Native = None,
    ) -> Classifier:
        """Open a bundle that `gpt-edge export` made of a fine-tuned checkpoint, or a base with an
        adapter.

        adapter: a folder that `gpt-edge export --base` wrote, for a base. threads: None takes what
        the machine allows. native: the library of custom operators, see
        `native.library.find_library`. Raises BundleError or TokenizerError saying what is wrong.
        """
        opened = None if adapter is None else Bundle.open(adapter)

        def open_classifier(bundle: Bundle) -> Classifier:
            encoder = Encoder(bundle, threads=threads, native=native, adapter=opened)
            return cls(encoder, bundle.load_tokenizer())

        return read_bundle(path_or_name, open_classifier)

    def with_adapter(self, adapter: str | os.PathLike[str]) -> Classifier:
        """The same base with another adapter. Nothing of the base is loaded again; closing one of
        the classifiers closes all of them. Raises BundleError for an adapter of another base.
        """
        return type(self)(self.encoder.with_adapter(Bundle.open(adapter)), self.tokenizer)

    def __repr__(self) -> str:
        task = self.task.kind
        if self.labels:
            shown = ", ".join(map(repr, self.labels[:MAX_LABELS_SHOWN]))
            more = len(self.labels) - MAX_LABELS_SHOWN
            task += f" into {shown}" + (f" and {more} more" if more > 0 else "")
        return f"<Classifier {self.encoder.path.name}: {task}; {self.encoder.describe()}>"

    def close(self) -> None:
        """Let go of the model, as a with-block does at its end; using it then is a ValueError."""
        self.encoder.close()

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes; empty for scores and for multiple choice."""
        return self.task.labels

    def predict(
        self,
        texts: Sequence[Texts],
        *,
        truncate: Truncate | None = None,
        batch: int = BATCH,
        threshold: float | None = None,
        special: bool = False,
    ) -> Predictions:
        """Answer examples, in their order.

        texts: of classification strings, else of each example its texts: (premise, hypothesis),
        (text, text) or (question, answer, answer, ...). truncate: see `encode`. batch: examples
        computed at once, at most; neither it nor what else is asked changes an answer. threshold,
        from 0 to 1: of classes and answers the probability below which none of them is given, of
        several labels one in place of their own thresholds. special: see `encode`. No example
        gives no answer. Raises ValueError for what is no example, ContextLengthError for one that
        is too long, each with its number.
        """
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            actual = "string" if isinstance(texts, str) else type(texts).__name__
            raise ValueError(f"texts must be a sequence of examples, got one {actual}")
        encoded = []
        for number, example in enumerate(texts):
            try:
                encoded.append(self.encode(example, truncate, special=special))
            except ContextLengthError as error:
                raise error.within(f"example {number}") from error
            except ValueError as error:
                raise ValueError(f"example {number}: {error}") from error
        return self.predict_encoded(encoded, batch=batch, threshold=threshold)

    def encode(
        self, texts: Texts, truncate: Truncate | None = None, *, special: bool = False
    ) -> Encoded:
        """One example as the model reads it.

        truncate: what to do with one that is too long. None refuses it; "right" cuts as fine-tuning
        does (see `task_inputs.transform`), "left" keeps the ends of texts instead of their
        beginnings. special: read special tokens that a text spells, such as <|endoftext|>, as
        their ids; for models that transformers trained, as `finetune` reads plain text. Raises
        ValueError for a wrong number of texts or an empty one, ContextLengthError.
        """
        if special and self.task.kind in FINETUNED:
            raise ValueError(
                "special tokens are plain text to a model that gpt-edge fine-tuned, leave out "
                "special"
            )
        if truncate not in (None, "left", "right"):
            raise ValueError(f"truncate must be 'left', 'right' or None, got {truncate!r}")
        if not isinstance(texts, Iterable):
            raise ValueError(
                f"an example must be a text or a sequence of texts, got {type(texts).__name__}"
            )
        parts = (texts,) if isinstance(texts, str) else tuple(texts)
        check_texts(parts)
        if truncate is None:
            for part in parts:
                check_bytes(part, self.tokenizer, self.encoder.config.n_ctx)
        ids = [self.tokenizer.encode(part, special=special) for part in parts]
        task_input = transform(
            self.task, ids, self.encoder.config.n_ctx, keep_end=truncate == "left"
        )
        if task_input.n_truncated and truncate is None:
            raise ContextLengthError(
                f"{sum(map(len, ids)):,} tokens of text do not fit into the context of "
                f"{self.encoder.config.n_ctx}, "
                f"{task_input.n_truncated:,} too many",
                hint=LENGTH_HINT,
                cli_hint=CLI_LENGTH_HINT,
            )
        if not any(task_input.sequences):  # a tokenizer may drop all of a text
            raise ValueError("a text has no tokens")
        answers = parts[1:] if self.task.kind == "multiple-choice" else ()
        return Encoded(task_input.sequences, answers, task_input.n_truncated)

    def predict_encoded(
        self, encoded: Sequence[Encoded], *, batch: int = BATCH, threshold: float | None = None
    ) -> Predictions:
        """Answer examples that `encode` made ids of. batch, threshold: as `predict`. Raises
        ValueError for a model that labels tokens, and for a threshold that cannot be.
        """
        self._check_threshold(threshold)
        if self.task.kind == TOKENS:
            raise ValueError(f"{self.encoder.path} labels tokens, not texts: use tag")
        sequences = [ids for example in encoded for ids in example.sequences]
        logits = self.encoder.logits(sequences, batch=batch)
        rows, at = [], 0
        for example in encoded:
            n_rows = len(example.answers) or 1
            rows.append(prediction_of(self.task, example, logits[at : at + n_rows], threshold))
            at += n_rows
        return Predictions(tuple(rows))

    def _check_threshold(self, threshold: float | None) -> None:
        if threshold is None:
            return
        if not self.task.has_probabilities:
            raise ValueError(f"threshold is for probabilities, {self.task.described} has none")
        if isinstance(threshold, bool) or not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be a number from 0 to 1, got {threshold!r}")

    def tag(
        self,
        texts: Sequence[str],
        *,
        truncate: Truncate | None = None,
        batch: int = BATCH,
        special: bool = False,
    ) -> list[tuple[TokenLabel, ...]]:
        """Label every token of texts, in their order.

        truncate, batch, special: as `predict`; what was cut has no labels. Raises ValueError for a
        model that labels texts, TokenizerError for a tokenizer whose tokens are no parts of the
        text, and as `predict`.
        """
        if self.task.kind != TOKENS:
            raise ValueError(f"{self.encoder.path} labels texts, not tokens: use predict")
        check_several("texts", texts)
        encoded = [self.encode(text, truncate, special=special) for text in texts]
        return self.tag_encoded(texts, encoded, truncate, batch=batch, special=special)

    def tag_encoded(
        self,
        texts: Sequence[str],
        encoded: Sequence[Encoded],
        truncate: Truncate | None = None,
        *,
        batch: int = BATCH,
        special: bool = False,
    ) -> list[tuple[TokenLabel, ...]]:
        """Label the tokens of texts that `encode` made ids of, with the same `truncate` and
        `special`.
        """
        logits = self.encoder.logits([example.sequences[0] for example in encoded], batch=batch)
        rows, at = [], 0
        for text, example in zip(texts, encoded, strict=True):
            spans = token_spans(self.tokenizer, text, special=special)
            kept = spans[-example.n_tokens :] if truncate == "left" else spans[: example.n_tokens]
            of_text = logits[at : at + len(kept)]
            rows.append(label_tokens(self.task.labels, text, kept, of_text))
            at += len(kept)
        return rows


def check_texts(texts: Sequence[str]) -> None:
    """Raise ValueError for what is no text, or an empty one: no model was fine-tuned on those."""
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"a text must be a string, got {type(text).__name__}")
        if not text.strip():
            raise ValueError("a text is empty")


def check_bytes(text: str, tokenizer: Tokenizer, n_ctx: int) -> None:
    """Refuse a text by its size alone: cutting 10 MB into tokens would take seconds and end in a
    refusal.
    """
    n_bytes = len(text.encode("utf-8", "replace"))
    if tokenizer.max_token_bytes is not None and n_bytes > tokenizer.max_token_bytes * n_ctx:
        raise ContextLengthError(
            f"a text of {n_bytes:,} bytes is more than the context of {n_ctx} tokens can hold",
            hint=LENGTH_HINT,
            cli_hint=CLI_LENGTH_HINT,
        )
