"""Async streams, callbacks, and endings from outside."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from gpt_edge.generate.async_stream import AsyncTextStream
from gpt_edge.generate.generator import Generator
from gpt_edge.generate.params import SamplingParams
from tests.support.tiny_model import open_generator

PARAMS = SamplingParams(max_new_tokens=30, ignore_end_token=True)


class Counting:
    """Counts the tokens that are chosen, as a processor; the fifth waits for `go`."""

    def __init__(self) -> None:
        self.n = 0
        self.is_waiting = threading.Event()
        self.go = threading.Event()

    def __call__(self, history: Sequence[int], logits: np.ndarray) -> np.ndarray:
        self.n += 1
        if self.n == 5:
            self.is_waiting.set()
            assert self.go.wait(30)
        return logits


@pytest.fixture
def generator() -> Generator:
    return open_generator()


def test_async_pieces_are_those_of_the_stream(generator: Generator) -> None:
    async def collect() -> tuple[list[str], AsyncTextStream]:
        async with generator.astream("the end", PARAMS) as stream:
            return [piece async for piece in stream], stream

    pieces, stream = asyncio.run(collect())
    assert pieces == list(generator.stream("the end", PARAMS))
    assert stream.completion.text == "".join(pieces)
    assert stream.finish_reason == "length"
    assert stream.completion.completion_tokens == 30


def test_many_async_streams_run_side_by_side(generator: Generator) -> None:
    async def collect(seed: int) -> str:
        params = SamplingParams(max_new_tokens=20, temperature=1.5, seed=seed)
        return "".join([piece async for piece in generator.astream("a", params)])

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*map(collect, range(12)))

    expected = [
        generator.complete("a", max_new_tokens=20, temperature=1.5, seed=seed).text
        for seed in range(12)
    ]
    assert asyncio.run(all_of_them()) == expected


def test_the_loop_runs_on_while_the_model_works(generator: Generator) -> None:
    counting = Counting()

    async def main() -> int:
        stream = generator.astream("the end", PARAMS, processors=[counting])
        reader = asyncio.create_task(collect(stream))
        ticks = 0
        while not counting.is_waiting.is_set():
            await asyncio.sleep(0.001)
        for _ in range(20):
            await asyncio.sleep(0)
            ticks += 1
        counting.go.set()
        await reader
        return ticks

    async def collect(stream: AsyncTextStream) -> None:
        async for _ in stream:
            pass

    assert asyncio.run(main()) == 20


@pytest.mark.parametrize("way", ["cancel the task", "aclose", "leave the block"])
def test_ending_an_async_stream_stops_within_one_token(generator: Generator, way: str) -> None:
    counting = Counting()

    async def main() -> AsyncTextStream:
        stream = generator.astream("the end", PARAMS, processors=[counting])
        if way == "leave the block":
            counting.go.set()
            async with stream:
                async for _ in stream:
                    break
            return stream
        reader = asyncio.create_task(read(stream))
        while not counting.is_waiting.is_set():
            await asyncio.sleep(0.001)
        if way == "aclose":
            closing = asyncio.create_task(stream.aclose())
            await asyncio.sleep(0)
            counting.go.set()
            await closing
            await reader
        else:
            reader.cancel()
            await asyncio.sleep(0)
            counting.go.set()
            with pytest.raises(asyncio.CancelledError):
                await reader
        return stream

    async def read(stream: AsyncTextStream) -> None:
        async for _ in stream:
            pass

    asyncio.run(main())
    n_then = counting.n
    assert n_then < 10
    time.sleep(0.02)
    assert counting.n == n_then


def test_a_callback_gets_each_piece_and_its_error_ends_the_generation(
    generator: Generator,
) -> None:
    pieces: list[str] = []
    counting = Counting()
    counting.go.set()
    done = generator.complete("the end", PARAMS, on_text=pieces.append, processors=[counting])
    assert "".join(pieces) == done.text
    assert counting.n == 30

    def fail(piece: str) -> None:
        raise KeyError(piece)

    again = Counting()
    again.go.set()
    with pytest.raises(KeyError):
        generator.complete("the end", PARAMS, on_text=fail, processors=[again])
    assert again.n < 10


def test_cancel_from_another_thread_waits_for_nothing(generator: Generator) -> None:
    counting = Counting()
    stream = generator.stream("the end", PARAMS, processors=[counting])
    reader = threading.Thread(target=lambda: list(stream))
    reader.start()
    assert counting.is_waiting.wait(30)
    stream.cancel()  # the step that runs holds the lock
    counting.go.set()
    reader.join(30)
    assert (counting.n, stream.finish_reason) == (5, "cancelled")


def test_cancelling_one_of_two_streams_leaves_the_other(generator: Generator) -> None:
    shared = threading.Event()
    one = generator.stream("the end", PARAMS, cancel=shared)
    other = generator.stream("the end", PARAMS, cancel=shared)
    one.cancel()
    assert list(one) == []
    assert "".join(other) == generator.complete("the end", PARAMS).text
