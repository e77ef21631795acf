"""AsyncTextStream: a text stream for asyncio. Each step of the model runs in a worker thread, so
the event loop never waits for it.
"""

from __future__ import annotations

import asyncio
from typing import Self

from gpt_edge.generate.completion import Completion, FinishReason
from gpt_edge.generate.stream import TextStream


class AsyncTextStream:
    """Async iterator over the text of one generation; see TextStream, whose pieces it gives.

    `aclose`, leaving an `async with` block, or cancelling the task that waits for a piece ends it
    within one token. Not for two tasks at once.
    """

    def __init__(self, stream: TextStream) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        loop = asyncio.get_running_loop()
        try:
            piece = await loop.run_in_executor(None, next, self._stream, None)
        except asyncio.CancelledError:
            self._stream.cancel()  # the step that runs is the last
            raise
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """End it after the step that runs, if one does."""
        self._stream.cancel()
        await asyncio.get_running_loop().run_in_executor(None, self._stream.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def finish_reason(self) -> FinishReason | None:
        """None until the last piece was given."""
        return self._stream.finish_reason

    @property
    def completion(self) -> Completion:
        """The whole result. Raises RuntimeError before the end."""
        return self._stream.completion
