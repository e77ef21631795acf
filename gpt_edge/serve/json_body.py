"""The body of a request as a JSON object, within limits: a client can send anything, slowly.

Depth and nodes are counted before the text is parsed, so that no parser recurses deeply.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from starlette.requests import ClientDisconnect, Request

from gpt_edge.serve.api_error import ApiError

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 10_000
BODY_SECONDS = 30.0  # for the whole body to arrive
# a whole string, or what begins or ends a value
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)


async def read_object(request: Request) -> dict[str, Any]:
    """The JSON object that a POST brings. Raises ApiError 400, 408, 413 or 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, f"the body must be application/json, got {kind[:60]!r}")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise ApiError(415, "a compressed body is not accepted")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await _read_bytes(request)
    except TimeoutError:
        raise ApiError(408, f"the body did not arrive within {BODY_SECONDS:.0f} seconds") from None
    except ClientDisconnect:
        raise ApiError(400, "the client left before its request was complete") from None
    return parse_object(body)


async def _read_bytes(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise ApiError(413, f"the body has more than {MAX_BYTES} bytes")
    return bytes(body)


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object: UTF-8, without duplicate keys, NaN and Infinity, and not too deep.
    Raises ApiError 400.
    """
    _check_shape(body)
    try:
        value = json.loads(body, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise ApiError(400, "the body is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not valid JSON: {error!s:.200}") from None
    if not isinstance(value, dict):
        raise ApiError(400, f"the body must be a JSON object, got {type(value).__name__}")
    return value


def _check_shape(body: bytes) -> None:
    """Refuse what is too deep or has too many values; a comma or bracket begins one."""
    depth = 0
    n_nodes = 1
    for match in _TOKENS.finditer(body):
        mark = match[0][:1]
        if mark in b"[{":
            depth += 1
        elif mark in b"]}":
            depth -= 1
        n_nodes += mark in b"[{,"
        if depth > MAX_DEPTH:
            raise ApiError(400, f"the body is nested more than {MAX_DEPTH} levels deep")
        if n_nodes > MAX_NODES:
            raise ApiError(400, f"the body has more than {MAX_NODES} values")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r:.80} comes twice")
    return values


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
