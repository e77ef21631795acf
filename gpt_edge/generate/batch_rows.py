"""BatchRows: the rows of a BatchEngine at work, in the one thread that steps: prompts that are
read, the slots of the rows that decode, and who joins and leaves them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from gpt_edge.arrays import FloatArray
from gpt_edge.generate.batch_handle import BatchHandle
from gpt_edge.generate.batch_queue import BatchQueue
from gpt_edge.generate.prefix_cache import PrefixCache
from gpt_edge.generate.read_sequence import ReadSequence
from gpt_edge.generate.row_draws import RowDraws
from gpt_edge.runtime.session import Session

MAX_SKIPPED = 3  # chunks of shorter prompts that the oldest one waits for


class BatchRows:
    """Rows 0 to `max_batch` - 1 and the prompts that are being read. Not thread-safe."""

    def __init__(
        self,
        session: Session,
        queue: BatchQueue,
        max_batch: int,
        prefill_chunk: int,
        prefixes: PrefixCache | None,
        max_joining: int,
    ) -> None:
        """queue: where requests come from. prefixes: texts that were read before. max_joining: how
        many prompts are read at once, chunk by chunk, the shortest first: a short one does not wait
        for a long one.
        """
        self._session = session
        self._prefixes = prefixes
        self._queue = queue
        self._max_batch = max_batch
        self._prefill_chunk = prefill_chunk
        self._slots = session.new_slots(max_batch)
        self._running: list[BatchHandle] = []  # by row of the slots
        self._max_joining = max_joining
        self._joining: list[_Joining] = []  # the oldest first
        self._n_skipped = 0  # chunks since the oldest was read
        self._last_read: _LastRead | None = None
        self._draws = RowDraws(session.threads)

    @property
    def n_running(self) -> int:
        """Rows that decode."""
        return len(self._running)

    @property
    def has_work(self) -> bool:
        """Whether a row decodes or a prompt is being read."""
        return bool(self._running or self._joining)

    def end(self, *, everyone: bool = False) -> None:
        """End the rows that are cancelled, or all."""
        for row in reversed(range(len(self._running))):
            if everyone or self._running[row].is_cancelled:
                self._deliver(self._running[row], self._running[row].row.cancel)
                self._leave(row)
        for joining in list(self._joining):
            if everyone or joining.handle.is_cancelled:
                self._deliver(joining.handle, joining.handle.row.cancel)
                self._joining.remove(joining)
        for handle in self._queue.take_cancelled(everyone=everyone):
            self._deliver(handle, handle.row.cancel)

    def shift_full(self) -> None:
        """Take rows whose context is full out of their slots: their windows are read as prompts
        are, while the other rows go on.
        """
        n_ctx = self._session.config.n_ctx
        for row in reversed(range(len(self._running))):
            handle = self._running[row]
            if handle.row.prompt.keep_first is None or int(self._slots.lengths[row]) < n_ctx:
                continue
            ids = handle.row.shift()
            n_kept = handle.row.prompt.keep_first
            sequence = ReadSequence(self._session)
            if n_kept:
                sequence.cache.put_row(self._slots.copy_row(row, n_kept), n_kept)
                sequence.ids = ids[:n_kept]
            self._joining.append(_Joining(handle, sequence, ids, is_window=True))
            self._free(row)

    def read_chunk(self) -> bool:
        """Read more of a prompt that has a place; its row joins the others when it is complete.
        Returns False if there is none.
        """
        self._begin_waiting()
        if not self._joining:
            return False
        joining = self._next_to_read()
        handle, sequence, ids = joining.handle, joining.sequence, joining.ids
        noted = handle.row.prompt_logprobs
        done = len(sequence.ids)
        try:
            self._session.reserve(sequence.cache, len(ids))
            logits = sequence.read(
                ids[done : done + self._prefill_chunk],
                take_rows=None if noted is None or joining.is_window else noted.take_rows,
            )
        except Exception as error:  # of this request: the others run on
            self._joining.remove(joining)
            handle.fail(error)
            return True
        if len(sequence.ids) == len(ids):
            assert logits is not None
            self._joining.remove(joining)
            if not joining.is_window:
                sequence.remember()
            self._last_read = _LastRead(ids, sequence, logits)
            self._join(handle, self._last_read)
            self._join_equals(self._last_read)
        return True

    def decode(self) -> bool:
        """One token of every running row; False if there is none."""
        running = list(self._running)
        if not running:
            return False
        try:
            logits = self._session.decode([handle.row.last_id for handle in running], self._slots)
        except Exception as error:  # their keys and values may be half-written
            self._fail_running(error)
            return True
        drawn = self._draws.draw([handle.row.choice for handle in running], list(logits))
        for handle, row_logits, id in zip(running, logits, drawn, strict=True):
            self._deliver(handle, partial(handle.row.take, row_logits, id))
        for row in reversed(range(len(running))):
            if running[row].is_done:
                self._leave(row)
        return True

    def close(self) -> None:
        """End its threads."""
        self._draws.close()

    def fail_all(self, error: BaseException) -> None:
        """End every request with an error: keys and values may be half-written."""
        self._fail_running(error)
        joining, self._joining = self._joining, []
        for one in joining:
            one.handle.fail(error)
        for handle in self._queue.take_cancelled(everyone=True):
            handle.fail(error)

    def _begin_waiting(self) -> None:
        """Let waiting requests begin to read while there are places for their rows. One whose
        prompt is being read waits for it, and joins without reading.
        """
        while len(self._joining) < self._max_joining and self._n_free > 0:
            taken, _ = self._queue.take_matching(self._is_unread, 1)
            if not taken:
                return
            handle = taken[0]
            handle.row.start()
            last = self._last_read
            if last is not None and last.serves(handle):
                self._share(handle, last)
                self._join_equals(last)
            else:
                self._joining.append(self._begin(handle))

    def _is_unread(self, handle: BatchHandle) -> bool:
        """Whether no prompt that is being read is this request's, or it wants what only reading
        tells.
        """
        if handle.row.prompt_logprobs is not None:
            return True
        ids = handle.row.prompt.ids
        return all(joining.ids != ids for joining in self._joining)

    def _next_to_read(self) -> _Joining:
        """The prompt of which least is left, or the oldest when it has waited long enough."""
        oldest = self._joining[0]
        chosen = min(self._joining, key=_Joining.n_left)
        if self._n_skipped >= MAX_SKIPPED:
            chosen = oldest
        self._n_skipped = 0 if chosen is oldest else self._n_skipped + 1
        return chosen

    @property
    def _n_free(self) -> int:
        """Slots that no row has, and that no prompt that is being read will take."""
        return self._max_batch - len(self._running) - len(self._joining)

    def _begin(self, handle: BatchHandle) -> _Joining:
        """A request whose prompt is read from where it differs from what was read before."""
        if handle.row.prompt_logprobs is not None:  # only reading tells them
            return _Joining(handle, ReadSequence(self._session), handle.row.prompt.ids)
        sequence = ReadSequence(self._session, self._prefixes)
        handle.row.cached_tokens = sequence.keep_prefix(handle.row.prompt.ids)
        return _Joining(handle, sequence, handle.row.prompt.ids)

    def _join_equals(self, last: _LastRead) -> None:
        """Let waiting requests with the prompt that was read last join without reading it."""
        joining, n_left = self._queue.take_matching(last.serves, self._n_free)
        for handle in joining:
            handle.row.start()
            self._share(handle, last)
        if n_left == 0:
            self._last_read = None  # nobody else waits for it

    def _share(self, handle: BatchHandle, last: _LastRead) -> None:
        handle.row.cached_tokens = len(last.ids)
        self._join(handle, last)

    def _join(self, handle: BatchHandle, read: _LastRead) -> None:
        """Choose a request's first token, and give it a slot unless that ends it."""
        self._deliver(handle, lambda: handle.row.take(read.logits))
        if handle.is_done:
            return
        try:
            self._slots.join(read.sequence.cache)
        except MemoryError as error:
            handle.fail(error)
            return
        self._running.append(handle)

    def _deliver(self, handle: BatchHandle, make_piece: Callable[[], str]) -> None:
        """Give a request its next piece of text; an error ends it alone."""
        try:
            handle.give(make_piece())
        except Exception as error:
            handle.fail(error)

    def _leave(self, row: int) -> None:
        """Free the slot of a row; the last row takes its place."""
        if self._prefixes is not None:
            ids = self._running[row].row.ids[: int(self._slots.lengths[row])]
            self._prefixes.store(self._session, ids, self._slots, row)
        self._free(row)

    def _free(self, row: int) -> None:
        """Let the last row have the place of one."""
        self._slots.leave(row)
        last = self._running.pop()
        if row < len(self._running):
            self._running[row] = last

    def _fail_running(self, error: BaseException) -> None:
        running, self._running = self._running, []
        self._slots = self._session.new_slots(self._max_batch)
        for handle in running:
            handle.fail(error)


class _Joining:
    """A request whose prompt, or whose window, is being read. ids: all of it."""

    def __init__(
        self,
        handle: BatchHandle,
        sequence: ReadSequence,
        ids: list[int],
        *,
        is_window: bool = False,
    ) -> None:
        self.handle = handle
        self.sequence = sequence
        self.ids = ids
        self.is_window = is_window

    def n_left(self) -> int:
        """Tokens to read yet."""
        return len(self.ids) - len(self.sequence.ids)


class _LastRead:
    """A prompt that was read: what it left in a cache, and the logits [V] after it."""

    def __init__(self, ids: Sequence[int], sequence: ReadSequence, logits: FloatArray) -> None:
        self.ids = list(ids)
        self.sequence = sequence
        self.logits = logits

    def serves(self, handle: BatchHandle) -> bool:
        """Whether it is the prompt of a request, which asks for nothing that only reading tells."""
        return handle.row.prompt_logprobs is None and handle.row.prompt.ids == self.ids
