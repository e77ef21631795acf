"""Damaged checkpoints, tokenizers, recipes and examples: `python -m tests.hostile.importers` tries
more.
"""

from __future__ import annotations

from collections import Counter

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "safetensors",
        "Hugging Face",
        "torch zip",
        "torch legacy",
        "nanoGPT",
        "GPT-1 npy",
        "TensorFlow",
        "rank file",
        "vocab and merges",
        "tokenizer.json",
        "recipe",
        "CSV",
        "JSONL",
    ],
)
def test_a_damaged_file_is_read_right_or_refused_in_one_line(name: str) -> None:
    from tests.hostile.importers import run  # imports torch

    counts: Counter[str] = Counter()
    run(name, 100, counts)
    assert counts["loaded"] + counts["refused"] == 100, counts


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["Hugging Face", "safetensors", "GPT-1 npy", "TensorFlow", "tokenizer.json"],
)
def test_an_odd_value_is_read_right_or_refused_in_one_line(name: str) -> None:
    from tests.hostile.odd_values import run  # imports torch

    counts = run(name)
    assert counts["loaded"] + counts["refused"] == counts.total() > 100, counts
