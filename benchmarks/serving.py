"""How `gpt-edge serve` answers many clients: throughput of eight beside one, the first token of a
short request while a long prompt is read, and a soak.

    python benchmarks/serving.py BUNDLE [--threads N] [--soak N] [--rounds N] [--peer ADDRESS]

--peer is another server with OpenAI's API and the same shape of model, such as
`benchmarks/speed/llamacpp_server.py` or `python -m llama_cpp.server`; both are measured in
alternation, with prompts as texts, which every server takes, and nothing else is. Each
figure comes from one server process, started here; the answers are compared with what `complete`
gives for the same prompt and seed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

import gpt_edge

N_NEW = 48
N_PROMPT = 32
N_CLIENTS = 8
LIMITS = httpx.Limits(max_connections=64)


@contextmanager
def serving(bundle: str, threads: int | None, *options: str) -> Iterator[tuple[httpx.Client, int]]:
    """A server process and a client of it; the pid too."""
    command = [sys.executable, "-m", "gpt_edge", "serve", bundle, "--port", "0", "--quiet"]
    command += options
    if threads:
        command += ["--threads", str(threads)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    port = line.partition("http://127.0.0.1:")[2].partition(",")[0]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600, limits=LIMITS) as client:
        try:
            yield client, process.pid
        finally:
            process.terminate()
            process.wait()


def complete(client: httpx.Client, prompt: list[int] | str, seed: int, top_k: int = 0) -> str:
    """One whole text. top_k: 0 chooses among the whole vocabulary."""
    body = {"prompt": prompt, "max_tokens": N_NEW, "seed": seed, "ignore_eos": True}
    body |= {"temperature": 1.0, "top_k": top_k}  # whatever the model's own defaults are
    answer = client.post("/v1/completions", json=body)
    answer.raise_for_status()
    found = answer.json()
    assert found["usage"]["completion_tokens"] == N_NEW
    text: str = found["choices"][0]["text"]
    return text


def first_token_seconds(client: httpx.Client, prompt: list[int]) -> float:
    """Until the first event of a stream."""
    body = {"prompt": prompt, "max_tokens": 4, "stream": True, "ignore_eos": True}
    started = time.perf_counter()
    with client.stream("POST", "/v1/completions", json=body) as answer:
        next(answer.iter_lines())
        return time.perf_counter() - started


def throughput(
    client: httpx.Client, prompts: Sequence[list[int] | str], n_clients: int, top_k: int = 0
) -> float:
    """Tokens a second of all clients together."""
    started = time.perf_counter()
    with ThreadPoolExecutor(n_clients) as pool:
        list(pool.map(lambda job: complete(client, job[1], job[0], top_k), enumerate(prompts)))
    return len(prompts) * N_NEW / (time.perf_counter() - started)


def measure_beside(
    ours: httpx.Client, address: str, prompts: list[str], n_rounds: int
) -> dict[str, Any]:
    """Throughput of this server and another one: one client, eight, in alternating rounds."""
    with httpx.Client(base_url=address, timeout=600, limits=LIMITS) as peer:
        clients = {"gpt-edge": ours, "peer": peer}
        rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
        for client in clients.values():  # warms up
            complete(client, prompts[0], 0)
        for _ in range(n_rounds):
            for name, client in clients.items():
                found = throughput(client, prompts[:2], 1), throughput(client, prompts, N_CLIENTS)
                rounds[name].append(found)
    return {
        name: {
            "tokens_a_second_one": round(statistics.median(one for one, _ in found), 1),
            "tokens_a_second_eight": round(statistics.median(all_ for _, all_ in found), 1),
        }
        for name, found in rounds.items()
    }


def first_token_beside_a_prompt(
    client: httpx.Client, random_: random.Random, v: int, n: int
) -> float:
    """Of a short request that comes while a prompt of `n` tokens is read."""
    long_prompt = [random_.randrange(v) for _ in range(n)]
    body = {"prompt": long_prompt, "max_tokens": 1}
    reader = threading.Thread(target=client.post, args=["/v1/completions"], kwargs={"json": body})
    reader.start()
    time.sleep(0.05)
    seconds = first_token_seconds(client, [random_.randrange(v) for _ in range(16)])
    reader.join()
    return seconds


def memory(pid: int) -> tuple[int, int]:
    """Resident bytes and open descriptors of a process."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(f"/proc/{pid}/fd"))


def soak(client: httpx.Client, pid: int, n: int, v: int) -> dict[str, Any]:
    """Many requests, a tenth of which is left in the middle and a twentieth of which is wrong."""
    random_ = random.Random(1)
    kinds = [random_.random() for _ in range(n)]

    def one(kind: float) -> int:
        prompt = [int(kind * 1e6 + place * 7) % v for place in range(1 + int(kind * 97) % 24)]
        body = {"prompt": prompt, "max_tokens": 1 + int(kind * 1000) % 24, "ignore_eos": True}
        if kind < 0.05:
            return client.post("/v1/completions", json=body | {"n": -1}).status_code
        if kind < 0.15:
            with client.stream("POST", "/v1/completions", json=body | {"stream": True}) as answer:
                next(answer.iter_lines())
                return answer.status_code
        return client.post("/v1/completions", json=body).status_code

    with ThreadPoolExecutor(N_CLIENTS) as pool:
        warm = list(pool.map(one, kinds[: n // 5]))
        before, descriptors = memory(pid)
        statuses = warm + list(pool.map(one, kinds[n // 5 :]))
    time.sleep(1)
    after, descriptors_after = memory(pid)
    return {
        "requests": n,
        "statuses": {str(status): statuses.count(status) for status in sorted(set(statuses))},
        "rss_growth": round(after / before - 1, 4),
        "descriptors": [descriptors, descriptors_after],
    }


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--soak", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", metavar="ADDRESS")
    arguments = parser.parse_args()
    random_ = random.Random(0)
    model = gpt_edge.load(arguments.bundle, threads=arguments.threads)
    v = model.tokenizer.vocab_size
    n_ctx = model.session.config.n_ctx
    prompts = [[random_.randrange(v) for _ in range(N_PROMPT)] for _ in range(2 * N_CLIENTS)]
    found: dict[str, Any] = {"bundle": model.session.name, "threads": model.session.threads}
    with serving(arguments.bundle, arguments.threads) as (client, _):
        if arguments.peer is not None:
            spelled = [model.tokenizer.decode(prompt) for prompt in prompts]
            both = measure_beside(client, arguments.peer, spelled, arguments.rounds)
            print(json.dumps(both, indent=1))
            return
        texts = [complete(client, prompts[0], 0)]
        alone = list(
            model.generate_ids(
                prompts[0],
                max_new_tokens=N_NEW,
                seed=0,
                temperature=1.0,
                top_k=v,
                ignore_end_token=True,
            )
        )
        found["equals_complete"] = texts[0] == model.tokenizer.decode(alone)
        rounds = [
            (throughput(client, prompts[:2], 1), throughput(client, prompts, N_CLIENTS))
            for _ in range(arguments.rounds)
        ]
        found["tokens_a_second_one"] = round(statistics.median(one for one, _ in rounds), 1)
        found["tokens_a_second_eight"] = round(statistics.median(all_ for _, all_ in rounds), 1)
        found["eight_to_one"] = round(statistics.median(all_ / one for one, all_ in rounds), 2)
        few = [
            (throughput(client, prompts[:2], 1, 40), throughput(client, prompts, N_CLIENTS, 40))
            for _ in range(arguments.rounds)
        ]
        found["eight_to_one_top_k_40"] = round(
            statistics.median(all_ / one for one, all_ in few), 2
        )
        idle = [first_token_seconds(client, prompts[0][:16]) for _ in range(5)]
        beside = [
            first_token_beside_a_prompt(client, random_, v, min(900, n_ctx - 8)) for _ in range(5)
        ]
        found["first_token_idle"] = round(statistics.median(idle), 4)
        found["first_token_beside_a_prompt"] = round(statistics.median(beside), 4)
    if arguments.soak:
        # else keys and values of earlier prompts, up to 256 MB, would count as growth
        with serving(arguments.bundle, arguments.threads, "--prefix-cache", "0") as running:
            found["soak"] = soak(*running, arguments.soak, v)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
