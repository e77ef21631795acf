"""RELIABILITY N1, N3, N4 and N6 on tiny models of every kind: shapes, splits, chunks and repeats must not matter.

Everyday runs take a part of the cases, the slow set all of them.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gpt_edge import parity
from gpt_edge.parity import FloatArray, IntArray
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.reference.model import GPT
from gpt_edge.sampling import SamplingParams
from gpt_edge.session import Session
from gpt_edge.stream import TokenStream
from tests.parity.conftest import Export
from tests.parity.models import TINY

KINDS = tuple(TINY)
# max |difference| of float32 logits: N1 allows 1e-3, with 1e-4 as its goal; N3 and N4 allow 1e-4.
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=KINDS)
def both(request: pytest.FixtureRequest, export: Export, checkpoints: dict[str, Path]) -> tuple[Session, GPT]:
    """The fp32 bundle of one kind, and the reference it was made from."""
    bundle, _ = export(request.param, "edge", "fp32")
    return Session(bundle, threads=1), open_checkpoint(checkpoints[request.param]).load_model()


def reference(model: GPT, ids: IntArray) -> tuple[FloatArray, list[tuple[FloatArray, FloatArray]]]:
    """Logits [B, T, V] and keys and values of the whole sequences at once."""
    with torch.inference_mode():
        logits, present = model(torch.from_numpy(ids))
    return logits.numpy(), [(key.numpy(), value.numpy()) for key, value in present]


def check_random_shapes(session: Session, model: GPT, n_cases: int) -> None:
    """N1: batch 1 to 4, any past, any number of new tokens; presents too; tokens equal but for ties of torch's own."""
    config, rng = session.config, np.random.default_rng(1)
    for _ in range(n_cases):
        batch, past = int(rng.integers(1, 5)), int(rng.integers(0, config.n_ctx))
        new = int(rng.integers(1, config.n_ctx - past + 1))
        ids = rng.integers(0, config.vocab_size, (batch, past + new))
        wanted, present = reference(model, ids)
        cache = session.new_cache(batch)
        if past:
            session.forward(ids[:, :past], cache, "last")
        found = session.forward(ids[:, past:], cache, "all")
        case = (batch, past, new)
        assert np.abs(found - wanted[:, past:]).max() <= TOLERANCE, case
        best = np.sort(wanted[:, past:], -1)
        clear = best[..., -1] - best[..., -2] > 2e-3
        assert (found.argmax(-1) == wanted[:, past:].argmax(-1))[clear].all(), case
        for array, side in zip(cache.arrays, [side for layer in present for side in layer], strict=True):
            assert np.abs(array[:, :, : past + new, : config.head_size] - side).max() <= TOLERANCE, case


def test_any_shape_says_what_torch_says(both: tuple[Session, GPT]) -> None:
    check_random_shapes(*both, n_cases=40)


@pytest.mark.slow
def test_a_thousand_shapes_say_what_torch_says(both: tuple[Session, GPT]) -> None:
    check_random_shapes(*both, n_cases=1000)


def check_splits(session: Session, n_sequences: int) -> None:
    """N3: a prefix, then the rest, equals the whole, at every split."""
    config, rng = session.config, np.random.default_rng(2)
    length = min(config.n_ctx, 64)
    for _ in range(n_sequences):
        ids = rng.integers(0, config.vocab_size, (1, length))
        whole = session.forward(ids, session.new_cache(), "all")
        for split in range(1, length):
            cache = session.new_cache()
            session.forward(ids[:, :split], cache, "last")
            rest = session.forward(ids[:, split:], cache, "all")
            assert np.abs(rest - whole[:, split:]).max() <= TOLERANCE, split
            assert (rest.argmax(-1) == whole[:, split:].argmax(-1)).all(), split


def test_decode_after_prefill_equals_one_full_forward(both: tuple[Session, GPT]) -> None:
    check_splits(both[0], n_sequences=5)


@pytest.mark.slow
def test_every_split_of_a_hundred_sequences(both: tuple[Session, GPT]) -> None:
    check_splits(both[0], n_sequences=100)


def check_chunks(session: Session, n_prompts: int, n_new: int, longest: int | None = None) -> None:
    """N4: prompts in chunks of any size give the same logits, the same cache and the same greedy tokens."""
    config, rng = session.config, np.random.default_rng(3)
    for _ in range(n_prompts):
        length = int(rng.integers(1, min(config.n_ctx - 1, longest or config.n_ctx)))
        probe = parity.Probe("ids", rng.integers(0, config.vocab_size, length))
        whole = parity.answer(session, probe)
        reference_cache = session.new_cache()
        session.forward(probe.ids[None], reference_cache, "last")
        tokens = None
        for chunk in (1, 7, 37, 64, 128, 512):
            assert np.abs(parity.answer(session, probe, chunk) - whole).max() <= TOLERANCE, (length, chunk)
            cache = session.new_cache()
            for start in range(0, length, chunk):
                last = session.forward(probe.ids[None, start : start + chunk], cache, "last")
            for array, side in zip(cache.arrays, reference_cache.arrays, strict=True):
                assert np.abs(array[:, :, :length] - side[:, :, :length]).max() <= TOLERANCE, (length, chunk)
            found = [int(last[0, 0].argmax())]
            while len(found) < min(n_new, config.n_ctx - length):
                found.append(int(session.decode(found[-1:], cache)[0].argmax()))
            tokens = tokens or found
            assert found == tokens, (length, chunk)


def test_chunked_prefill_changes_nothing(both: tuple[Session, GPT]) -> None:
    check_chunks(both[0], n_prompts=6, n_new=16)


@pytest.mark.slow
def test_two_hundred_chunked_prompts_continue_alike(both: tuple[Session, GPT]) -> None:
    check_chunks(both[0], n_prompts=200, n_new=64)


def check_repeats(session: Session, n_repeats: int) -> None:
    """N6: the same seed gives the same ids, whatever other traffic there was."""
    words: Any = SimpleNamespace(vocab_size=session.config.vocab_size, end_token=None)  # what ids need of a tokenizer
    params = SamplingParams(max_new_tokens=12, top_k=40, seed=5)
    first = list(TokenStream(session, [1, 2, 3], params, words, None))
    assert len(first) == 12
    for _ in range(n_repeats - 1):
        list(TokenStream(session, [4], SamplingParams(max_new_tokens=2, top_k=3), words, None))  # other traffic
        assert list(TokenStream(session, [1, 2, 3], params, words, None)) == first


@pytest.mark.parametrize("scheme", ["fp32", "int8", "int8-block", "int4"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_ids_a_hundred_times(kind: str, scheme: str, export: Export) -> None:
    check_repeats(Session(export(kind, "edge", scheme)[0], threads=1), 100)
