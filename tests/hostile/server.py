"""The server under hostile clients, at length; `tests/serve` has the short forms.

    python -m tests.hostile.server --requests 20000 [--only fuzz slow …]

Starts `gpt-edge serve` with the tiny model and a classifier, and prints a row for each part: what
was tried, what came of it, and what should not have happened, which makes the exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.hostile.server_requests import HEADER_CASES, raw_request
from tests.support.tiny_model import bundle_path

CANARY = "canary7391"
# an answer, or what uvicorn says of bytes that are no request
LOG_LINE = re.compile(
    r"\d\d:\d\d:\d\d \S{1,10} \S+ (\d{3}|left) \d+ ms|Invalid HTTP request received\."
)
N_SLOW = 50
N_CLIENTS = 8
HEALTH_SECONDS = 0.1


@dataclass
class Server:
    """A server process. log: where its standard error goes."""

    process: subprocess.Popen[bytes]
    port: int
    client: httpx.Client
    log: Path

    def complete(self, **fields: Any) -> httpx.Response:
        body = {"model": "tiny-edge", "prompt": "the end", "max_tokens": 6, **fields}
        return self.client.post("/v1/completions", json=body)


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server until the block ends."""
    log = folder / "log"
    bundles = [str(bundle_path()), "sentiment-6m-int8"]
    template = folder / "template"
    template.write_text("{% for message in messages %}{{ message.content }}\n{% endfor %}")
    command = [sys.executable, "-m", "gpt_edge", "serve", *bundles, "--port", "0", "--threads", "1"]
    command += ["--chat-template", str(template)]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stderr=file)
    while (found := re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())) is None:
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    port = int(found[1])
    client = httpx.Client(
        base_url=f"http://127.0.0.1:{port}",
        timeout=300,
        limits=httpx.Limits(max_connections=200),
        headers={"Connection": "close"},  # a kept one may be closed just as it is used again
    )
    with client:
        try:
            yield Server(process, port, client, log)
        finally:
            process.kill()
            process.wait()


def exchange(port: int, data: bytes, is_whole: bool = True) -> bytes:
    """Send bytes on a connection of their own, and return what is answered. is_whole: wait for the
    answer; else say that nothing follows, which a server may take for a client that left.
    """
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.settimeout(20)
        answer = b""
        try:
            connection.sendall(data)
            if not is_whole:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(1 << 16):
                answer += part
        except OSError:
            pass  # closed in the middle of a request that is none
        return answer


def fuzz(server: Server, n: int) -> tuple[str, list[str]]:
    """R7.1: requests by the schema, mutated ones and raw bytes, while `/health` is asked."""
    problems: list[str] = []
    statuses: Counter[str] = Counter()
    waits: list[float] = []
    is_over = threading.Event()

    def ask_health() -> None:
        own = {"base_url": server.client.base_url, "headers": server.client.headers}
        with httpx.Client(**own, timeout=300) as client:
            while not is_over.wait(0.05):
                started = time.perf_counter()
                client.get("/health").raise_for_status()
                waits.append(time.perf_counter() - started)

    def one(seed: int) -> None:
        answer = exchange(server.port, *raw_request(random.Random(seed), server.port))
        status = answer[9:12].decode("latin-1") or "closed"
        statuses[status] += 1
        if status.startswith("5") or b"Traceback" in answer or b'File "' in answer:
            problems.append(f"seed {seed}: {answer[:200]!r}")

    watcher = threading.Thread(target=ask_health)
    watcher.start()
    try:
        with ThreadPoolExecutor(N_CLIENTS) as pool:
            list(pool.map(one, range(n)))
    finally:
        is_over.set()
        watcher.join()
    if server.process.poll() is not None:
        problems.append("the server ended")
    waits.sort()
    shown = ", ".join(f"{status}: {count:,}" for status, count in statuses.most_common())
    median, longest = waits[len(waits) // 2] * 1e3, waits[-1] * 1e3
    n_soon = sum(wait <= HEALTH_SECONDS for wait in waits)
    health = (
        f"`/health` meanwhile {n_soon:,} of {len(waits):,} times within {HEALTH_SECONDS * 1e3:.0f} "
        f"ms, {median:.0f} ms the median, {longest:.0f} the longest"
    )
    return f"{n:,} requests ({shown}); {health}", problems


def headers(server: Server, n: int) -> tuple[str, list[str]]:
    """R7.6: Host, Origin and type of body."""
    problems = []
    for method, path, fields, expected in HEADER_CASES:
        lines = [f"{method} {path} HTTP/1.1", *fields, "Connection: close", "Content-Length: 2"]
        text = "\r\n".join([*lines, "", "{}"]).replace("PORT", str(server.port))
        status = exchange(server.port, text.encode("latin-1"))[9:12].decode()
        if status not in expected:
            problems.append(f"{method} {path} {fields}: {status}, not {expected}")
    return f"{len(HEADER_CASES)} cases", problems


def slow(server: Server, n: int) -> tuple[str, list[str]]:
    """R7.2: heads and bodies of a byte a second, and connections that say nothing."""
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        "Content-Type: application/json\r\nContent-Length: 500\r\n\r\n"
    ).encode()
    kinds = {"heads": (b"", b"G", 10.0), "bodies": (head, b" ", 30.0), "silent": (b"", b"", 10.0)}

    def last(kind: str) -> float:
        start, drop, _ = kinds[kind]
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.settimeout(1)
            connection.sendall(start)
            while time.monotonic() - began < 120:
                try:
                    connection.sendall(drop)
                    if drop == b"":
                        time.sleep(0)
                    if connection.recv(1 << 12) == b"":
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
        return time.monotonic() - began

    with ThreadPoolExecutor(3 * N_SLOW + 1) as pool:
        ends = {kind: [pool.submit(last, kind) for _ in range(N_SLOW)] for kind in kinds}
        time.sleep(2)
        answered = server.complete().status_code
        longest = {kind: max(one.result() for one in found) for kind, found in ends.items()}
    problems = [] if answered == 200 else [f"a request beside them was answered {answered}"]
    for kind, seconds in longest.items():
        if seconds > kinds[kind][2] + 15:  # 10 to read the answer, and the machine may be busy
            problems.append(f"{kind}: closed after {seconds:.0f} s, not {kinds[kind][2]:.0f}")
    shown = ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in longest.items())
    return f"{N_SLOW} of each: the last closed after: {shown}", problems


def crowd(server: Server, n: int) -> tuple[str, list[str]]:
    """R7.3: a hundred clients at once; each is answered, or told to come again."""

    def one(seed: int) -> tuple[int, str | None]:
        answer = server.complete(seed=seed, n=4, temperature=1.0)
        return answer.status_code, answer.headers.get("retry-after")

    with ThreadPoolExecutor(100) as pool:
        found = Counter(pool.map(one, range(500)))
    wrong = [str(key) for key in found if key not in ((200, None), (429, "1"))]
    shown = ", ".join(f"{status}: {count}" for (status, _), count in found.items())
    return f"500 requests of 100 clients ({shown})", wrong


def disconnects(server: Server, n: int) -> tuple[str, list[str]]:
    """R7.4: clients that leave at any moment; then nothing runs, and a text is what it was."""
    before = server.complete(seed=5, temperature=1.0).json()["choices"]
    random_ = random.Random(2)

    def leave(delay: float) -> None:
        body = json.dumps(
            {"model": "tiny-edge", "prompt": "a " * 20, "max_tokens": 30, "stream": delay > 0.02}
        )
        text = (
            f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: "
            f"application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        )
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(text.encode())
            time.sleep(delay)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(leave, [random_.random() * 0.05 for _ in range(200)]))
    deadline = time.monotonic() + 30
    gauge = 'gpt_edge_running{model="tiny-edge"}'
    while is_busy := gauge_of(server, gauge) > 0:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    problems = [f"{gauge} is not 0"] if is_busy else []
    if server.complete(seed=5, temperature=1.0).json()["choices"] != before:
        problems.append("a text changed")
    return "200 clients left", problems


def gauge_of(server: Server, name: str) -> float:
    text = server.client.get("/metrics").text
    return next(
        float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)
    )


def isolation(server: Server, n: int) -> tuple[str, list[str]]:
    """R7.5: interleaved requests; a prompt and a seed give one text, whatever runs beside it."""
    prompts = ["the end", "a b", "they hear the", CANARY]

    def one(number: int) -> tuple[tuple[str, int], str]:
        key = prompts[number % 4], number // 4 % 5
        answer = server.complete(prompt=key[0], seed=key[1], temperature=0.9)
        while answer.status_code == 429:
            time.sleep(0.05)
            answer = server.complete(prompt=key[0], seed=key[1], temperature=0.9)
        return key, answer.json()["choices"][0]["text"]

    with ThreadPoolExecutor(N_CLIENTS) as pool:
        texts: dict[tuple[str, int], set[str]] = {}
        for key, text in pool.map(one, range(1000)):
            texts.setdefault(key, set()).add(text)
    problems = [f"{key}: {len(found)} texts" for key, found in texts.items() if len(found) > 1]
    return f"1,000 requests of {len(texts)} kinds", problems


def log(server: Server, n: int) -> tuple[str, list[str]]:
    """R7.8: one line for each answer, without what clients wrote."""
    text = server.log.read_text(errors="replace")
    lines = text.splitlines()[1:]
    problems = [
        f"a line of the log: {line!r:.150}" for line in lines if not LOG_LINE.fullmatch(line)
    ]
    if CANARY in text:
        problems.append("a prompt is in the log")
    return f"{len(lines):,} lines", problems


def end(server: Server, n: int) -> tuple[str, list[str]]:
    """R7.9: SIGTERM in the middle of texts: exit code 0, and the port is free."""
    with ThreadPoolExecutor(8) as pool:
        for seed in range(8):
            pool.submit(server.complete, seed=seed, max_tokens=40, ignore_eos=True)
        time.sleep(0.05)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        code = server.process.wait(60)
        seconds = time.monotonic() - began
    problems = [] if code == 0 else [f"exit code {code}"]
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", server.port))
    return f"ended after {seconds:.1f} s", problems


PARTS: tuple[Callable[[Server, int], tuple[str, list[str]]], ...] = (
    headers,
    crowd,
    disconnects,
    isolation,
    fuzz,
    slow,
    log,
    end,
)


def main() -> int:
    """Run the parts and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000, help="of the fuzz")
    parser.add_argument("--only", nargs="+", choices=[part.__name__ for part in PARTS])
    given = parser.parse_args()
    n_problems = 0
    print("| part | tried | wrong |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as server:
        for part in PARTS:
            if given.only and part.__name__ not in given.only:
                continue
            tried, problems = part(server, given.requests)
            n_problems += len(problems)
            print(f"| {part.__name__} | {tried} | {len(problems)} |", flush=True)
            for problem in problems[:20]:
                print(f"  {problem}", file=sys.stderr, flush=True)
    return 1 if n_problems else 0


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
