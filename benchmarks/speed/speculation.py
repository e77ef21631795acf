"""What speculation costs and gains: a call of one to eight ids, and texts with and without lookup.

    python benchmarks/speed/speculation.py BUNDLE [--threads N] [--tokens N] [--rounds N]
    python benchmarks/speed/speculation.py BUNDLE --texts STORIES [--draft BUNDLE]

With --texts, a file of documents, a trained model goes on with the beginnings of the first ones,
with a draft, and writes the first ones again behind themselves, with lookup.

Rounds alternate in one process. GPT_EDGE_NATIVE=0 takes onnxruntime's operators.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import gpt_edge
from gpt_edge.generate.generator import Generator

SIZES = (1, 2, 3, 4, 5, 6, 7, 8)
REPEATS = "apples, pears, plums, grapes. "
SEPARATOR = "<|endoftext|>"
PLAIN = "Once upon a time there was a little girl who"


def call_seconds(model: Generator, rounds: int) -> dict[int, float]:
    """The median of a call that reads so many ids behind 100 others."""
    session = model.session
    random = np.random.default_rng(0)
    cache = session.new_cache(capacity=min(256, session.config.n_ctx))
    n_past = min(100, session.config.n_ctx - 8)
    session.forward(random.integers(0, session.config.vocab_size, (1, n_past)), cache)
    seconds: dict[int, list[float]] = {size: [] for size in SIZES}
    for _ in range(rounds + 1):
        for size in SIZES:
            ids = random.integers(0, session.config.vocab_size, size).tolist()
            started = time.perf_counter()
            if size == 1:
                session.decode(ids, cache)
            else:
                session.decode_several(ids, cache)
            seconds[size].append(time.perf_counter() - started)
            cache.crop(n_past)
    return {size: statistics.median(found[1:]) for size, found in seconds.items()}


def gain(model: Generator, prompt: str, n: int, rounds: int, sampled: bool) -> dict[str, Any]:
    """Decoding time without lookup over the time with it, and what was guessed."""
    ratios = []
    settings: dict[str, Any] = {"max_new_tokens": n, "ignore_end_token": True}
    for number in range(rounds):
        if sampled:
            settings |= {"top_k": 40, "temperature": 0.8, "seed": number}
        order = (None, "lookup") if number % 2 else ("lookup", None)
        done = {way: model.complete(prompt, speculate=way, **settings) for way in order}
        assert done[None].ids == done["lookup"].ids
        ratios.append(done[None].decode_seconds / done["lookup"].decode_seconds)
        stats = done["lookup"].speculation
    assert stats is not None
    return {
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in sorted(ratios)],
        "guessed": stats.guessed,
        "accepted": stats.accepted,
        "calls": stats.calls,
    }


def gain_on_texts(
    model: Generator, prompts: Sequence[str], speculate: Any, n: int, rounds: int, sampled: bool
) -> dict[str, Any]:
    """As `gain`, of the time of all prompts together."""
    settings: dict[str, Any] = {"max_new_tokens": n, "ignore_end_token": True}
    ratios, guessed, accepted = [], 0, 0
    for number in range(rounds):
        seconds = {False: 0.0, True: 0.0}
        for index, prompt in enumerate(prompts):
            if sampled:
                settings |= {"top_k": 40, "temperature": 0.8, "seed": index}
            ids = []
            for is_speculating in (False, True) if number % 2 else (True, False):
                way = speculate if is_speculating else None
                done = model.complete(prompt, speculate=way, **settings)
                seconds[is_speculating] += done.decode_seconds
                ids.append(done.ids)
                if done.speculation is not None:
                    guessed += done.speculation.guessed
                    accepted += done.speculation.accepted
            assert ids[0] == ids[1]
        ratios.append(seconds[False] / seconds[True])
    return {
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(ratio, 2) for ratio in sorted(ratios)],
        "guessed": guessed // rounds,
        "accepted": accepted // rounds,
    }


def measure_texts(model: Generator, arguments: argparse.Namespace) -> dict[str, Any]:
    """What lookup gains where a text is written again, and a draft where it goes on."""
    texts = [text.strip() for text in arguments.texts.read_text("utf-8").split(SEPARATOR)]
    tokenizer = model.tokenizer
    fitting = [text for text in texts if 120 <= len(tokenizer.encode(text)) <= 180]
    fitting = fitting[: arguments.documents]
    again = [f"{text}\n\n{' '.join(text.split()[:20])}" for text in fitting]
    begun = [" ".join(text.split()[:20]) for text in fitting]
    n, rounds = arguments.tokens, arguments.rounds
    found = {
        "written again, greedy, lookup": gain_on_texts(model, again, "lookup", n, rounds, False)
    }
    if arguments.draft:
        draft = gpt_edge.load(arguments.draft, threads=arguments.threads)
        for name, sampled in (("greedy", False), ("sampled", True)):
            found[f"going on, {name}, draft"] = gain_on_texts(
                model, begun, draft, n, rounds, sampled
            )
    return found


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", nargs="?")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--tokens", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--texts", type=Path, help=f"documents, separated by {SEPARATOR}")
    parser.add_argument("--documents", type=int, default=8, help="of --texts, of middle length")
    parser.add_argument("--draft", help="a smaller bundle with the same tokenizer")
    arguments = parser.parse_args()
    model = gpt_edge.load(arguments.bundle, threads=arguments.threads)
    seconds = call_seconds(model, 4 * arguments.rounds)
    found = {
        "bundle": model.session.name,
        "threads": model.session.threads,
        "call_ms": {size: round(value * 1e3, 2) for size, value in seconds.items()},
        "call_steps": {size: round(value / seconds[1], 2) for size, value in seconds.items()},
    }
    if arguments.texts:
        found |= measure_texts(model, arguments)
    else:
        n, rounds = arguments.tokens, arguments.rounds
        found["repeating, greedy"] = gain(model, REPEATS * 12, n, rounds, sampled=False)
        found["plain, sampled"] = gain(model, PLAIN, n, rounds, sampled=True)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
