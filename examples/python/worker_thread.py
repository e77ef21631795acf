"""A worker thread with a queue of jobs: the rest of the program hands in prompts and goes on, and
each answer is a future. Closing the worker ends what runs and cancels what waits.

    python worker_thread.py "The little dog" "A cat"
"""

from __future__ import annotations

import argparse
import queue
import threading
from concurrent.futures import Future
from types import TracebackType
from typing import Self

import gpt_edge

Job = tuple[str, "Future[gpt_edge.Completion]"]


class Worker:
    """Generates the texts of prompts, one after the other, in a thread of its own."""

    def __init__(self, model: gpt_edge.Generator, params: gpt_edge.SamplingParams) -> None:
        self._model = model
        self._params = params
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._cancel = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def submit(self, prompt: str) -> Future[gpt_edge.Completion]:
        """Take a prompt; the future has its Completion, or the error."""
        future: Future[gpt_edge.Completion] = Future()
        self._jobs.put((prompt, future))
        return future

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            prompt, future = job
            if self._cancel.is_set():
                future.cancel()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                done = self._model.complete(prompt, self._params, cancel=self._cancel)
                future.set_result(done)
            except Exception as error:  # of this job alone
                future.set_exception(error)

    def close(self) -> None:
        """End the job that runs before its next token, cancel the others, and wait for the end."""
        self._cancel.set()
        self._jobs.put(None)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Continue prompts in a worker thread.")
    parser.add_argument("prompts", nargs="+")
    prompts = parser.parse_args().prompts
    params = gpt_edge.SamplingParams(max_new_tokens=12)
    with Worker(gpt_edge.load(), params) as worker:
        futures = [worker.submit(prompt) for prompt in prompts]
        for prompt, future in zip(prompts, futures, strict=True):
            print(f"{prompt}{future.result().text}")


if __name__ == "__main__":
    main()
