"""BatchHandle: what `BatchEngine.add` returns; the text of one request, as it comes and as a whole.

Another thread may step the engine, or none: whoever waits for text steps it then.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from gpt_edge.generate.batch_row import BatchRow
from gpt_edge.generate.completion import Completion, FinishReason
from gpt_edge.generate.logprobs import TokenLogprob

if TYPE_CHECKING:
    from gpt_edge.generate.batch_engine import BatchEngine

OnPiece = Callable[[str | None], None]


class BatchHandle:
    """Iterator over the pieces of one request's text, each given once; `result` is the Completion.

    Thread-safe. An error of the request is raised by both, after the pieces that came before it.
    """

    def __init__(
        self,
        engine: BatchEngine,
        row: BatchRow,
        cancel: threading.Event | None,
        on_piece: OnPiece | None,
    ) -> None:
        self._engine = engine
        self._row = row
        self._cancel = cancel or threading.Event()
        self._on_piece = on_piece
        self._pieces: deque[str] = deque()
        self._error: BaseException | None = None
        self._is_done = False

    @property
    def is_done(self) -> bool:
        """Whether it has ended, by an error too; `result` does not wait any more."""
        return self._is_done

    @property
    def finish_reason(self) -> FinishReason | None:
        """None until it has ended, and after an error."""
        return self._row.choice.finish_reason if self._is_done else None

    @property
    def seed(self) -> int | None:
        """The seed in use; None when greedy."""
        return self._row.choice.seed

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """What the model reads before it generates."""
        return tuple(self._row.prompt.ids)

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids so far."""
        return tuple(self._row.choice.ids)

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...]:
        """One of each id so far; empty unless the params ask for them."""
        return tuple(self._row.choice.logprobs)

    def cancel(self) -> None:
        """End it before its next token, from any thread; its result is what there is."""
        self._cancel.set()
        self._engine.wake()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        self._engine.advance(lambda: bool(self._pieces) or self._is_done)
        try:
            return self._pieces.popleft()
        except IndexError:
            if self._error is not None:
                raise self._error from None
            raise StopIteration from None

    def result(self, timeout: float | None = None) -> Completion:
        """Wait for the end and return the whole result. timeout: seconds. Raises the error that
        ended it, and TimeoutError.
        """
        if not self._engine.advance(lambda: self._is_done, timeout):
            raise TimeoutError(f"the request has not ended within {timeout} seconds")
        if self._error is not None:
            raise self._error
        return self._row.completion()

    # The rest is the engine's, which calls it in the thread that steps.

    @property
    def row(self) -> BatchRow:
        """The text under way."""
        return self._row

    @property
    def is_cancelled(self) -> bool:
        """Whether it is to end before its next token."""
        return self._cancel.is_set()

    def give(self, piece: str) -> None:
        """Take a piece of text, which may be "", and end with the row."""
        if piece:
            self._pieces.append(piece)
            if self._on_piece is not None:
                self._on_piece(piece)
        if self._row.is_ended:
            self._end()

    def fail(self, error: BaseException) -> None:
        """End it with an error."""
        if not self._is_done:
            self._error = error
            self._end()

    def _end(self) -> None:
        self._is_done = True
        if self._on_piece is None:
            return
        try:
            self._on_piece(None)
        except Exception as error:  # of the caller's own function: it ends this request alone
            self._error = self._error or error
