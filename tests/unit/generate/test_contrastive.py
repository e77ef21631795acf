"""Contrastive search on the built-in model: where it is greedy, how it ends, what it refuses."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import gpt_edge
from gpt_edge.arrays import FloatArray
from gpt_edge.errors import BundleError
from gpt_edge.generate.contrastive import ContrastiveParams
from gpt_edge.generate.generator import Generator
from gpt_edge.runtime.session import Session
from tests.conftest import REPO


@pytest.fixture(scope="module")
def model() -> Generator:
    return gpt_edge.load()


def no_penalty(top_k: int) -> ContrastiveParams:
    return ContrastiveParams(penalty_alpha=0.0, top_k=top_k)


@pytest.mark.parametrize(
    "contrastive", [no_penalty(1), no_penalty(5), ContrastiveParams(0.9, 1)], ids=str
)
def test_without_a_penalty_or_a_choice_it_is_greedy(
    model: Generator, contrastive: ContrastiveParams
) -> None:
    for prompt in ("Once upon a time", "a"):
        expected = model.complete(prompt, max_new_tokens=24, logprobs=2)
        done = model.contrastive_search(
            prompt, contrastive=contrastive, max_new_tokens=24, logprobs=2
        )
        assert (done.ids, done.text) == (expected.ids, expected.text)
        assert done.finish_reason == expected.finish_reason
        assert done.logprobs is not None
        assert expected.logprobs is not None
        for one, other in zip(done.logprobs, expected.logprobs, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_a_penalty_repeats_less(model: Generator) -> None:
    params = gpt_edge.SamplingParams(max_new_tokens=150, ignore_end_token=True)
    greedy = model.complete("The sun is", params)
    done = model.contrastive_search("The sun is", params)
    assert n_triples(done.ids) > n_triples(greedy.ids)


def n_triples(ids: tuple[int, ...]) -> int:
    """How many different three tokens in a row."""
    return len(set(zip(ids, ids[1:], ids[2:], strict=False)))


def test_pieces_stops_and_cancelling(model: Generator) -> None:
    pieces: list[str] = []
    whole = model.contrastive_search("Once upon a time", max_new_tokens=30, on_text=pieces.append)
    assert "".join(pieces) == whole.text
    stop = whole.text[len(whole.text) // 2 :][:3]
    cut = model.contrastive_search("Once upon a time", max_new_tokens=30, stop=(stop,))
    assert (cut.text, cut.finish_reason) == (whole.text[: whole.text.index(stop)], "stop")
    cancel = threading.Event()
    done = model.contrastive_search(
        "Once upon a time", max_new_tokens=30, cancel=cancel, on_text=lambda piece: cancel.set()
    )
    assert done.finish_reason == "cancelled"
    assert 0 < len(done.ids) < len(whole.ids)
    assert whole.text.startswith(done.text)


def test_a_long_prompt_is_cancelled_between_chunks_and_remembered(model: Generator) -> None:
    text = "the cat and the dog " * 60
    n_prompt = len(model.tokenizer.encode(text))
    asked: list[int] = []

    class AfterOneChunk(threading.Event):
        def is_set(self) -> bool:
            asked.append(1)
            return len(asked) > 1

    prefixes = gpt_edge.PrefixCache(10**8)
    model.prefix_cache = prefixes
    try:
        done = model.contrastive_search(text, max_new_tokens=4, cancel=AfterOneChunk())
        assert (done.ids, done.finish_reason, len(asked)) == ((), "cancelled", 2)
        whole = model.contrastive_search(text, max_new_tokens=4)
        assert whole.finish_reason == "length"
        assert model.complete(text, max_new_tokens=1).cached_tokens == n_prompt - 1
    finally:
        model.prefix_cache = None


def test_it_ends_before_the_context_does(model: Generator) -> None:
    done = model.contrastive_search("Once upon a time", max_new_tokens=4000, ignore_end_token=True)
    assert done.finish_reason == "context_full"
    assert done.prompt_tokens + len(done.ids) == model.session.config.n_ctx


def test_hidden_states_are_those_of_one_call(model: Generator) -> None:
    """However a text is cut into calls, and beside whatever rows; int8 rounds the activations of
    another call in another way.
    """
    session = model.session
    ids = np.arange(40)[None] % session.config.vocab_size
    whole = hidden_of(session, [ids])
    limit = 0.1 * float(whole.std())
    parts = hidden_of(session, [ids[:, :7], ids[:, 7:8], ids[:, 8:]])
    assert np.abs(parts - whole).max() < limit
    twice = np.concatenate([ids, ids[:, ::-1]])
    both = hidden_of(session, [twice[:, :39], twice[:, 39:]], rows=2)
    assert np.abs(both - whole).max() < limit


def hidden_of(session: Session, parts: list[FloatArray], rows: int = 1) -> FloatArray:
    """Of the first row [T, C]."""
    cache = session.new_cache(rows)
    found = []
    for part in parts:
        hidden = np.full((*part.shape, session.config.n_embd), np.nan, np.float32)
        session.forward(part, cache, hidden=hidden)
        found.append(hidden[0])
    return np.concatenate(found)


def test_what_it_does_not_take_is_a_value_error(model: Generator) -> None:
    for settings, expected in (
        ({"temperature": 0.5}, "no sampling settings"),
        ({"constraint": {"choice": ["a"]}}, "no constraint"),
        ({"prompt_logprobs": 1}, "no prompt_logprobs"),
        ({"contrastive": 4}, "contrastive must be a ContrastiveParams, got 4"),
        ({"on_text": 3}, "on_text"),
    ):
        with pytest.raises(ValueError, match=expected):
            model.contrastive_search("a", **settings)  # type: ignore[arg-type]
    for field, value in (("penalty_alpha", 1.5), ("penalty_alpha", True), ("top_k", 0)):
        with pytest.raises(ValueError, match=f"{field} must be .* got {value}"):
            ContrastiveParams(**{field: value})  # type: ignore[arg-type]
    session = model.session
    with pytest.raises(ValueError, match=r"hidden must be float32 \[1, 2, "):
        session.forward([[1, 2]], session.new_cache(), hidden=np.zeros((1, 1, 3), np.float32))


@pytest.mark.parametrize("name", ["tiny-edge", "tiny-portable"])
def test_a_graph_without_hidden_states_says_so(name: str) -> None:
    """As those of older bundles are."""
    model = gpt_edge.load(REPO / "tests" / "golden" / name)
    with pytest.raises(BundleError, match="gives no hidden states"):
        model.contrastive_search("a")
