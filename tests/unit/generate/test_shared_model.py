"""One model under everything that has a state, from many threads at once, and in a fork."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from gpt_edge.errors import GPTEdgeError
from gpt_edge.generate.batch_engine import BatchEngine
from gpt_edge.generate.conversation import Conversation
from gpt_edge.generate.generator import Generator
from gpt_edge.generate.params import SamplingParams
from gpt_edge.generate.prefix_cache import PrefixCache
from tests.support.native_model import open_native
from tests.support.tiny_model import GRAPHS, open_generator

PROMPTS = ("a", "the end", "the ends", "q" * 30)
N_KINDS = 5


def params_of(number: int) -> SamplingParams:
    top_k = None if number % 3 == 0 else 9
    return SamplingParams(max_new_tokens=8, top_k=top_k, seed=number % 4, ignore_end_token=True)


def ways(model: Generator, engine: BatchEngine) -> list[Callable[[str, SamplingParams], str]]:
    """Ways to the same text: alone, with held prefixes, guessed, in a batch, in a conversation."""
    cache = PrefixCache(60_000)

    def converse(prompt: str, params: SamplingParams) -> str:
        conversation = Conversation(model)
        fork = conversation.fork()
        first = conversation.complete(prompt, params).text
        assert fork.complete(prompt, params).text == first
        conversation.rewind()
        return conversation.complete(prompt, params).text

    return [
        lambda prompt, params: model.complete(prompt, params).text,
        lambda prompt, params: model.complete(prompt, params, prefix_cache=cache).text,
        lambda prompt, params: model.complete(prompt, params, speculate="lookup").text,
        lambda prompt, params: "".join(engine.add(prompt, params)),
        converse,
    ]


def run_threads(model: Generator, per_thread: int) -> None:
    jobs = [(prompt, params_of(number)) for prompt in PROMPTS for number in range(4)]
    expected = [model.complete(prompt, params).text for prompt, params in jobs]
    results: list[bool] = []
    with BatchEngine(model, max_batch=4).start() as engine:
        kinds = ways(model, engine)

        def work(index: int) -> None:
            for count in range(per_thread):
                job = (5 * index + count) % len(jobs)
                text = kinds[(index + count) % N_KINDS](*jobs[job])
                results.append(text == expected[job])

        threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (len(results), sum(results)) == (8 * per_thread, 8 * per_thread)


@pytest.mark.every_core
@pytest.mark.parametrize("graph", GRAPHS)
def test_eight_threads_and_every_state_give_the_serial_results(graph: str) -> None:
    run_threads(open_generator(graph), per_thread=10)


@pytest.mark.slow
@pytest.mark.parametrize("graph", GRAPHS)
def test_eight_threads_give_1600_of_1600_serial_results(graph: str) -> None:
    run_threads(open_generator(graph), per_thread=200)


@pytest.mark.slow
def test_eight_threads_give_1600_of_1600_with_custom_operators() -> None:
    run_threads(open_native(), per_thread=200)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_whatever_holds_a_state_is_refused_in_a_fork() -> None:
    model = open_generator()
    conversation = Conversation(model)
    conversation.complete("a", params_of(0))
    stream = model.stream("the end", params_of(0))
    next(stream)
    sequence = model.new_sequence()
    cache = PrefixCache(60_000)
    model.complete("the end", params_of(0), prefix_cache=cache)
    engine = BatchEngine(model).start()
    waiting = BatchEngine(model).add("a")

    def use(results: Any) -> None:
        calls: list[Callable[[], object]] = [
            lambda: conversation.complete("b"),
            lambda: next(stream),
            lambda: model.complete("c", sequence=sequence),
            lambda: model.complete("the end", prefix_cache=cache),
            lambda: model.generate_batch(["a", "b"]),
            lambda: engine.add("a"),
            engine.step,
            engine.close,
            waiting.cancel,
            waiting.result,
        ]
        for call in calls:
            try:
                call()
                results.put("nothing was raised")
            except GPTEdgeError as error:
                results.put(error.message)

    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=use, args=(results,))
    child.start()
    messages = [results.get(timeout=60) for _ in range(10)]
    child.join()
    engine.close()
    assert ["cannot be used in its fork" in message for message in messages] == [True] * 10
    assert conversation.complete("b", params_of(0)).finish_reason == "length"
