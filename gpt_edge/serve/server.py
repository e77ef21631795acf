"""Running the application: uvicorn with limits on slow clients, and an end that drains."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from gpt_edge.errors import GPTEdgeError
from gpt_edge.serve.app import Server
from gpt_edge.serve.guard import Access
from gpt_edge.serve.served_models import ServedModels

HEADER_SECONDS = 10.0  # for the head of a request to arrive
MAX_HEADER_BYTES = 16 << 10
KEEP_ALIVE_SECONDS = 5
MAX_CONNECTIONS = 512


class TimedProtocol(H11Protocol):
    """Closes a connection whose request has no whole head within HEADER_SECONDS."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connects: the clock runs."""
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Bytes of a request: the clock stops when its head is whole, and runs for the next."""
        if self._deadline is None and self.cycle is not None and self.cycle.response_complete:
            self._expect_head()
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left."""
        self._stop_clock()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._deadline = self.loop.call_later(HEADER_SECONDS, self._close)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


class DrainingServer(uvicorn.Server):
    """The first signal refuses new texts and lets those under way end; the second ends them."""

    def __init__(self, config: uvicorn.Config, server: Server) -> None:
        super().__init__(config)
        self._server = server
        self.is_interrupted = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM or SIGINT."""
        if self.should_exit:
            self.force_exit = True
        self._server.is_draining = True
        self.should_exit = True
        self.is_interrupted = sig == signal.SIGINT


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises GPTEdgeError for an address that cannot
    be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(512)  # who connects from here on waits, and is not refused
    except (OSError, OverflowError) as error:
        listener.close()
        raise GPTEdgeError(
            f"cannot listen on {host} port {port}: {error}", hint="choose another --port"
        ) from error
    return listener


def run_server(
    models: ServedModels, access: Access, listener: socket.socket, drain_seconds: int
) -> None:
    """Serve until a signal. drain_seconds: how long texts under way may take to their end then.
    Raises KeyboardInterrupt after Ctrl-C.
    """
    server = Server(models)
    config = uvicorn.Config(
        server.app(access),
        http=TimedProtocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=drain_seconds,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )
    try:
        draining = DrainingServer(config, server)
        draining.run(sockets=[listener])
    finally:
        models.close()
    if draining.is_interrupted:
        raise KeyboardInterrupt


def log_to_stderr(level: int = logging.INFO) -> None:
    """One line for each request, of nothing that a client wrote."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("gpt_edge.serve")
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    # it warns of writing to a client that left, which the line of that request says
    logging.getLogger("asyncio").setLevel(logging.ERROR)
