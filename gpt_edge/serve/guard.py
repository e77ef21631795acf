"""What stands before every route: whom the server answers, and what it writes down.

A page of another site can make a browser send requests to this machine; the Host and Origin of a
request tell (DNS rebinding, cross-site requests).
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpt_edge.serve.api_error import ApiError
from gpt_edge.serve.metrics import Metrics
from gpt_edge.serve.page import page_paths

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
SUPERVISED = ("/health", "/ready")  # answered without a key, and so is the page, which asks for it
MAX_HEADERS = 100
log = logging.getLogger("gpt_edge.serve")


@dataclass(frozen=True, slots=True)
class Access:
    """Whom the server answers. hosts: names that a request's Host may have, besides this machine's
    own; origins: of pages elsewhere that may ask, exactly; api_key: None answers everyone.
    """

    port: int
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    api_key: str | None = None

    def check(self, path: str, headers: Headers, *, is_preflight: bool = False) -> None:
        """Raise ApiError 401, 403 or 431. is_preflight: a browser's question whether a page may
        ask, which brings no key.
        """
        if len(headers) > MAX_HEADERS:
            raise ApiError(431, f"the request has more than {MAX_HEADERS} headers")
        host = headers.get("host", "")
        if not self._is_own(host):
            raise ApiError(
                403, f"the Host {host[:80]!r} is not this server's: start it with --allow-host"
            )
        origin = headers.get("origin")
        if origin is not None and not self._is_own_origin(origin):
            raise ApiError(
                403, f"pages of {origin[:80]!r} may not ask: start the server with --cors-origin"
            )
        is_public = is_preflight or path in SUPERVISED or path in page_paths()
        if self.api_key is not None and not is_public:
            self._check_key(headers)

    def _is_own(self, host: str) -> bool:
        if not host:
            return False
        name, separator, port = host.rpartition(":")
        if not separator or "]" in port:  # no port: "localhost", "[::1]"
            name, port = host, str(self.port)
        is_known = name.lower() in LOOPBACK and port == str(self.port)
        return is_known or host in self.hosts or name in self.hosts

    def _is_own_origin(self, origin: str) -> bool:
        if origin in self.origins:
            return True
        scheme, separator, host = origin.partition("://")
        return bool(separator) and scheme in ("http", "https") and self._is_own(host)

    def _check_key(self, headers: Headers) -> None:
        assert self.api_key is not None
        scheme, _, key = headers.get("authorization", "").partition(" ")
        key = key if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if not hmac.compare_digest(key.encode(), self.api_key.encode()):
            raise ApiError(
                401,
                "a valid API key is needed: Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


class Guard:
    """ASGI middleware: checks, headers for pages elsewhere, one line of log, metrics."""

    def __init__(self, app: ASGIApp, access: Access, metrics: Metrics) -> None:
        self._app = app
        self._access = access
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; whatever else a server announces is passed on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0
        headers = Headers(scope=scope)
        origin = headers.get("origin")

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if origin is not None and origin in self._access.origins:
                    added = MutableHeaders(scope=message)
                    added["Access-Control-Allow-Origin"] = origin
                    added["Vary"] = "Origin"
            await send(message)

        try:
            is_preflight = scope["method"] == "OPTIONS" and origin in self._access.origins
            self._access.check(scope["path"], headers, is_preflight=is_preflight)
            if is_preflight:
                await _preflight(scope, receive, watched)
            else:
                await self._app(scope, receive, watched)
        except ApiError as error:
            await error.response()(scope, receive, watched)
        finally:
            seconds = time.perf_counter() - started
            self._note(scope, status, seconds)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        """Log and count; a path that is no route's is written as one, or its lines could forge
        others and its names fill the memory.
        """
        route = scope.get("route")
        path = getattr(route, "path", "other")
        self._metrics.requests.labels(path, str(status)).inc()
        self._metrics.seconds.labels(path).observe(seconds)
        log.info("%s %s %s %.0f ms", scope["method"][:10], path, status or "left", seconds * 1e3)


async def _preflight(scope: Scope, receive: Receive, send: Send) -> None:
    from starlette.responses import Response

    headers = {
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": "authorization, content-type",
        "Access-Control-Max-Age": "600",
    }
    await Response(status_code=204, headers=headers)(scope, receive, send)
