"""A request's texts under way: rows in the engine, and their pieces in the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from gpt_edge.errors import (
    BundleError,
    BusyError,
    ConstraintError,
    ContextLengthError,
    GPTEdgeError,
    NumericError,
    TokenizerError,
)
from gpt_edge.generate.batch_handle import BatchHandle
from gpt_edge.generate.completion import Completion
from gpt_edge.serve.api_error import ApiError, busy
from gpt_edge.serve.completion_request import CompletionRequest
from gpt_edge.serve.served_models import ServedModel


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of row `index`; None where the row has ended."""

    index: int
    text: str | None


class RunningTexts:
    """The rows of one request. Use it in an `async with`: leaving it ends what still runs."""

    def __init__(self, model: ServedModel, request: CompletionRequest) -> None:
        self._model = model
        self._request = request
        self._pieces: asyncio.Queue[Piece] = asyncio.Queue()
        self.handles: list[BatchHandle] = []
        self._is_cancelled = False

    async def __aenter__(self) -> RunningTexts:
        """Put the rows in line. Raises ApiError for a prompt that does not fit, and 429 for a full
        line.
        """
        loop = asyncio.get_running_loop()
        try:
            # a long text takes a while to tokenize
            await loop.run_in_executor(None, self._add_rows, loop)
        except BaseException as error:
            self.cancel()
            raise as_api_error(error) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()

    def cancel(self) -> None:
        """End every row before its next token, and those that are being put in line."""
        self._is_cancelled = True
        for handle in self.handles:
            if not handle.is_done:
                handle.cancel()

    async def pieces(self) -> AsyncIterator[Piece]:
        """Pieces of all rows as they come, until all have ended."""
        n_running = len(self.handles)
        while n_running:
            piece = await self._pieces.get()
            n_running -= piece.text is None
            yield piece

    async def completions(self) -> list[Completion]:
        """Wait for all rows. Raises ApiError for one that failed."""
        async for _ in self.pieces():
            pass
        return [self.result(index) for index in range(len(self.handles))]

    def result(self, index: int) -> Completion:
        """The whole of a row that has ended. Raises ApiError if it failed."""
        try:
            return self.handles[index].result(timeout=0)
        except Exception as error:
            raise as_api_error(error) from error

    def _add_rows(self, loop: asyncio.AbstractEventLoop) -> None:
        engine = self._model.engine
        assert engine is not None
        rows = self._request.rows()
        for index, (prompt, params) in enumerate(rows):

            def give(text: str | None, index: int = index) -> None:
                loop.call_soon_threadsafe(self._pieces.put_nowait, Piece(index, text))

            handle = engine.add(prompt, params, special=self._request.special, on_piece=give)
            self.handles.append(handle)
            if self._is_cancelled:  # the client left meanwhile
                handle.cancel()
                return


def as_api_error(error: BaseException) -> BaseException:
    """What a client is told of an error."""
    match error:
        case ApiError():
            return error
        case ContextLengthError():
            return ApiError(400, error.message, param="prompt", code="context_length_exceeded")
        case BusyError():
            return busy("the server is busy")
        case BundleError() | ConstraintError() | TokenizerError():
            return ApiError(400, error.message)
        case ValueError():
            return ApiError(400, str(error))
        case NumericError():
            return ApiError(500, "the model's logits are no finite numbers")
        case GPTEdgeError():
            return ApiError(500, error.message)
        case RuntimeError():  # the engine is closed
            return ApiError(503, "the server is shutting down", headers={"Retry-After": "5"})
    return error
