"""The inputs of a fine-tuning run: the model with the task's tokens and head, its tokenizer, the
examples as ids.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt_edge.arrays import IntArray
from gpt_edge.data.examples import Example, read_examples
from gpt_edge.data.labels import balance, class_labels, label_numbers
from gpt_edge.data.tables import SkippedRows
from gpt_edge.errors import GPTEdgeWarning, TokenizerError, TrainingError
from gpt_edge.evaluate import Score
from gpt_edge.reference.heads import TaskModel, with_task_tokens, without_task_tokens
from gpt_edge.reference.importers import Checkpoint, open_checkpoint
from gpt_edge.reference.model import GPT
from gpt_edge.tasks import EMBEDDING, MULTI_LABEL, TaskSpec, n_text_rows, new_task
from gpt_edge.tokenizer.discover import find_tokenizer, tokenizer_from
from gpt_edge.tokenizer.load import build_tokenizer
from gpt_edge.tokenizer.rows import fit_source, fit_to_rows
from gpt_edge.tokenizer.spec import Tokenizer, TokenizerSource
from gpt_edge.training.corpus.batches import encode_documents, read_documents
from gpt_edge.training.finetune.batches import (
    EncodedExamples,
    encode,
    split_examples,
)
from gpt_edge.training.finetune.lora import check_rank
from gpt_edge.training.finetune.settings import FinetuneData, FinetuneSettings
from gpt_edge.training.validation import score_in_torch


@dataclass(frozen=True)
class FinetuneInputs:
    """Everything that a run needs. `model` has its initial weights; `documents` are those of the
    forgetting text, none without one.
    """

    model: TaskModel
    spec: TaskSpec
    tokenizer: TokenizerSource
    train: EncodedExamples
    dev: EncodedExamples | None
    test: EncodedExamples | None
    balance: dict[str, int]  # of the training examples' labels
    vocab_size: int  # of the language model without the task's tokens
    documents: list[IntArray]
    n_bytes: int  # of the documents' texts

    def forgetting(self, model: TaskModel) -> Score | None:
        """How well `model` still predicts the forgetting text, without the task's tokens; None
        without such a text.
        """
        if not self.documents:
            return None
        gpt = without_task_tokens(model.gpt, self.vocab_size)
        return score_in_torch(gpt, self.documents, self.n_bytes, gpt.config.n_ctx, "float32")

    def described(self) -> dict[str, Any]:
        """Plain JSON values: numbers of examples and tokens, how many were truncated, and how often
        each label occurs.
        """
        values: dict[str, Any] = {}
        for name, part in (("train", self.train), ("dev", self.dev), ("test", self.test)):
            if part is not None:
                values[name] = {
                    "n_examples": len(part),
                    "n_tokens": part.n_tokens,
                    "n_truncated_examples": part.n_truncated_examples,
                    "n_truncated_tokens": part.n_truncated_tokens,
                }
        if not self.spec.is_score:
            values["balance"] = self.balance
        return values


def open_inputs(
    checkpoint: Path,
    data: FinetuneData,
    settings: FinetuneSettings,
    tokenizer: str | None = None,
    *,
    config: Path | None = None,
    adapter: str | None = None,
) -> FinetuneInputs:
    """Read everything. The head and the new embeddings come from torch's random numbers. Raises as
    `finetune`.
    """
    examples = _read_all(data, settings)  # first: a fault there costs the least time
    opened = open_checkpoint(checkpoint, config=config, adapter=adapter)
    tokenizer_source = _tokenizer_of(opened, tokenizer)
    encoder = fit_to_rows(build_tokenizer(tokenizer_source), _n_rows(opened))
    labels: tuple[str, ...] = ()
    if settings.has_classes:
        labels = class_labels(data.train, examples["train"], settings.multi_label)
    if settings.lora_rank is not None:
        check_rank(settings.lora_rank, opened.config)
    gpt, spec = _with_tokens(opened, settings, labels)
    paths = {"train": data.train, "dev": data.dev or data.train, "test": data.test or data.train}
    encoded = {}
    for name, examples_of_set in examples.items():
        labels_of_set = label_numbers(paths[name], examples_of_set, spec)
        try:
            encoded[name] = encode(spec, encoder, examples_of_set, labels_of_set, gpt.config.n_ctx)
        except TrainingError as error:
            raise TrainingError(f"{paths[name]}, {error.message}") from error
    documents, n_bytes = _forgetting_documents(data, encoder)
    return FinetuneInputs(
        model=TaskModel(gpt, spec),
        spec=spec,
        tokenizer=tokenizer_source,
        train=encoded["train"],
        dev=encoded.get("dev"),
        test=encoded.get("test"),
        balance=balance(examples["train"]),
        vocab_size=min(spec.tokens),
        documents=documents,
        n_bytes=n_bytes,
    )


def _read_all(data: FinetuneData, settings: FinetuneSettings) -> dict[str, list[Example]]:
    columns = data.columns_for(settings)
    sets = {}
    for name, path in (("train", data.train), ("dev", data.dev), ("test", data.test)):
        if path is not None:
            skipped = SkippedRows() if data.skip_bad_rows else None
            sets[name] = read_examples(path, columns, data.format, skipped)
            if skipped is not None and skipped.count:
                warnings.warn(f"{path}: {skipped}", GPTEdgeWarning, stacklevel=2)
    if data.hold_out:
        by_label = settings.has_classes and not settings.multi_label
        sets["train"], sets["dev"] = split_examples(
            sets["train"], data.hold_out, settings.seed, by_label
        )
    return sets


def _tokenizer_of(opened: Checkpoint, named: str | None) -> TokenizerSource:
    folder = opened.path if opened.path.is_dir() else opened.path.parent
    source = tokenizer_from(named) if named is not None else find_tokenizer(folder)
    if source is None:
        raise TokenizerError(
            f"{opened.path} has no tokenizer beside it", hint="name one: --tokenizer FILE|NAME"
        )
    return fit_source(source, _n_rows(opened))


def _n_rows(opened: Checkpoint) -> int:
    """Of the embedding, for texts: the task's tokens take the ids after them, also where the
    tokenizer has tokens of those ids.
    """
    return n_text_rows(opened.config.vocab_size, opened.task)


def _with_tokens(
    opened: Checkpoint, settings: FinetuneSettings, labels: Sequence[str]
) -> tuple[GPT, TaskSpec]:
    """The GPT with the task's three tokens, and the task. A model that was fine-tuned before keeps
    its tokens.
    """
    gpt = opened.load_model()
    if settings.from_scratch:
        gpt = GPT(gpt.config)
    problem = MULTI_LABEL if settings.multi_label else None
    is_embedding = settings.kind == EMBEDDING
    dimensions = (settings.dimensions or gpt.config.n_embd) if is_embedding else None
    if opened.task is not None and opened.task.tokens:
        return gpt, dataclasses.replace(
            opened.task,
            kind=settings.kind,
            labels=tuple(labels),
            score_range=settings.score_range,
            problem=problem,
            dimensions=dimensions,
            temperature=None,
            thresholds=(),
        )
    return with_task_tokens(gpt), new_task(
        settings.kind, gpt.config.vocab_size, labels, settings.score_range, problem, dimensions
    )


def _forgetting_documents(data: FinetuneData, tokenizer: Tokenizer) -> tuple[list[IntArray], int]:
    """The forgetting text's documents, each between end tokens if the tokenizer has one, and their
    bytes.
    """
    if data.forgetting_text is None:
        return [], 0
    texts = read_documents(data.forgetting_text, data.separator)
    documents = encode_documents(texts, tokenizer)
    if (shortest := min(map(len, documents))) < 2:
        raise TrainingError(
            f"{data.forgetting_text} has a document of {shortest} token, expected at least 2"
        )
    return documents, sum(len(text.encode()) for text in texts)
