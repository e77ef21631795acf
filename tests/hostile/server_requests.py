"""Requests for `server.py`: by the fields of the API, mutated, and of no kind at all."""

from __future__ import annotations

import json
import random
from typing import Any

PATHS = ("/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/v1/classify")
OTHERS = ("/", "/health", "/metrics", "/v1/models", "/v1/models/%00", "/../etc/passwd", "/%ff", "*")
_NAMES = """
model prompt messages input max_tokens max_completion_tokens n
best_of temperature top_p top_k min_p typical_p presence_penalty
frequency_penalty repetition_penalty no_repeat_ngram_size logit_bias logprobs top_logprobs stop
stop_token_ids bad_words min_tokens ignore_eos special response_format guided_json
guided_regex guided_choice guided_grammar seed echo stream stream_options
user suffix tools encoding_format dimensions threshold __proto__
"""
NAMES = _NAMES.split()
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    8,
    1e400,
    1e-320,
    0.5,
    1.5,
    2**31,
    2**63,
    -(2**63),
    10**400,
    "",
    "a",
    "the end",
    "\x00\x1b[31m\u202e",
    "\ud83d",
    "x" * 300,
    "[a-z]+(",
    "(a+)+$",
    [],
    [[]],
    {},
    [1, 2, 3],
    ["a", "b"],
    ["a", 3],
    [0] * 70,
    {"1": 5, "2": -100},
    {"type": "json_object"},
    {"include_usage": True},
    {"type": "object", "properties": {"a": {"type": "string"}}},
    [{"role": "user", "content": "hi"}],
    [{"role": "user", "content": ["a"]}],
    {"a": {"b": {"c": [1, {"d": None}]}}},
)
OWN = ("Host: 127.0.0.1:PORT", "Content-Type: application/json")
EVIL = ("evil.example", "127.0.0.1.evil.example", "localhost:1", "127.0.0.1:PORT@evil", "[::1", "")
HEADER_CASES: tuple[tuple[str, str, tuple[str, ...], tuple[str, ...]], ...] = (
    *(
        ("GET", "/health", (f"Host: {host}",), ("200",))
        for host in (
            "localhost:PORT",
            "127.0.0.1:PORT",
            "[::1]:PORT",
            "LOCALHOST:PORT",
            "localhost",
        )
    ),
    *(("GET", "/health", (f"Host: {host}",), ("403", "400")) for host in EVIL),
    *(("GET", "/v1/models", (f"Host: {host}",), ("403", "400")) for host in EVIL),
    ("GET", "/health", (), ("403", "400")),
    ("GET", "/health", ("Host: localhost:PORT", "Host: evil.example"), ("200", "403", "400")),
    *(
        ("GET", "/v1/models", (OWN[0], f"Origin: {origin}"), ("403",))
        for origin in ("https://evil.example", "null", "http://localhost:1", "file://", "")
    ),
    *(
        ("GET", "/v1/models", (OWN[0], f"Origin: http://{host}:PORT"), ("200",))
        for host in ("localhost", "127.0.0.1", "[::1]")
    ),
    *(
        ("POST", path, (OWN[0], f"Content-Type: {kind}"), ("415",))
        for path in PATHS
        for kind in ("text/plain", "application/x-www-form-urlencoded")
    ),
    *(("POST", path, (*OWN, "Content-Encoding: gzip"), ("415",)) for path in PATHS[:2]),
    ("GET", "/v1/completions", (OWN[0],), ("405",)),
    ("OPTIONS", "/v1/completions", (*OWN, "Origin: https://evil.example"), ("403",)),
    ("GET", "/nowhere", (OWN[0],), ("404",)),
)


def raw_request(random_: random.Random, port: int) -> tuple[bytes, bool]:
    """The bytes of one request, or of what is none; and whether it is surely whole."""
    kind = random_.random()
    if kind < 0.05:
        return random_.randbytes(random_.randrange(1, 400)), False
    path = random_.choice(PATHS) if random_.random() < 0.9 else random_.choice(OTHERS)
    body = _body(random_, path)
    if kind < 0.3:
        body = _mutated(random_, body)
    method = "POST" if random_.random() < 0.92 else random_.choice(("GET", "PUT", "OPTIONS", "X"))
    length = len(body) if random_.random() < 0.95 else random_.choice((0, -1, 7, 10**9, 10**30))
    is_whole = length == len(body)
    lines = [f"{method} {path} HTTP/1.1", *OWN, f"Content-Length: {length}", "Connection: close"]
    if random_.random() < 0.1:
        lines.insert(random_.randrange(1, len(lines)), _header(random_))
        is_whole = False
    head = "\r\n".join(lines).replace("PORT", str(port)).encode("latin-1")
    if random_.random() < 0.03:
        head = _mutated(random_, head)
        is_whole = False
    return head + b"\r\n\r\n" + body, is_whole


def _body(random_: random.Random, path: str) -> bytes:
    own = "tiny-edge" if path.endswith("/completions") else "sentiment-6m-int8"
    fields: dict[str, Any] = {
        "model": own if random_.random() < 0.95 else "tiny-edge",
        "max_tokens": random_.randrange(1, 6),
    }
    if path.endswith("/chat/completions"):
        fields["messages"] = [{"role": "user", "content": random_.choice(("a b", ""))}]
    else:
        name = "prompt" if path.endswith("/completions") else "input"
        fields[name] = random_.choice(("a b", "the end", ["a", "b"]))
    for name in random_.sample(NAMES, random_.choice((0, 0, 1, 1, 2, 3))):
        fields[name] = random_.choice(VALUES)
    if random_.random() < 0.1:
        fields.pop(random_.choice(list(fields)))
    return json.dumps(fields).encode()


def _header(random_: random.Random) -> str:
    return random_.choice(
        (
            "Transfer-Encoding: chunked",
            "Content-Length: 3",
            "Expect: 100-continue",
            "Authorization: Bearer x",
            "Origin: https://evil.example",
            "X-A: " + "b" * random_.choice((10, 9000, 70_000)),
            "Upgrade: websocket",
            "X-\x01: y",
            " folded: z",
        )
    )


def _mutated(random_: random.Random, data: bytes) -> bytes:
    """Some bytes changed, taken away, doubled, or cut off."""
    found = bytearray(data)
    for _ in range(random_.randrange(1, 6)):
        at = random_.randrange(len(found) or 1)
        match random_.randrange(4):
            case 0:
                found[at : at + 1] = random_.randbytes(1)
            case 1:
                del found[at : at + random_.randrange(1, 9)]
            case 2:
                found[at:at] = found[at : at + 20] * random_.randrange(1, 40)
            case _:
                del found[at:]
    return bytes(found)
