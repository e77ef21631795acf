"""What the server refuses: bodies, fields, hosts, origins, keys, slow clients; and how it ends."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gpt_edge.serve import encoders, json_body, server
from gpt_edge.serve.api_error import ApiError
from gpt_edge.serve.fields import Fields
from gpt_edge.serve.guard import Access
from gpt_edge.serve.json_body import parse_object
from tests.serve.conftest import Running, start
from tests.support.runner import run
from tests.support.tiny_model import bundle_path

REPO = Path(__file__).resolve().parents[2]
WRONG_FIELDS: list[dict[str, Any]] = [
    {"prompt": None},
    {"prompt": []},
    {"prompt": 3},
    {"prompt": [""] * 17},
    {"prompt": [277]},
    {"prompt": [[]]},
    {"prompt": ["a", 3]},
    {"max_tokens": -1},
    {"max_tokens": 0},
    {"max_tokens": 65},
    {"max_tokens": 1.5},
    {"max_tokens": True},
    {"n": 0},
    {"n": 9},
    {"n": 3, "best_of": 2},
    {"n": 8, "prompt": ["a"] * 5},
    {"best_of": 2, "stream": True},
    {"temperature": -0.1},
    {"temperature": 2.1},
    {"temperature": "1"},
    {"temperature": 10**400},
    {"presence_penalty": -(10**400)},
    {"logit_bias": {"1": 10**400}},
    {"top_p": 0},
    {"top_p": 1.1},
    {"top_k": -2},
    {"min_p": 2},
    {"presence_penalty": 2.1},
    {"frequency_penalty": -3},
    {"repetition_penalty": 0},
    {"seed": 1.0},
    {"seed": 1 << 63},
    {"logprobs": 21},
    {"logit_bias": {"277": 1}},
    {"logit_bias": {"a": 1}},
    {"logit_bias": {"1": 101}},
    {"logit_bias": {str(id): 1 for id in range(301)}},
    {"logit_bias": [1]},
    {"stop": ""},
    {"stop": ["a"] * 5},
    {"stop": "a" * 65},
    {"stop": 3},
    {"stop_token_ids": [277]},
    {"bad_words": [""]},
    {"echo": 1},
    {"stream": "yes"},
    {"stream_options": {"include_usage": True}},
    {"stream": True, "stream_options": {"other": 1}},
    {"suffix": "x"},
    {"response_format": {"type": "yaml"}},
    {"response_format": {"type": "json_schema"}},
    {"guided_regex": "a", "guided_choice": ["b"]},
    {"guided_choice": []},
    {"tools": []},
    {"model": 3},
    {"prompt": "\ud800"},
]


@pytest.mark.parametrize("fields", WRONG_FIELDS, ids=lambda fields: str(fields)[:50])
def test_a_wrong_field_is_400_and_named(fields: dict[str, Any], served: Running) -> None:
    body = json.dumps({"model": "tiny-edge", "prompt": "a", "max_tokens": 2, **fields})
    answer = served.client.post(
        "/v1/completions", content=body, headers={"Content-Type": "application/json"}
    )
    error = answer.json()["error"]
    assert answer.status_code == 400, answer.text
    assert error["type"] == "invalid_request_error"
    assert error["param"] in fields or any(name in error["message"] for name in fields)


BODIES: list[tuple[bytes, int, str]] = [
    (b"", 400, "not valid JSON"),
    (b"{", 400, "not valid JSON"),
    (b"[1]", 400, "must be a JSON object, got list"),
    (b'{"a": 1, "a": 2}', 400, "the key 'a' comes twice"),
    (b'{"a": NaN}', 400, "NaN is no JSON number"),
    (b'{"a": "\xff"}', 400, "not UTF-8"),
    (b'{"a":' * 40 + b"1" + b"}" * 40, 400, "nested more than 32 levels"),
    (b"[" * 100_000, 400, "nested more than 32 levels"),
    (b'{"a": [' + b"1," * 10_001 + b"1]}", 400, "more than 10000 values"),
    (b'{"a": "' + b"x" * (1 << 20) + b'"}', 413, "more than 1048576 bytes"),
]


@pytest.mark.parametrize(("body", "status", "message"), BODIES)
def test_a_body_that_is_no_small_object_is_refused(
    body: bytes, status: int, message: str, served: Running
) -> None:
    answer = served.client.post(
        "/v1/completions", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]


def test_brackets_in_strings_are_no_depth() -> None:
    text = {"a": "[" * 500 + '\\"' + "{" * 500, "b": ['"', "]" * 99]}
    assert parse_object(json.dumps(text).encode()) == text


def test_other_types_of_body_and_other_methods_are_refused(served: Running) -> None:
    for headers in (
        {"Content-Type": "text/plain"},
        {},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ):
        answer = served.client.post("/v1/completions", content=b"{}", headers=headers)
        assert answer.status_code == 415
    assert served.client.get("/v1/completions").status_code == 405
    answer = served.client.get("/v2/completions")
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "not_found_error"


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        ("localhost:{port}", True),
        ("LOCALHOST:{port}", True),
        ("127.0.0.1:{port}", True),
        ("[::1]:{port}", True),
        ("localhost", True),
        ("localhost:1", False),
        ("evil.example", False),
        ("evil.example:{port}", False),
        ("localhost.evil.example:{port}", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
        ("localhost:{port}@evil.example", False),
    ],
)
def test_only_its_own_names_are_answered(host: str, is_own: bool, served: Running) -> None:
    headers = {"Host": host.format(port=served.port)}
    answer = served.client.get("/health", headers=headers)
    assert answer.status_code == (200 if is_own else 403)


@pytest.mark.parametrize(
    ("origin", "is_own"),
    [
        ("http://localhost:{port}", True),
        ("http://127.0.0.1:{port}", True),
        ("https://evil.example", False),
        ("null", False),
        ("http://localhost:1", False),
        ("", False),
    ],
)
def test_pages_of_other_sites_may_not_ask(origin: str, is_own: bool, served: Running) -> None:
    headers = {"Origin": origin.format(port=served.port)}
    answer = served.client.get("/v1/models", headers=headers)
    assert answer.status_code == (200 if is_own else 403)
    assert "access-control-allow-origin" not in answer.headers


def test_a_page_that_is_allowed_may_ask_and_others_need_the_key() -> None:
    def access(port: int) -> Access:
        return Access(port, ["my.example"], ["https://page.example"], "k3y")

    for served in start(access):
        get = served.client.get
        origin = {"Origin": "https://page.example"}
        assert get("/health", headers={"Host": "my.example"}).status_code == 200
        assert get("/ready").status_code == 200
        for path in ("/", "/site.json", "/js/page/main.js"):
            assert get(path).status_code == 200
        for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": "k3y"}):
            answer = get("/v1/models", headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert "k3y" not in answer.text
        for headers in ({"Authorization": "Bearer k3y"}, {"X-Api-Key": "k3y"}):
            assert get("/v1/models", headers=headers).status_code == 200
        answer = get("/v1/models", headers={**origin, "Authorization": "Bearer k3y"})
        assert answer.headers["access-control-allow-origin"] == "https://page.example"
        asked = served.client.options("/v1/completions", headers=origin)
        assert asked.status_code == 204
        assert asked.headers["access-control-allow-origin"] == "https://page.example"
        assert served.client.options("/v1/completions").status_code == 401


def test_the_page_has_nothing_from_elsewhere(served: Running) -> None:
    for path in ("/", "/js/page/main.js", "/js/model.js", "/page.css"):
        answer = served.client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith("default-src 'self'")
        assert "http://" not in answer.text
        assert "https://" not in answer.text
    assert served.client.get("/site.json").json() == {"engine": "server"}
    assert served.client.get("/service_worker.js").status_code == 404


def test_more_vectors_and_labels_than_may_wait_are_429(
    served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"model": "sentiment-6m-int8", "input": "good"}
    for path in ("/v1/embeddings", "/v1/classify"):
        assert served.post(path, body).status_code == 200
        with monkeypatch.context() as patched:
            patched.setattr(encoders, "MAX_PENDING", 0)
            refused = served.post(path, body)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert served.post(path, body).status_code == 200


def test_metrics_count_answers_and_tokens(served: Running) -> None:
    served.complete(max_tokens=3, ignore_eos=True)
    served.client.get("/nowhere/" + "x" * 50)
    text = served.client.get("/metrics").text
    assert 'gpt_edge_requests_total{path="/v1/completions",status="200"}' in text
    assert 'gpt_edge_completion_tokens_total{model="tiny-edge"}' in text
    assert 'gpt_edge_waiting{model="tiny-edge"} 0.0' in text
    assert "nowhere" not in text


def send_slowly(port: int, chunks: list[bytes], pause: float) -> float:
    """How long the server lets a client send these, one by one."""
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(30)
        try:
            for chunk in chunks:
                connection.sendall(chunk)
                time.sleep(pause)
            connection.recv(1 << 16)
            while connection.recv(1 << 16):
                pass
        except OSError:
            pass
    return time.monotonic() - started


def test_slow_clients_are_closed(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.5)
    monkeypatch.setattr(json_body, "BODY_SECONDS", 0.5)
    assert send_slowly(served.port, [], 0) < 20  # says nothing
    assert send_slowly(served.port, [b"G"] * 200, 0.05) < 20  # a head without an end
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: localhost:{served.port}\r\n"
        "Content-Type: application/json\r\nContent-Length: 500\r\n\r\n"
    )
    assert send_slowly(served.port, [head.encode(), *[b"x"] * 200], 0.05) < 20
    assert served.complete().status_code == 200


def test_random_bodies_never_fail_the_server(served: Running) -> None:
    """Each answer is typed; none is a 500."""
    random_ = random.Random(5)
    names = ["prompt", "max_tokens", "n", "temperature", "stop", "seed", "logit_bias", "echo"]
    values: list[Any] = [
        None,
        0,
        -1,
        2,
        1e400,
        1.5,
        "",
        "a",
        [],
        {},
        [[]],
        True,
        "x" * 70,
        [1, "a"],
    ]
    statuses = set()
    for _ in range(80):
        body = {"model": "tiny-edge", "prompt": "a", "max_tokens": 2}
        for name in random_.sample(names, random_.randrange(3)):
            body[name] = random_.choice(values)
        raw = json.dumps(body).encode()
        if random_.random() < 0.3:
            place = random_.randrange(len(raw))
            raw = raw[:place] + random_.randbytes(2) + raw[place + 1 :]
        answer = served.client.post(
            "/v1/completions", content=raw, headers={"Content-Type": "application/json"}
        )
        statuses.add(answer.status_code)
        assert answer.status_code in (200, 400, 404), answer.text
        assert "Traceback" not in answer.text
    assert statuses >= {200, 400}


def test_fields_name_what_is_wrong() -> None:
    with pytest.raises(ApiError, match="a must be a whole number from 1 to 3, got 4"):
        Fields({"a": 4}).whole("a", 1, 3)
    with pytest.raises(ApiError, match=r"x\.b must be true or false, got 1"):
        Fields({"b": 1}, "x.").flag("b")


@pytest.fixture
def process() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`gpt-edge serve` as a user starts it."""
    command = [sys.executable, "-m", "gpt_edge", "serve", str(bundle_path()), "--port", "0"]
    command += ["--drain-seconds", "60"]
    ran = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )
    assert ran.stderr is not None
    line = ran.stderr.readline()
    port = int(line.partition("http://127.0.0.1:")[2].partition(",")[0])
    try:
        yield ran, port
    finally:
        ran.kill()
        ran.wait()
        ran.stderr.close()


def test_sigterm_lets_texts_end_and_the_port_is_free(
    process: tuple[subprocess.Popen[str], int],
) -> None:
    ran, port = process
    body = {"prompt": "a", "max_tokens": 60, "ignore_eos": True, "stream": True}
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
        client.stream("POST", "/v1/completions", json=body) as answer,
    ):
        lines = answer.iter_lines()
        next(lines)
        ran.send_signal(signal.SIGTERM)
        rest = list(lines)
    assert rest[-1] == "" or rest[-2:] == ["data: [DONE]", ""]
    assert "data: [DONE]" in rest
    assert ran.wait(60) == 0
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


def test_ctrl_c_ends_an_idle_server_at_once_with_130(
    process: tuple[subprocess.Popen[str], int],
) -> None:
    ran, port = process
    assert httpx.get(f"http://127.0.0.1:{port}/ready", timeout=60).status_code == 200
    ran.send_signal(signal.SIGINT)
    assert ran.wait(60) == 130


def test_a_second_sigterm_ends_what_is_under_way(
    process: tuple[subprocess.Popen[str], int],
) -> None:
    """The drain would wait for a body that never comes."""
    ran, port = process
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 99\r\n"
    with socket.create_connection(("127.0.0.1", port), 60) as client:
        client.sendall(f"{head}Content-Type: application/json\r\n\r\n{{".encode())
        time.sleep(0.3)
        ran.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            ran.wait(1)
        started = time.monotonic()
        ran.send_signal(signal.SIGTERM)
        assert ran.wait(60) == 0
        assert time.monotonic() - started < 3


def test_an_address_that_others_reach_needs_a_key() -> None:
    for command, message in (
        (["--host", "0.0.0.0"], "--host 0.0.0.0 can be reached by others: give --api-key"),
        (["no-such-bundle", "--port", "0"], "no-such-bundle"),
    ):
        ran = run("serve", *command)
        assert ran.code in (1, 2)
        assert message in ran.err


def test_a_port_in_use_is_one_line(served: Running) -> None:
    ran = run("serve", "--port", str(served.port))
    assert ran.code == 1
    assert f"cannot listen on 127.0.0.1 port {served.port}" in ran.err
