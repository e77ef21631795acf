"""BatchEngine: texts that are generated together, of which some begin and end at any time.

A step reads one chunk of a waiting prompt, the shortest first, then decodes one token of every row,
so that rows that run never wait for more than a chunk. A prompt is read into a cache of its own,
which is copied into a slot of the batch when it is complete. Method: continuous batching (Yu et
al. 2022, Orca) with chunked prefill (Agrawal et al. 2023, Sarathi).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, Unpack

from gpt_edge.arguments import check_callable, check_count, check_hooks
from gpt_edge.generate.batch_handle import BatchHandle, OnPiece
from gpt_edge.generate.batch_queue import BatchQueue
from gpt_edge.generate.batch_row import BatchRow
from gpt_edge.generate.batch_rows import BatchRows
from gpt_edge.generate.context import ContextPolicy
from gpt_edge.generate.logits import LogitsProcessor
from gpt_edge.generate.params import SamplingParams, SamplingSettings, params_with
from gpt_edge.generate.prompt import Prompt, Truncate, prompt_of_ids
from gpt_edge.generate.settings import shows_settings
from gpt_edge.runtime.tuning import PREFILL_CHUNK
from gpt_edge.system.fork_safety import check_process

if TYPE_CHECKING:
    from gpt_edge.generate.generator import Generator

BATCH_SIZE = 8
SHORT_CHUNK = 64  # tokens: a pause of a quarter of PREFILL_CHUNK's


class BatchEngine:
    """Generates the texts of many requests with one model.

    Thread-safe: `add` and `cancel` come from any thread while another steps; threads that step take
    turns. Each text is what `complete` alone gives: with custom operators bit for bit, with
    onnxruntime's up to the last bits of a logit (`Session.is_row_exact`).

    Prompts that begin as one that the model's prefix cache holds are read from where they differ.

    Who steps it: a thread of its own after `start`; else whoever waits for a handle's text, or
    calls `step`.
    """

    def __init__(
        self,
        model: Generator,
        *,
        max_batch: int = BATCH_SIZE,
        max_waiting: int | None = None,
        prefill_chunk: int | None = None,
        interleave: bool = True,
    ) -> None:
        """max_batch: rows at once; the others wait in line. max_waiting: requests that may wait
        before `add` refuses one; None lets any number. prefill_chunk: tokens of a prompt between
        two steps of the running rows; None is 64 where another chunk gives the same bits, else 256,
        as `complete` reads. interleave: False reads all prompts that find a place before it decodes
        on, which gives the most tokens a second where nobody watches.
        Raises ValueError for a number below 1.
        """
        self._session = model.session
        if prefill_chunk is None:
            prefill_chunk = SHORT_CHUNK if self._session.is_row_exact else PREFILL_CHUNK
        limits = {"max_batch": max_batch, "prefill_chunk": prefill_chunk}
        if max_waiting is not None:
            limits["max_waiting"] = max_waiting
        for name, value in limits.items():
            check_count(name, value)
        self._model = model
        self._interleaves = interleave
        self._pid = os.getpid()
        # guards the queue, who steps, and the ends that others wait for
        self._condition = threading.Condition()
        self._queue = BatchQueue(self._condition, max_waiting)
        self._stepper: int | None = None  # the thread that steps
        self._thread: threading.Thread | None = None
        self._is_closed = False
        # of the thread that steps alone
        self._rows = BatchRows(
            self._session,
            self._queue,
            max_batch,
            prefill_chunk,
            model.prefix_cache,
            # where nobody watches, one cache for a prompt is enough
            max_batch if interleave else 1,
        )

    @shows_settings(SamplingSettings)
    def add(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | None = None,
        *,
        truncate: Truncate | None = None,
        special: bool = False,
        cancel: threading.Event | None = None,
        processors: Sequence[LogitsProcessor] = (),
        context: ContextPolicy = "error",
        keep_first: int = 0,
        on_piece: OnPiece | None = None,
        **settings: Unpack[SamplingSettings],
    ) -> BatchHandle:
        """Take a request, a text or token ids, and return its handle at once.

        The arguments are those of `Generator.stream`. on_piece: called in the thread that steps
        with each piece of text, and with None at the end; an exception of it ends this request
        alone. Raises as `Generator.stream` before any work, BusyError for more than `max_waiting`,
        RuntimeError after `close`.
        """
        params = params_with(params, settings)
        if isinstance(prompt, str):
            encoded = self._model.encode_prompt(
                prompt,
                params.max_new_tokens,
                truncate,
                special=special,
                context=context,
                keep_first=keep_first,
            )
        else:
            encoded = prompt_of_ids(
                prompt, self._session.config, params.max_new_tokens, context, keep_first
            )
        return self.add_encoded(encoded, params, cancel, processors, on_piece)

    def add_encoded(
        self,
        prompt: Prompt,
        params: SamplingParams,
        cancel: threading.Event | None = None,
        processors: Sequence[LogitsProcessor] = (),
        on_piece: OnPiece | None = None,
    ) -> BatchHandle:
        """`add` for a prompt that `Generator.encode_prompt` made."""
        check_process(self._pid)
        check_hooks(cancel, processors)
        if on_piece is not None:
            check_callable("on_piece", on_piece)
        row = BatchRow(
            prompt,
            params,
            self._session.config.n_ctx,
            self._model.tokenizer,
            self._model.end_tokens,
            processors,
        )
        handle = BatchHandle(self, row, cancel, on_piece)
        with self._condition:
            if self._is_closed:
                raise RuntimeError("the engine is closed: it takes no more requests")
            self._queue.append(handle)
        return handle

    @property
    def n_waiting(self) -> int:
        """Requests whose prompt is not being read yet."""
        return len(self._queue)

    @property
    def n_running(self) -> int:
        """Rows that generate."""
        return self._rows.n_running

    def cancel(self, handle: BatchHandle) -> None:
        """End a request before its next token; see `BatchHandle.cancel`."""
        handle.cancel()

    def step(self) -> bool:
        """Read at most one chunk of a prompt and decode at most one token of every row. Returns
        False if there was nothing to do.

        Waits while another thread steps. Errors of a request go to its handle. Raises RuntimeError
        if called from `on_piece`, GPTEdgeError in a fork.
        """
        with self._turn():
            return self._work()

    def start(self) -> Self:
        """Step in a thread of the engine's own until `close`; it sleeps while there is nothing to
        do.
        """
        check_process(self._pid)
        with self._condition:
            if self._thread is None and not self._is_closed:
                self._thread = threading.Thread(target=self._serve, name="BatchEngine", daemon=True)
                self._thread.start()
        return self

    def close(self) -> None:
        """Take no more requests and end those that are there, as cancelled."""
        check_process(self._pid)
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        with self._turn():
            self._rows.end(everyone=True)
            self._rows.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wake(self) -> None:
        """Let a sleeping engine look at its requests."""
        check_process(self._pid)
        with self._condition:
            self._condition.notify_all()

    def advance(self, is_ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until `is_ready()`, stepping meanwhile unless another thread does. Returns False
        after `timeout` seconds.
        """
        check_process(self._pid)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._condition:
                while not is_ready():
                    rest = None if deadline is None else deadline - time.monotonic()
                    if rest is not None and rest <= 0:
                        return False
                    if self._stepper == threading.get_ident() or (
                        self._stepper is None and self._thread is None
                    ):
                        break
                    self._condition.wait(rest)
                else:
                    return True
            self.step()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Be the one thread that steps."""
        check_process(self._pid)
        with self._condition:
            if self._stepper == threading.get_ident():
                raise RuntimeError(
                    "on_piece runs within a step: it can neither step nor wait for text"
                )
            while self._stepper is not None:
                self._condition.wait()
            self._stepper = threading.get_ident()
        try:
            yield
        except BaseException as error:  # also Ctrl-C: the caches may be half-written
            self._rows.fail_all(error)
            raise
        finally:
            with self._condition:
                self._stepper = None
                self._condition.notify_all()

    def _serve(self) -> None:
        """What the engine's own thread does."""
        try:
            while True:
                with self._condition:
                    while not (self._is_closed or self._queue or self._rows.has_work):
                        self._condition.wait()
                    if self._is_closed:
                        return
                self.step()
        finally:
            with self._condition:
                self._thread = None
                self._condition.notify_all()

    def _work(self) -> bool:
        self._rows.end()
        self._rows.shift_full()
        has_read = self._rows.read_chunk()
        while has_read and not self._interleaves and self._rows.read_chunk():
            pass
        return self._rows.decode() or has_read
