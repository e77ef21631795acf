"""Random fine-tuned models of every kind and task, with a head whose answers differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gpt_edge.config import GPTConfig
from gpt_edge.reference.checkpoint import save_checkpoint
from gpt_edge.reference.heads import TaskModel, with_task_tokens
from gpt_edge.tasks import new_task
from gpt_edge.tokenizer.spec import TokenizerSource
from tests.support.models import random_model

TASKS: dict[str, dict[str, Any]] = {
    "classification": {"kind": "classification", "labels": ("bad", "fair", "good")},
    "entailment": {"kind": "entailment", "labels": ("yes", "no", "maybe")},
    "similarity": {"kind": "similarity", "labels": ("other", "same")},
    "scores": {"kind": "similarity", "score_range": (0, 5)},
    "multiple-choice": {"kind": "multiple-choice"},
    "embedding": {"kind": "embedding", "dimensions": 12},
    "multi-label": {
        "kind": "classification",
        "labels": ("bad", "fair", "good"),
        "problem": "multi-label",
    },
}


def random_task_model(config: GPTConfig, task: str, seed: int = 0, std: float = 0.15) -> TaskModel:
    """A random GPT with the task's tokens and a random head, in evaluation mode."""
    values = dict(TASKS[task])
    spec = new_task(values.pop("kind"), config.vocab_size, **values)
    torch.manual_seed(3 + seed)
    model = TaskModel(with_task_tokens(random_model(config, seed, std)), spec)
    torch.nn.init.normal_(model.task_head.weight, std=0.5)
    torch.nn.init.normal_(model.task_head.bias, std=0.5)
    return model.eval()


def save_task(
    folder: Path,
    config: GPTConfig,
    task: str,
    words: TokenizerSource | None = None,
    *,
    seed: int = 0,
    std: float = 0.15,
) -> Path:
    """A checkpoint of it."""
    model = random_task_model(config, task, seed, std)
    save_checkpoint(folder, model.config, model.tensors(), words, {}, model.spec)
    return folder
