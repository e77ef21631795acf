"""A random base, and adapters of it as `finetune --lora-rank` leaves them, without the time that
training takes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gpt_edge.bundle.gate.adapter import HEAD_BIAS, HEAD_WEIGHT
from gpt_edge.config import GPTConfig
from gpt_edge.export.weights.base_source import adapted
from gpt_edge.reference.checkpoint import save_checkpoint, task_model_of
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.reference.trained_adapter import TrainedAdapter, adapter_shapes, base_hash
from gpt_edge.tasks import EMBEDDING, TaskSpec, new_task
from tests.support.finetune_factory import byte_tokenizer
from tests.support.models import random_model

# as finetune_factory.LARGER: traced by others, too
SHAPE = GPTConfig(n_layer=2, n_head=2, n_embd=32, n_ctx=128, vocab_size=257)
RANK = 3


def save_base(folder: Path, config: GPTConfig = SHAPE, seed: int = 0) -> Path:
    """A random language model with one token for each byte."""
    tokenizer = byte_tokenizer()
    state = random_model(config, seed).state_dict()
    save_checkpoint(folder, config, state, tokenizer if config.vocab_size == 257 else None, {})
    return folder


def task_of(kind: str, n_text: int) -> TaskSpec:
    """A task of that kind."""
    labels = () if kind in ("multiple-choice", EMBEDDING) else ("low", "middle", "high")
    dimensions = 6 if kind == EMBEDDING else None
    return new_task(kind, n_text, labels, dimensions=dimensions)


def save_adapted(
    folder: Path, base: Path, kind: str = "classification", rank: int = RANK, seed: int = 5
) -> Path:
    """A merged checkpoint with the adapter beside it: products about as large as the weights."""
    opened = open_checkpoint(base)
    n_text = opened.config.vocab_size
    task, rng = task_of(kind, n_text), np.random.default_rng(seed)
    shapes = adapter_shapes(opened.config, rank)
    shapes |= {
        HEAD_WEIGHT: (task.n_label, opened.config.n_embd),
        HEAD_BIAS: (task.n_label,),
    }
    arrays = {
        name: (rng.standard_normal(shape) * 0.2).astype(np.float32)
        for name, shape in shapes.items()
    }
    model = task_model_of(adapted(opened, n_text, arrays, task))
    own = {name: arrays[name] for name in adapter_shapes(opened.config, rank)}
    trained = TrainedAdapter(rank, base_hash(opened.config, opened.tensor, n_text), own)
    tokenizer = byte_tokenizer() if n_text == 257 else None
    save_checkpoint(folder, model.config, model.tensors(), tokenizer, {}, task, trained)
    return folder
