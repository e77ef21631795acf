"""Generator: seeds, batches, cancellation and threads: nothing depends on what ran before or
beside.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gpt_edge.generate.read_sequence
from gpt_edge.errors import GPTEdgeError, NumericError
from gpt_edge.generate.beam_search import BeamParams
from gpt_edge.generate.generator import Generator
from gpt_edge.generate.params import SamplingParams
from tests.support.scripted import Scripted, scripted
from tests.support.tiny_model import GRAPHS, bundle_path, open_generator

SAMPLED = SamplingParams(max_new_tokens=30, temperature=1.2, top_k=40, seed=11)
PROMPT = "the end"


@pytest.fixture(params=GRAPHS)
def generator(request: pytest.FixtureRequest) -> Generator:
    return open_generator(request.param)


def test_the_same_seed_gives_the_same_text_a_hundred_times(generator: Generator) -> None:
    assert len({generator.complete(PROMPT, SAMPLED).text for _ in range(100)}) == 1
    others = {
        generator.complete(PROMPT, SamplingParams(top_k=40, seed=seed)).text for seed in range(10)
    }
    assert len(others) == 10


def test_the_same_seed_gives_the_same_text_in_another_process(generator: Generator) -> None:
    code = (
        "import sys, gpt_edge\n"
        "params = gpt_edge.SamplingParams(max_new_tokens=30, temperature=1.2, top_k=40, seed=11)\n"
        "print(gpt_edge.load(sys.argv[1], threads=1).complete('the end', params).ids)"
    )
    path = bundle_path(generator.session.graph)
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == str(generator.complete(PROMPT, SAMPLED).ids)


def test_without_a_seed_the_completion_names_one_that_repeats_it(generator: Generator) -> None:
    first, second = (
        generator.complete(PROMPT, SamplingParams(top_k=40, max_new_tokens=20)) for _ in range(2)
    )
    assert first.ids != second.ids
    again = generator.complete(PROMPT, SamplingParams(top_k=40, max_new_tokens=20, seed=first.seed))
    assert again.ids == first.ids


PROMPTS = [
    "a",
    "the end",
    "x" * 60,
    "",
    "ing and the rest",
    "é",
    "the end",
    "bb",
    "some words here",
    "q" * 64,
]


def test_a_batch_gives_what_each_prompt_gives_alone(generator: Generator) -> None:
    params = SamplingParams(max_new_tokens=25, temperature=1.1, top_k=40, seed=3, stop=("e",))
    alone = [generator.complete(prompt, params) for prompt in PROMPTS]
    for batch_size in (1, 3, 8, 100):
        together = generator.generate_batch(PROMPTS, params, batch_size=batch_size)
        assert [done.ids for done in together] == [done.ids for done in alone]
        assert [done.text for done in together] == [done.text for done in alone]
        assert [done.finish_reason for done in together] == [done.finish_reason for done in alone]
    assert len({done.finish_reason for done in alone}) > 1


def test_a_batch_takes_params_per_prompt_and_checks_their_number(generator: Generator) -> None:
    each = [SamplingParams(max_new_tokens=n, top_k=40, seed=n) for n in (3, 5, 7)]
    together = generator.generate_batch(["the", "end", "is"], each)
    for prompt, params, done in zip(["the", "end", "is"], each, together, strict=True):
        assert done.ids == generator.complete(prompt, params).ids
    with pytest.raises(ValueError, match="expected one SamplingParams per prompt, 2, got 3"):
        generator.generate_batch(["the", "end"], each)
    with pytest.raises(ValueError, match="got one string"):
        generator.generate_batch("the end")
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        generator.generate_batch(["a"], batch_size=0)
    assert generator.generate_batch([]) == []


def test_a_cancelled_batch_ends_every_row(generator: Generator) -> None:
    cancel = threading.Event()
    cancel.set()
    together = generator.generate_batch(PROMPTS, SAMPLED, cancel=cancel)
    assert {(done.finish_reason, done.text) for done in together} == {("cancelled", "")}


def test_a_row_that_was_cancelled_unread_stays_so_and_the_others_go_on(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancel, answers = threading.Event(), iter([True])
    monkeypatch.setattr(cancel, "is_set", lambda: next(answers, False))  # set for a moment only
    first, second = generator.generate_batch(["a", PROMPT], SAMPLED, cancel=cancel)
    assert (first.finish_reason, first.ids) == ("cancelled", ())
    assert second.ids == generator.complete(PROMPT, SAMPLED).ids


def test_an_event_cancels_before_the_next_token(generator: Generator) -> None:
    cancel = threading.Event()
    stream = generator.generate_ids(
        [5, 6], SamplingParams(max_new_tokens=50, ignore_end_token=True), cancel=cancel
    )
    given_out = [next(stream) for _ in range(4)]
    cancel.set()
    assert list(stream) == []
    assert stream.finish_reason == "cancelled"
    assert stream.ids == tuple(given_out)


def test_a_cancellation_ends_a_long_prompt_between_chunks(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpt_edge.generate.read_sequence, "PREFILL_CHUNK", 8)
    cancel, read, forward = threading.Event(), [], generator.session.forward

    def spy(ids: np.ndarray, *rest: Any, **more: Any) -> np.ndarray:
        read.append(ids.shape[1])
        if len(read) == 3:
            cancel.set()
        return forward(ids, *rest, **more)

    monkeypatch.setattr(generator.session, "forward", spy)
    done = generator.complete("q" * 60, cancel=cancel)
    assert (read, done.finish_reason, done.ids) == ([8, 8, 8], "cancelled", ())


def test_what_was_held_back_follows_a_cancellation_by_event() -> None:
    cancel = threading.Event()

    def ids() -> Iterator[int]:
        yield from b"a<"
        cancel.set()  # while the third token is being made
        yield from b"sbc"

    generator = Generator(Scripted(ids()), open_generator().tokenizer)  # type: ignore[arg-type]
    stream = generator.stream(PROMPT, SamplingParams(stop=("<s>",)), cancel=cancel)
    assert list(stream) == ["a", "<s"]
    assert stream.completion.finish_reason == "cancelled"


def test_close_and_leaving_a_with_block_cancel(generator: Generator) -> None:
    with generator.stream(PROMPT, SamplingParams(ignore_end_token=True)) as stream:
        first = next(stream)
        with pytest.raises(RuntimeError, match="the stream has not ended"):
            _ = stream.completion
    assert list(stream) == []
    assert stream.completion.finish_reason == "cancelled"
    assert stream.completion.text == first
    ended = generator.stream(PROMPT, SamplingParams(max_new_tokens=3, ignore_end_token=True))
    list(ended)
    ended.close()
    assert ended.finish_reason == "length"


def test_closing_from_another_thread_waits_for_the_step_and_ends_the_stream(
    generator: Generator,
) -> None:
    for _ in range(20):
        stream = generator.generate_ids(
            [1], SamplingParams(max_new_tokens=60, ignore_end_token=True)
        )
        given_out = [next(stream)]
        closer = threading.Thread(target=stream.close)
        closer.start()
        given_out += list(stream)
        closer.join()
        assert stream.finish_reason in ("cancelled", "length")
        assert stream.ids == tuple(given_out)


def test_a_cancelled_generation_does_not_change_the_next(generator: Generator) -> None:
    wanted = generator.complete(PROMPT, SAMPLED).ids
    for n in range(1, 6):
        with generator.stream(PROMPT, SAMPLED) as stream:
            list(itertools.islice(stream, n))
        assert generator.complete(PROMPT, SAMPLED).ids == wanted


@pytest.mark.parametrize("good", [0, 1, 5])
@pytest.mark.parametrize(
    "params",
    [SamplingParams(), SamplingParams(top_k=40, temperature=0.01, seed=1)],
    ids=["greedy", "top-k"],
)
def test_no_token_follows_unsound_logits(good: int, params: SamplingParams) -> None:
    stream = scripted(b"abcdefg"[:good], 0.5, 65, 66).stream(PROMPT, params)
    assert [next(stream) for _ in range(good)] == list("abcdefg"[:good])
    with pytest.raises(NumericError, match="nan at token 0"):
        next(stream)
    assert list(stream) == []
    assert stream.finish_reason is None


def test_rows_of_the_embedding_without_a_token_are_never_chosen() -> None:
    """nanoGPT pads 50257 tokens to 50304 rows."""
    session = Scripted([300, 301], vocab_size=304)
    done = Generator(session, open_generator().tokenizer).complete(
        PROMPT, SamplingParams(max_new_tokens=2)
    )  # type: ignore[arg-type]
    assert done.ids == (0, 0)


@pytest.mark.every_core
def test_eight_threads_generate_what_one_does(generator: Generator) -> None:
    run_threads(generator, per_thread=10)


@pytest.mark.slow
def test_eight_threads_generate_what_one_does_1600_times(generator: Generator) -> None:
    run_threads(generator, per_thread=200)


def run_threads(generator: Generator, per_thread: int) -> None:
    """R14.1: one session, many generations."""
    jobs = [
        (prompt, SamplingParams(max_new_tokens=20, top_k=None if seed % 3 == 0 else 40, seed=seed))
        for seed, prompt in enumerate(["a", "the", "x" * 30, "and ing", "q" * 60])
    ]
    wanted = [generator.complete(prompt, params).text for prompt, params in jobs]
    wrong: list[str] = []

    def work(index: int) -> None:
        for count in range(per_thread):
            job = (index + count) % len(jobs)
            try:
                text = generator.complete(*jobs[job]).text
            except GPTEdgeError as error:
                text = repr(error)
            if text != wanted[job]:
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.every_core
def test_threads_that_share_a_stream_take_turns(generator: Generator) -> None:
    params = SamplingParams(max_new_tokens=50, top_k=40, seed=1, ignore_end_token=True)
    wanted = generator.complete(PROMPT, params)
    for _ in range(10):
        stream, given_out = generator.stream(PROMPT, params), []
        threads = [threading.Thread(target=lambda: given_out.extend(stream)) for _ in range(4)]  # noqa: B023
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert stream.completion.ids == wanted.ids
        assert stream.completion.text == wanted.text
        assert sorted("".join(given_out)) == sorted(wanted.text)


def test_a_cancelled_beam_search_returns_its_beams_as_they_are(generator: Generator) -> None:
    cancel, lengths = threading.Event(), []

    def watch(history: Any, logits: np.ndarray) -> np.ndarray:
        lengths.append(len(history))
        if len(history) == lengths[0] + 3:
            cancel.set()
        return logits

    beams = BeamParams(num_beams=3, num_return_sequences=3)
    settings: Any = {"beams": beams, "max_new_tokens": 40, "ignore_end_token": True}
    done = generator.beam_search("a b", cancel=cancel, processors=[watch], **settings)
    assert [one.finish_reason for one in done] == ["cancelled"] * 3
    assert [len(one.ids) for one in done] == [4] * 3
    expected = generator.beam_search("a b", **{**settings, "max_new_tokens": 4})
    assert [one.ids for one in done] == [one.ids for one in expected]
    assert generator.beam_search("a b", cancel=cancel, **settings) == []
