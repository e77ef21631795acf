"""Serving a site on this machine, with the headers that let wasm use threads."""

from __future__ import annotations

import functools
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from gpt_edge.errors import OutputError
from gpt_edge.web.site import HEADERS
from gpt_edge.web.static_files import MEDIA_TYPES

HOST = "127.0.0.1"


class _Handler(SimpleHTTPRequestHandler):
    """Files of one folder, for this machine alone."""

    extensions_map = {f".{end}": kind for end, kind in MEDIA_TYPES.items()}  # noqa: RUF012

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a page asks for fifty files."""


def bind_site(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of a folder; `serve_forever` runs it. port: 0 takes a free one. Raises OutputError
    for a port that is taken.
    """
    handler = functools.partial(_Handler, directory=str(folder))
    try:
        return ThreadingHTTPServer((HOST, port), handler)
    except OSError as error:
        raise OutputError(
            f"cannot listen on port {port}: {error.strerror}",
            hint="take another one with --port, or a free one with --port 0",
        ) from error
