"""A tiny checkpoint with a byte tokenizer, and tiny sets of examples of each task kind that can be
learned in seconds.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch

from gpt_edge.config import GPTConfig
from gpt_edge.reference.checkpoint import save_checkpoint
from gpt_edge.reference.model import GPT
from gpt_edge.tokenizer.discover import source_from_ranks
from gpt_edge.tokenizer.formats.rank_file import format_ranks
from gpt_edge.tokenizer.spec import TokenizerSource
from gpt_edge.training.finetune.settings import FinetuneSettings

CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=32, n_ctx=48, vocab_size=257)
# room for the probes of an export
LARGER = GPTConfig(n_layer=2, n_head=2, n_embd=32, n_ctx=128, vocab_size=257)
GOOD, BAD = ("good", "fine", "nice", "happy"), ("bad", "poor", "sad", "ugly")
THINGS = ("cat", "dog", "car", "sun", "sea", "tea")


def byte_tokenizer() -> TokenizerSource:
    """One token per byte, and the end token."""
    return source_from_ranks(format_ranks([bytes([value]) for value in range(256)]))


def make_checkpoint(folder: Path, config: GPTConfig = CONFIG) -> Path:
    """A random model."""
    torch.manual_seed(1)
    save_checkpoint(folder, config, GPT(config).state_dict(), byte_tokenizer(), {})
    return folder


def settings(kind: str = "classification", **changes: Any) -> FinetuneSettings:
    """Quick ones; each keyword replaces one."""
    quick = {"epochs": 2, "learning_rate": 3e-3, "batch": 8, "warmup": 0.1, "threads": 1}
    return FinetuneSettings(kind=kind, **{**quick, **changes})


def write_examples(path: Path, kind: str, n: int, seed: int = 0) -> Path:
    """`n` examples with the default column names: TSV, and JSON lines for multiple choice. Scores
    are 0, 2 and 4.
    """
    draw = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for _ in range(n):
        is_good, thing, other = draw.random() < 0.5, draw.choice(THINGS), draw.choice(THINGS)
        word, same = draw.choice(GOOD if is_good else BAD), thing == other
        match kind:
            case "classification":
                rows.append({"text": f"a {word} {thing}", "label": "yes" if is_good else "no"})
            case "entailment":
                rows.append(
                    {"premise": thing, "hypothesis": other, "label": "same" if same else "other"}
                )
            case "similarity":
                words = word, draw.choice(GOOD + BAD)
                score = 2 * sum(word in GOOD for word in words)
                rows.append({"sentence1": words[0], "sentence2": words[1], "score": score})
            case _:
                answers = [draw.choice(GOOD), *draw.sample(BAD, draw.choice((1, 2)))]
                draw.shuffle(answers)
                gold = next(i for i, answer in enumerate(answers) if answer in GOOD)
                rows.append(
                    {"question": f"which of them, {thing}?", "choices": answers, "gold": gold}
                )
    if kind == "multiple-choice":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(
            "\n".join(["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)])
            + "\n"
        )
    return path
