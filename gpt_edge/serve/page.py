"""The page at `/`: that of `gpt-edge web`, told to ask this server instead of running a model."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gpt_edge.web.static_files import media_type, page_files

INDEX = "index.html"
SITE = b'{"engine": "server"}\n'  # the one switch
LEFT_OUT = ("service_worker.js",)  # it keeps files for the time without a network
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def page_routes() -> list[Route]:
    """A route for each file of the page."""
    return [
        Route(path, _sender(content, media_type(name)), methods=["GET"])
        for path, (name, content) in _files().items()
    ]


@functools.cache
def page_paths() -> frozenset[str]:
    """The paths of the routes. What lies there is no secret: it comes with the package."""
    return frozenset(_files())


def _files() -> dict[str, tuple[str, bytes]]:
    """Name and content by path."""
    files = {**page_files(), "site.json": SITE}
    return {
        "/" if name == INDEX else f"/{name}": (name, content)
        for name, content in files.items()
        if name not in LEFT_OUT
    }


def _sender(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def send(request: Request) -> Response:
        return Response(content, headers={**HEADERS, "Content-Type": kind})

    return send
