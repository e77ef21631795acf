"""The reference in torch, run on a verification's probes, and behind the methods of a Session."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from gpt_edge.arrays import FloatArray, IntArray
from gpt_edge.config import GPTConfig
from gpt_edge.reference.checkpoint import task_model_of
from gpt_edge.reference.heads import TaskModel
from gpt_edge.reference.importers import Checkpoint
from gpt_edge.reference.model import GPT, KeyValue
from gpt_edge.runtime.batching import batches, pad
from gpt_edge.verify.classifiers import ClassifierSubject, TaskProbes
from gpt_edge.verify.language_models import N_GREEDY, N_PROMPT, LanguageModelSubject, Outputs
from gpt_edge.verify.parity import Probe
from gpt_edge.verify.subject import Subject

BATCH = 16  # sequences of a classifier at once


def run_reference(checkpoint: Checkpoint, subject: Subject) -> Any:
    """The subject's outputs by torch in float32. The model is loaded and dropped here, so that its
    memory is free afterwards.
    """
    outputs: Any
    if isinstance(subject, ClassifierSubject):
        outputs = classifier_logits(task_model_of(checkpoint), subject.probes)
    else:
        assert isinstance(subject, LanguageModelSubject)
        outputs = language_model_outputs(checkpoint.load_model(), subject.probes)
    _return_freed_memory()
    return outputs


def _return_freed_memory() -> None:
    """Give freed memory back to the system. glibc keeps arrays below 32 MB, most of GPT-2 XL's
    6 GB, for the next one.
    """
    # not in musl
    if sys.platform.startswith("linux") and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def language_model_outputs(model: GPT, probes: list[Probe]) -> Outputs:
    """Logits of every probe, and greedy tokens with their margins."""
    logits = language_model_logits(model, probes)
    with torch.inference_mode():
        tokens, margins = reference_greedy(model, probes[0].ids[:N_PROMPT], N_GREEDY)
    return Outputs(logits, tokens, margins)


def reference_model(checkpoint: Checkpoint) -> GPT | TaskModel:
    """The model of a checkpoint, with its head if it has one. Raises CheckpointError."""
    return checkpoint.load_model() if checkpoint.task is None else task_model_of(checkpoint)


def language_model_logits(model: GPT, probes: list[Probe]) -> list[FloatArray]:
    """Logits [rows, V] of every probe."""
    with torch.inference_mode():
        return [_probe_logits(model, probe) for probe in probes]


def _probe_logits(model: GPT, probe: Probe) -> FloatArray:
    hidden, _ = model.hidden(torch.from_numpy(probe.ids)[None])
    return model.lm_head(hidden[0, list(probe.compared_rows)]).numpy()  # type: ignore[no-any-return]


def reference_greedy(
    model: GPT, prompt: IntArray, n_new: int
) -> tuple[list[int], tuple[float, ...]]:
    """The most likely continuation with the reference's cache, and the logit margin of each choice.

    Ends where the context is full.
    """
    ids = torch.from_numpy(prompt)[None]
    past = None
    tokens: list[int] = []
    margins: list[float] = []
    with torch.inference_mode():
        for _ in range(min(n_new, model.config.n_ctx - prompt.size)):
            logits, past = model(ids, None, past)
            best = logits[0, -1].topk(min(2, model.config.vocab_size))
            tokens.append(int(best.indices[0]))
            margins.append(float(best.values[0] - best.values[-1]))
            ids = torch.tensor([tokens[-1:]])
    return tokens, tuple(margins)


def classifier_logits(model: TaskModel, probes: TaskProbes) -> FloatArray:
    """Logits as `Encoder.logits`, by torch in float32, in batches of like lengths."""
    if model.spec.reads_every_token:
        return _token_logits(model, probes)
    per_example = 2 if model.spec.kind == "similarity" else 1
    n_label = model.spec.n_label
    logits = np.empty((len(probes.sequences) // per_example, n_label), np.float32)
    with torch.inference_mode():
        for rows in batches([len(ids) for ids in probes.sequences], BATCH, per_example):
            ids, lengths = pad([probes.sequences[row] for row in rows])
            batch, _ = model(torch.from_numpy(ids), torch.from_numpy(lengths - 1))
            logits[rows[::per_example] // per_example] = batch.reshape(-1, n_label).numpy()
    return logits


def _token_logits(model: TaskModel, probes: TaskProbes) -> FloatArray:
    with torch.inference_mode():
        logits = [
            model(torch.tensor([ids]), torch.tensor([len(ids) - 1]))[0][0].numpy()
            for ids in probes.sequences
        ]
    return np.concatenate(logits)


class ReferenceCache:
    """Keys and values of each row, as torch returned them."""

    def __init__(self, batch: int) -> None:
        self.rows: list[list[KeyValue] | None] = [None] * batch

    def crop(self, length: int) -> None:
        """Forget what follows the first `length` tokens of every row."""
        self.rows = [
            row and [(k[:, :, :length], v[:, :, :length]) for k, v in row] for row in self.rows
        ]


class ReferenceRunner:
    """The reference with the methods of a Session, so that its execution paths can be compared."""

    def __init__(self, model: GPT) -> None:
        self._model = model

    @property
    def config(self) -> GPTConfig:
        """Shape of the model."""
        return self._model.config

    def new_cache(self, batch: int = 1) -> ReferenceCache:
        """An empty cache."""
        return ReferenceCache(batch)

    def forward(
        self,
        ids: Any,
        cache: ReferenceCache,
        logit_rows: str | Sequence[int] = "last",
        *,
        row: int | None = None,
    ) -> FloatArray:
        """As Session.forward; each row is run by itself."""
        rows = range(len(cache.rows)) if row is None else (row,)
        tokens = torch.from_numpy(np.array(ids, np.int64))
        if isinstance(logit_rows, str):
            logit_rows = range(tokens.shape[1]) if logit_rows == "all" else [tokens.shape[1] - 1]
        positions = torch.tensor(list(logit_rows))
        logits = []
        with torch.inference_mode():
            for index, sequence in zip(rows, tokens, strict=True):
                hidden, cache.rows[index] = self._model.hidden(
                    sequence[None], None, cache.rows[index]
                )
                logits.append(self._model.lm_head(hidden[0, positions]).numpy())
        return np.stack(logits)
