"""BatchEngine: rows join and leave between steps, and each text is what `complete` alone gives."""

from __future__ import annotations

import itertools
import multiprocessing
import random
import sys
import threading
from typing import Any

import numpy as np
import pytest

from gpt_edge.errors import BusyError, ContextLengthError, GPTEdgeError, NumericError
from gpt_edge.generate.batch_engine import BatchEngine
from gpt_edge.generate.completion import Completion
from gpt_edge.generate.generator import Generator
from gpt_edge.generate.params import SamplingParams
from tests.support.native_model import open_native
from tests.support.tiny_model import GRAPHS, N_CTX, open_generator

PROMPTS = ("a", "the end", "x" * 40, "", "ing and the rest", "é", "some words here", "q" * N_CTX)
ENDLESS = SamplingParams(max_new_tokens=40, ignore_end_token=True)


@pytest.fixture(params=GRAPHS)
def generator(request: pytest.FixtureRequest) -> Generator:
    return open_generator(request.param)


def random_params(random: random.Random) -> SamplingParams:
    """Greedy and sampling, short and long, with processors, stop strings and log-probabilities."""
    return SamplingParams(
        max_new_tokens=random.choice((1, 2, 9, 30)),
        temperature=random.choice((None, 0.9)),
        top_p=random.choice((None, 0.95)),
        seed=random.randrange(1000),
        repetition_penalty=random.choice((1.0, 1.3)),
        stop=random.choice(((), ("e",), ("th", "an"))),
        logprobs=random.choice((None, 2)),
        prompt_logprobs=random.choice((None, None, 1)),
    )


def what_counts(done: Completion) -> tuple[object, ...]:
    return (done.text, done.finish_reason, done.ids, done.prompt_tokens, done.seed)


@pytest.mark.parametrize("interleave", [True, False])
def test_requests_that_come_at_any_step_give_what_complete_gives(
    generator: Generator, interleave: bool
) -> None:
    rng = random.Random(0)
    engine = BatchEngine(generator, max_batch=3, interleave=interleave)
    pairs = []
    for _ in range(25):
        prompt, params = rng.choice(PROMPTS), random_params(rng)
        pairs.append((engine.add(prompt, params), generator.complete(prompt, params)))
        for _ in range(rng.randrange(8)):
            engine.step()
            assert engine.n_running <= 3
    for handle, alone in pairs:
        done = handle.result()
        assert what_counts(done) == what_counts(alone)
        assert "".join(handle) == alone.text
        for mine, expected in zip(done.logprobs or (), alone.logprobs or (), strict=True):
            assert mine.logprob == pytest.approx(expected.logprob, abs=1e-4)
        assert (done.prompt_logprobs is None) == (alone.prompt_logprobs is None)
        for mine, expected in zip(
            done.prompt_logprobs or (), alone.prompt_logprobs or (), strict=True
        ):
            assert mine.id == expected.id
            assert mine.logprob == pytest.approx(expected.logprob, abs=1e-4)
    assert engine.step() is False


def test_with_custom_operators_every_bit_is_what_it_is_alone() -> None:
    model = open_native()
    assert model.session.is_row_exact
    long = "Once there was a little dog. " * 20
    prompts = ("Once upon a time", long, "The sun", long + "He ran", "A")
    params = SamplingParams(max_new_tokens=12, ignore_end_token=True, logprobs=3, top_k=9, seed=5)
    engine = BatchEngine(model, max_batch=3, prefill_chunk=37)
    handles = []
    for prompt in prompts:
        handles.append(engine.add(prompt, params))
        engine.step()
    for prompt, handle in zip(prompts, handles, strict=True):
        done, alone = handle.result(), model.complete(prompt, params)
        assert what_counts(done) == what_counts(alone)
        assert done.logprobs == alone.logprobs
        assert done.cumulative_logprob == alone.cumulative_logprob


def test_onnxruntimes_operators_are_not_called_exact(generator: Generator) -> None:
    assert not generator.session.is_row_exact


def test_a_joining_prompt_holds_the_others_up_by_one_chunk_a_step(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = BatchEngine(generator, max_batch=2, prefill_chunk=8)
    running = engine.add("a", ENDLESS)
    engine.step()
    read: list[int] = []
    forward = generator.session.forward

    def spy(ids: Any, *rest: Any, **more: Any) -> Any:
        read.append(np.asarray(ids).size)
        return forward(ids, *rest, **more)

    monkeypatch.setattr(generator.session, "forward", spy)
    joining = engine.add("q" * 40, ENDLESS)
    for n_steps in range(1, 6):
        n_before = len(running.ids)
        engine.step()
        assert len(running.ids) == n_before + 1
        assert read == [8] * n_steps
    assert len(joining.ids) == 2  # the one that ended the prompt, and the step's


def test_pieces_come_as_they_are_made_and_a_callback_gets_the_same(generator: Generator) -> None:
    engine = BatchEngine(generator)
    got: list[str | None] = []
    handle = engine.add("the end", ENDLESS, on_piece=got.append)
    first = next(handle)
    assert not handle.is_done
    assert handle.finish_reason is None
    rest = list(handle)
    assert got == [first, *rest, None]
    assert (handle.finish_reason, handle.result().text) == ("length", "".join([first, *rest]))
    assert [first, *rest] == list(generator.stream("the end", ENDLESS))


def test_equal_prompts_are_read_once(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    forward = generator.session.forward

    def spy(ids: Any, *rest: Any, **more: Any) -> Any:
        read.append(np.asarray(ids).size)
        return forward(ids, *rest, **more)

    monkeypatch.setattr(generator.session, "forward", spy)
    samples = generator.samples("the end", n=20, top_k=40, seed=1, max_new_tokens=5)
    assert len(read) == 1
    monkeypatch.undo()
    for number, done in enumerate(samples):
        alone = generator.complete("the end", top_k=40, seed=1 + number, max_new_tokens=5)
        assert what_counts(done) == what_counts(alone)


def test_cancelling_ends_a_request_wherever_it_stands(generator: Generator) -> None:
    engine = BatchEngine(generator, max_batch=2, prefill_chunk=8)
    event = threading.Event()
    running = engine.add("a", ENDLESS)
    other = engine.add("b", ENDLESS, cancel=event)
    for _ in range(5):
        engine.step()
    waiting = engine.add("the", ENDLESS)
    n_ids = len(running.ids)
    engine.cancel(running)
    waiting.cancel()
    joining = engine.add("q" * 40, ENDLESS)
    engine.step()
    joining.cancel()
    assert (running.result().finish_reason, len(running.ids)) == ("cancelled", n_ids)
    assert running.result().ids == generator.complete("a", ENDLESS).ids[:n_ids]
    assert (waiting.result().finish_reason, waiting.result().ids) == ("cancelled", ())
    assert (joining.result().finish_reason, joining.result().ids) == ("cancelled", ())
    assert not other.is_done
    event.set()
    assert other.result().finish_reason == "cancelled"


def test_an_error_of_one_request_ends_it_alone(generator: Generator) -> None:
    def nan_later(history: Any, logits: Any) -> Any:
        return logits * np.nan if len(history) > 4 else logits

    def fail(piece: str | None) -> None:
        raise KeyError("of the caller")

    def fail_at_the_end(piece: str | None) -> None:
        if piece is None:
            raise KeyError("at the end")

    engine = BatchEngine(generator)
    good = engine.add("the end", ENDLESS)
    broken = engine.add("a", ENDLESS, processors=[nan_later])
    at_once = engine.add("the end", ENDLESS, processors=[nan_later])
    failing = engine.add("b", ENDLESS, on_piece=fail)
    late = engine.add("c", ENDLESS, on_piece=fail_at_the_end)
    assert good.result().ids == generator.complete("the end", ENDLESS).ids
    for handle, error in (
        (broken, NumericError),
        (at_once, NumericError),
        (failing, KeyError),
        (late, KeyError),
    ):
        with pytest.raises(error):
            handle.result()
        with pytest.raises(error):
            list(handle)
        assert handle.is_done
    assert len(late.ids) == 40


def test_an_error_of_the_model_ends_the_rows_that_ran_and_the_engine_goes_on(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = BatchEngine(generator, max_batch=2)
    rows = [engine.add("a", ENDLESS), engine.add("b", ENDLESS)]
    waiting = engine.add("the end", ENDLESS)
    engine.step()
    engine.step()

    def fail(*_: object) -> None:
        raise GPTEdgeError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(generator.session, "decode", fail)
        engine.step()
    for handle in rows:
        with pytest.raises(GPTEdgeError, match="no memory"):
            handle.result()
    assert waiting.result().ids == generator.complete("the end", ENDLESS).ids


def test_an_interrupted_step_ends_every_request_and_is_raised(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    engine = BatchEngine(generator, max_batch=1)
    rows = [engine.add("a", ENDLESS), engine.add("b", ENDLESS)]
    with monkeypatch.context() as patch:
        patch.setattr(generator.session, "decode", interrupt)
        with pytest.raises(KeyboardInterrupt):
            engine.step()
    for handle in rows:
        with pytest.raises(KeyboardInterrupt):
            handle.result()
    assert engine.add("a", ENDLESS).result().ids == generator.complete("a", ENDLESS).ids


def test_wrong_requests_are_refused_before_any_work() -> None:
    engine = BatchEngine(open_generator(), max_batch=1, max_waiting=2)
    with pytest.raises(ContextLengthError, match="the prompt has 65 tokens"):
        engine.add("q" * 65)
    with pytest.raises(ValueError, match="ids must be one or more token ids"):
        engine.add([])
    with pytest.raises(TypeError, match="'temperatur' is no setting"):
        engine.add("a", temperatur=1)  # type: ignore[call-arg]
    handles = [engine.add([5, 6], ENDLESS), engine.add("b", ENDLESS)]
    assert engine.n_waiting == 2
    with pytest.raises(BusyError, match="2 requests wait already"):
        engine.add("c")
    engine.close()
    assert [handle.result().finish_reason for handle in handles] == ["cancelled"] * 2
    with pytest.raises(RuntimeError, match="the engine is closed"):
        engine.add("a")
    for name in ("max_batch", "max_waiting", "prefill_chunk"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            BatchEngine(open_generator(), **{name: 0})


def test_a_callback_that_steps_is_refused_and_one_that_adds_is_not(generator: Generator) -> None:
    engine = BatchEngine(generator)
    added: list[Any] = []

    def step(piece: str | None) -> None:
        engine.step()

    def add(piece: str | None) -> None:
        if not added:
            added.append(engine.add("a", ENDLESS))

    stepping = engine.add("the", ENDLESS, on_piece=step)
    engine.add("the end", ENDLESS, on_piece=add)
    with pytest.raises(RuntimeError, match="on_piece runs within a step"):
        stepping.result()
    while engine.step():
        pass
    assert added[0].result().ids == generator.complete("a", ENDLESS).ids


@pytest.mark.parametrize("has_thread", [True, False])
@pytest.mark.every_core
def test_threads_add_read_and_cancel_at_once(generator: Generator, has_thread: bool) -> None:
    expected = {
        (prompt, seed): generator.complete(prompt, ENDLESS, top_k=20, seed=seed)
        for prompt, seed in itertools.product(PROMPTS[:4], range(4))
    }
    wrong: list[object] = []
    with BatchEngine(generator, max_batch=3) as engine:
        if has_thread:
            engine.start()

        def work(number: int) -> None:
            rng = random.Random(number)
            for _ in range(3):
                prompt, seed = rng.choice(PROMPTS[:4]), rng.randrange(4)
                handle = engine.add(prompt, ENDLESS, top_k=20, seed=seed)
                text = "".join(itertools.islice(handle, rng.choice((2, None))))
                whole = expected[prompt, seed]
                if not whole.text.startswith(text):
                    wrong.append((prompt, seed, text))
                handle.cancel()
                done = handle.result(timeout=60)
                # by ids: a text that was cancelled within a character ends with half of it
                if done.ids != whole.ids[: len(done.ids)]:
                    wrong.append((prompt, seed, done.ids))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert engine.n_running == engine.n_waiting == 0


def test_a_wait_ends_after_its_timeout(generator: Generator) -> None:
    engine = BatchEngine(generator)
    handle = engine.add("a", ENDLESS)
    with pytest.raises(TimeoutError, match="has not ended within 0 seconds"):
        handle.result(timeout=0)
    assert handle.result(timeout=60).finish_reason == "length"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_engine_in_a_fork_is_refused() -> None:
    engine = BatchEngine(open_generator())
    handle = engine.add("a", ENDLESS)

    def use(results: Any) -> None:
        for call in (lambda: engine.add("b"), engine.step, handle.result):
            try:
                call()
            except GPTEdgeError as error:
                results.put(error.message)

    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=use, args=(results,))
    child.start()
    messages = [results.get(timeout=30) for _ in range(3)]
    child.join()
    assert all("cannot be used in its fork" in message for message in messages)


def test_a_short_prompt_does_not_wait_for_a_long_one() -> None:
    generator = open_generator()
    engine = BatchEngine(generator, prefill_chunk=4)
    long = engine.add([7] * 40, max_new_tokens=3, ignore_end_token=True)
    engine.step()
    short = engine.add([5, 6], max_new_tokens=3, ignore_end_token=True)
    engine.step()
    assert len(short.ids) >= 1
    assert long.ids == ()
    assert short.result().ids == tuple(
        generator.generate_ids([5, 6], max_new_tokens=3, ignore_end_token=True)
    )
    assert long.result().ids == tuple(
        generator.generate_ids([7] * 40, max_new_tokens=3, ignore_end_token=True)
    )


def test_a_long_prompt_is_read_however_many_short_ones_come() -> None:
    generator = open_generator()
    engine = BatchEngine(generator, prefill_chunk=4, max_batch=4)
    long = engine.add([7] * 40, max_new_tokens=1, ignore_end_token=True)
    n_steps = 0
    while not long.is_done:
        while engine.n_waiting < 4:
            engine.add([n_steps % 200, 6], max_new_tokens=1, ignore_end_token=True)
        engine.step()
        n_steps += 1
        assert n_steps < 60  # ten chunks, each after three others
