"""EventStream: server-sent events, to a client that reads them in time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.types import Receive, Scope, Send

from gpt_edge.serve.api_error import ApiError

STALL_SECONDS = 30.0  # for a client to take what was sent
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # of nginx
]


class EventStream:
    """ASGI response: each value as an event, then `[DONE]`.

    An error in the middle is an event of its own, as OpenAI sends it. A client that leaves, or
    takes nothing for STALL_SECONDS, ends the values.
    """

    def __init__(self, values: AsyncIterator[dict[str, Any]], end: Callable[[], None]) -> None:
        """end: called at the end, also for a client that left before the first value, when the
        iterator's own `finally` never runs.
        """
        self._values = values
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, or as much as the client takes."""
        sending = asyncio.create_task(self._send_all(send))
        leaving = asyncio.create_task(_wait_for_disconnect(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        except (TimeoutError, OSError):
            pass  # it left, or reads nothing
        finally:
            self._end()
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        try:
            async for value in self._values:
                await _send_line(send, json.dumps(value))
        except ApiError as error:
            await _send_line(send, json.dumps(error.body()))
        await _send_line(send, "[DONE]")
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_line(send: Send, data: str) -> None:
    body = f"data: {data}\n\n".encode()
    async with asyncio.timeout(STALL_SECONDS):
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
