"""A model in the worker processes of a server: forked before anything is loaded, forked from a
process that holds a model, and spawned. Each gives what one process alone gives, or refuses.
"""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest

import gpt_edge
from gpt_edge import SamplingParams
from gpt_edge.generate.generator import Generator
from tests.support.tiny_model import bundle_path, open_generator

N_WORKERS, N_REQUESTS = 4, 25
Answers = list[list[int]]


def answers(generator: Generator, first: int) -> Answers:
    """Of a worker's requests: the ids of short texts, greedy and drawn."""
    found = []
    for number in range(first, first + N_REQUESTS):
        params = SamplingParams(
            max_new_tokens=4, temperature=0.8 * (number % 2), seed=number, ignore_end_token=True
        )
        found.append(
            [int(token) for token in generator.complete("ab" * (1 + number % 5), params).ids]
        )
    return found


def work(path: Path, first: int) -> Answers:
    """A worker that loads its own model."""
    with gpt_edge.load(path, threads=1) as generator:
        return answers(generator, first)


def work_with_the_parents(path: Path, first: int) -> str:
    """A worker that uses the model of the process that it was forked from."""
    try:
        return str(answers(open_generator(), first))
    except gpt_edge.GPTEdgeError as error:
        return f"{error}"


def pooled(context: BaseContext, work: object, n_workers: int) -> list[object]:
    with context.Pool(n_workers) as pool:
        tasks = [(bundle_path(), number * N_REQUESTS) for number in range(n_workers)]
        return pool.starmap(work, tasks, chunksize=1)  # type: ignore[arg-type]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_forked_workers_that_load_their_own_answer_as_one_process() -> None:
    expected = [answers(open_generator(), number * N_REQUESTS) for number in range(N_WORKERS)]
    assert pooled(multiprocessing.get_context("fork"), work, N_WORKERS) == expected
    assert answers(open_generator(), 0) == expected[0]  # and the parent's goes on


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_model_that_was_loaded_before_the_fork_is_refused() -> None:
    open_generator()
    said = pooled(multiprocessing.get_context("fork"), work_with_the_parents, N_WORKERS)
    assert len(said) == N_WORKERS
    assert all("cannot be used in its fork" in str(message) for message in said), said
    assert answers(open_generator(), 0)


def test_spawned_workers_answer_as_one_process() -> None:
    expected = [answers(open_generator(), number * N_REQUESTS) for number in range(2)]
    assert pooled(multiprocessing.get_context("spawn"), work, 2) == expected
