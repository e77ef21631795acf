from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_edge.arrays import IntArray
from gpt_edge.config import GPTConfig
from gpt_edge.evaluate import windows
from gpt_edge.reference.model import GPT
from gpt_edge.training.validation import score_in_torch

CONFIG = GPTConfig(n_layer=1, n_head=2, n_embd=16, n_ctx=24, vocab_size=50)


def documents(lengths: list[int]) -> list[IntArray]:
    rng = np.random.default_rng(0)
    return [np.array([49, *rng.integers(0, 49, n), 49]) for n in lengths]


@settings(deadline=None, max_examples=60)
@given(length=st.integers(1, 200), context=st.integers(2, 40))
def test_windows_count_every_target_once_with_half_a_context_before_it(
    length: int, context: int
) -> None:
    document = np.arange(length + 1)
    seen = []
    for ids, n_counted in windows(document, context):
        assert len(ids) <= context + 1
        assert n_counted >= context // 2 or ids[0] == 0
        seen += ids[1 + n_counted :].tolist()
    assert seen == list(range(1, length + 1))


def test_a_model_that_knows_nothing_needs_log2_of_the_vocabulary() -> None:
    model = GPT(CONFIG)
    with torch.no_grad():
        model.wte.weight.zero_()
    some = documents([5, 30, 100])
    score = score_in_torch(model, some, n_bytes=200, context=24, precision="float32")
    n_tokens = 5 + 30 + 100 + 3
    assert score.n_tokens == n_tokens
    assert score.loss == pytest.approx(math.log(50), rel=1e-6)
    assert score.bits_per_byte == pytest.approx(n_tokens * math.log2(50) / 200, rel=1e-6)


def test_batching_changes_nothing() -> None:
    """Against the slow way: one window at a time, one token at a time."""
    torch.manual_seed(0)
    model = GPT(CONFIG, dropout=0.5)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    some = documents([5, 60, 23, 24, 7])
    model.train()
    score = score_in_torch(model, some, n_bytes=100, context=24, precision="float32")
    assert model.training  # left as it was
    model.eval()
    total, n_tokens = 0.0, 0
    for document in some:
        for ids, n_counted in windows(document, 24):
            surprise = -torch.log_softmax(model(torch.from_numpy(ids[None, :-1]))[0][0], dim=-1)
            for i in range(n_counted, len(ids) - 1):
                total += surprise[i, ids[i + 1]].item()
                n_tokens += 1
    assert score.n_tokens == n_tokens
    assert score.loss == pytest.approx(total / n_tokens, rel=1e-5)
