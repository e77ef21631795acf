"""What must not change a model's answer, on tiny models of every kind: shapes, splits, chunks,
batches, rewinding, repeats.

Everyday runs take a part of the cases, the slow set all of them.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gpt_edge.arrays import FloatArray, IntArray
from gpt_edge.config import GPTConfig
from gpt_edge.evaluate.measures import kl_divergence, log_softmax
from gpt_edge.export.formats.rounding import quantize_weight
from gpt_edge.export.formats.tensor_format import TensorFormat
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.prompt import Prompt
from gpt_edge.generate.stream import TokenStream
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.reference.model import GPT
from gpt_edge.runtime.session import Session
from gpt_edge.verify import parity
from tests.parity.conftest import Export
from tests.support.models import TINY, save_random

KINDS = tuple(TINY)
TOLERANCE = 1e-4  # max |difference| of float32 logits: summation order
MEAN_KL = 1e-7  # nats
MAX_CHUNK = 256  # tokens
NEAR_TIE = 2e-3  # logits: which of two tokens torch itself prefers is then chance
# room for a past and MAX_CHUNK behind it
LONG = GPTConfig(n_layer=2, n_head=2, n_embd=24, n_ctx=400, vocab_size=131)


@pytest.fixture(scope="module", params=KINDS)
def both(
    request: pytest.FixtureRequest, export: Export, checkpoints: dict[str, Path]
) -> tuple[Session, GPT]:
    """The fp32 bundle of one kind, and the reference it was made from."""
    bundle, _ = export(request.param, "edge", "fp32")
    return Session(bundle, threads=1), open_checkpoint(checkpoints[request.param]).load_model()


def few_and_many(few: Any, many: Any) -> list[Any]:
    """The number of cases of an everyday run, and of the slow set."""
    return [
        few,
        pytest.param(*(many if isinstance(many, tuple) else (many,)), marks=pytest.mark.slow),
    ]


def reference(model: GPT, ids: IntArray) -> tuple[FloatArray, list[tuple[FloatArray, FloatArray]]]:
    """Logits [B, T, V] and keys and values of the whole sequences at once."""
    with torch.inference_mode():
        logits, present = model(torch.from_numpy(ids))
    return logits.numpy(), [(key.numpy(), value.numpy()) for key, value in present]


def mean_kl(first: FloatArray, second: FloatArray) -> float:
    """KL(first || second) in nats, of logits [B, T, V]."""
    return float(kl_divergence(log_softmax(first), log_softmax(second)).mean())


def check_random_shapes(session: Session, model: GPT, n_cases: int) -> None:
    """Batch 1 to 4, any past, any number of new tokens; presents too; tokens equal but for ties of
    torch's own.
    """
    config, rng = session.config, np.random.default_rng(1)
    for _ in range(n_cases):
        batch, past = int(rng.integers(1, 5)), int(rng.integers(0, config.n_ctx))
        new = int(rng.integers(1, min(MAX_CHUNK, config.n_ctx - past) + 1))
        ids = rng.integers(0, config.vocab_size, (batch, past + new))
        wanted, present = reference(model, ids)
        cache = session.new_cache(batch)
        if past:
            session.forward(ids[:, :past], cache, "last")
        found = session.forward(ids[:, past:], cache, "all")
        case = (batch, past, new)
        assert np.abs(found - wanted[:, past:]).max() <= TOLERANCE, case
        assert mean_kl(wanted[:, past:], found) <= MEAN_KL, case
        best = np.sort(wanted[:, past:], -1)
        clear = best[..., -1] - best[..., -2] > NEAR_TIE
        assert (found.argmax(-1) == wanted[:, past:].argmax(-1))[clear].all(), case
        for array, side in zip(
            cache.arrays, [side for layer in present for side in layer], strict=True
        ):
            assert (
                np.abs(array[:, :, : past + new, : config.head_size] - side).max() <= TOLERANCE
            ), case


@pytest.mark.parametrize("n_cases", few_and_many(40, 1000))
def test_any_shape_says_what_torch_says(both: tuple[Session, GPT], n_cases: int) -> None:
    check_random_shapes(*both, n_cases)


@pytest.mark.slow
def test_a_thousand_shapes_with_a_long_past_say_what_torch_says(tmp_path: Path) -> None:
    source = save_random(tmp_path / "source", LONG)
    bundle, _ = export_bundle(source, tmp_path / "out", scheme="fp32", tokenizer="none")
    check_random_shapes(
        Session(bundle, threads=1), open_checkpoint(source).load_model(), n_cases=1000
    )


def check_splits(session: Session, n_sequences: int) -> None:
    """A prefix, then the rest, equals the whole, at every split."""
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


@pytest.mark.parametrize("n_sequences", few_and_many(5, 100))
def test_decode_after_prefill_equals_one_full_forward(
    both: tuple[Session, GPT], n_sequences: int
) -> None:
    check_splits(both[0], n_sequences)


def check_chunks(session: Session, n_prompts: int, n_new: int, longest: int | None = None) -> None:
    """Prompts of up to `longest` tokens, in chunks of any size, give the same logits, cache and
    greedy tokens.
    """
    config, rng = session.config, np.random.default_rng(3)
    for _ in range(n_prompts):
        length = int(rng.integers(1, min(longest or config.n_ctx, config.n_ctx - 1)))
        probe = parity.Probe("ids", rng.integers(0, config.vocab_size, length))
        whole = parity.probe_logits(session, probe)
        tokens, arrays = None, None
        for chunk in (1, 7, 37, 64, 128, 512):
            assert np.abs(parity.probe_logits(session, probe, chunk) - whole).max() <= TOLERANCE, (
                length,
                chunk,
            )
            cache = session.new_cache()
            for start in range(0, length, chunk):
                last = session.forward(probe.ids[None, start : start + chunk], cache, "last")
            read = [array[:, :, :length].copy() for array in cache.arrays]
            found = [int(last[0, 0].argmax())]
            while len(found) < min(n_new, config.n_ctx - length):
                found.append(int(session.decode(found[-1:], cache)[0].argmax()))
            tokens, arrays = tokens or found, arrays or read
            assert found == tokens, (length, chunk)
            for array, other in zip(arrays, read, strict=True):
                assert np.abs(array - other).max() <= TOLERANCE, (length, chunk)


@pytest.mark.parametrize(("n_prompts", "n_new"), few_and_many((6, 16), (200, 64)))
def test_chunked_prefill_changes_nothing(
    both: tuple[Session, GPT], n_prompts: int, n_new: int
) -> None:
    check_chunks(both[0], n_prompts, n_new)


HARD_ROWS = {
    "zeros": np.zeros(64),
    "constant": np.full(64, -0.37),
    "one huge value": np.where(np.arange(64) == 5, 1e30, 1e-3),
    "an outlier": np.where(np.arange(64) == 5, 80.0, np.linspace(-0.1, 0.1, 64)),
    "subnormals": np.linspace(-1e-39, 1e-39, 64),
    "normal": np.sin(np.arange(64.0)),
}


@pytest.mark.parametrize("name", HARD_ROWS)
@pytest.mark.parametrize("block", [16, 64])
def test_no_weight_is_rounded_by_more_than_half_a_step(name: str, block: int) -> None:
    """Below the smallest normal number a step has few digits, or none: what is lost is nothing to a
    sum.
    """
    row = HARD_ROWS[name].astype(np.float32)[None]
    rounded = quantize_weight(row, TensorFormat(8, block), block)
    found, step = rounded.dequantize(64), np.repeat(rounded.scales, block, axis=1)
    assert np.isfinite(found).all()
    assert (np.abs(found - row) <= 0.5 * (1 + 1e-3) * step + np.finfo(np.float32).tiny).all()
    if name == "zeros":
        assert not found.any()


def check_repeats(session: Session, n_repeats: int) -> None:
    """The same seed gives the same ids, whatever other traffic there was."""
    # what ids need of a tokenizer
    words: Any = SimpleNamespace(vocab_size=session.config.vocab_size, end_token=None)
    params = SamplingParams(max_new_tokens=12, top_k=40, seed=5)
    first = list(TokenStream(session, Prompt([1, 2, 3]), params, words, None))
    assert len(first) == 12
    for _ in range(n_repeats - 1):
        # other traffic
        list(
            TokenStream(
                session, Prompt([4]), SamplingParams(max_new_tokens=2, top_k=3), words, None
            )
        )
        assert list(TokenStream(session, Prompt([1, 2, 3]), params, words, None)) == first


def check_batches(session: Session, n_batches: int) -> None:
    """Rows of different lengths in one batch, decoded together, each give what they give alone."""
    config, rng = session.config, np.random.default_rng(4)
    for _ in range(n_batches):
        batch, n_new = int(rng.integers(2, 5)), int(rng.integers(1, 12))
        lengths = [int(n) for n in rng.integers(1, config.n_ctx - n_new, batch)]
        rows = [rng.integers(0, config.vocab_size, (1, length + n_new)) for length in lengths]
        together = session.new_cache(batch)
        for row, (ids, length) in enumerate(zip(rows, lengths, strict=True)):
            session.forward(ids[:, :length], together, "last", row=row)
        steps = []
        for step in range(n_new):
            column = [int(ids[0, length + step]) for ids, length in zip(rows, lengths, strict=True)]
            steps.append(session.decode(column, together).copy())
        for row, (ids, length) in enumerate(zip(rows, lengths, strict=True)):
            alone = session.forward(ids, session.new_cache(), "all")[0, length:]
            found = np.stack([step[row] for step in steps])
            assert np.abs(found - alone).max() <= TOLERANCE, (lengths, row)
            assert (found.argmax(-1) == alone.argmax(-1)).all(), (lengths, row)


@pytest.mark.parametrize("n_batches", few_and_many(10, 200))
def test_a_row_of_a_batch_says_what_it_says_alone(
    both: tuple[Session, GPT], n_batches: int
) -> None:
    check_batches(both[0], n_batches)


def check_rewinding(session: Session, n_cases: int) -> None:
    """A cache that was cropped, read on elsewhere and cropped again is as good as a new one."""
    config, rng = session.config, np.random.default_rng(5)
    for _ in range(n_cases):
        length = int(rng.integers(2, config.n_ctx))
        keep, astray = int(rng.integers(1, length)), int(rng.integers(1, config.n_ctx))
        ids = rng.integers(0, config.vocab_size, (1, length))
        whole = session.forward(ids, session.new_cache(), "all")
        cache = session.new_cache()
        session.forward(ids[:, :keep], cache, "last")
        for _ in range(int(rng.integers(1, 4))):
            session.forward(
                rng.integers(0, config.vocab_size, (1, min(astray, config.n_ctx - keep))),
                cache,
                "last",
            )
            cache.crop(keep)
        rest = session.forward(ids[:, keep:], cache, "all")
        assert np.abs(rest - whole[:, keep:]).max() <= TOLERANCE, (length, keep, astray)


@pytest.mark.parametrize("n_cases", few_and_many(30, 1000))
def test_a_rewound_cache_is_as_good_as_a_new_one(both: tuple[Session, GPT], n_cases: int) -> None:
    check_rewinding(both[0], n_cases)


def check_quantized_steps(session: Session, n_sequences: int) -> None:
    """Schemes that round row by row: steps and chunks choose what the whole prompt chooses, but for
    near ties.
    """
    config, rng = session.config, np.random.default_rng(6)
    probes = [
        parity.Probe(
            f"{i}", rng.integers(0, config.vocab_size, int(rng.integers(2, config.n_ctx + 1)))
        )
        for i in range(n_sequences)
    ]
    whole = [parity.probe_logits(session, probe) for probe in probes]
    for chunk in (1, 7):
        found = parity.compare(
            probes, whole, [parity.probe_logits(session, probe, chunk) for probe in probes]
        )
        assert found.unexcused() == [], chunk
        # two near ties are no rate
        assert found.top1 >= 0.999 - 2 / found.n_rows, (chunk, found.top1)


@pytest.mark.parametrize("n_sequences", few_and_many(8, 100))
@pytest.mark.parametrize("scheme", ["int8", "int8-block", "int4"])
@pytest.mark.parametrize("kind", KINDS)
def test_quantized_steps_choose_what_the_whole_prompt_chooses(
    kind: str, scheme: str, export: Export, n_sequences: int
) -> None:
    check_quantized_steps(Session(export(kind, "edge", scheme)[0], threads=1), n_sequences)


@pytest.mark.parametrize("scheme", ["fp32", "int8", "int8-block", "int4"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_ids_a_hundred_times(
    kind: str, scheme: str, export: Export
) -> None:
    check_repeats(Session(export(kind, "edge", scheme)[0], threads=1), 100)
