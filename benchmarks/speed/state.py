"""What held keys and values save, and how long a joining prompt holds other texts up, as tables.

    python benchmarks/speed/state.py [BUNDLE] [--threads 2] [--rounds 9]

Both are ratios of what alternates in one process, so that other work on the machine affects both
sides: the median of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

import gpt_edge

N_NEW = 16  # tokens behind a shared start


def main() -> None:
    """Print both tables."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("bundle", nargs="?")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=9)
    given = arguments.parse_args()
    model = gpt_edge.load(given.bundle, threads=given.threads)
    print(
        f"{model.session.name}, {given.threads} threads, chunks exact: "
        f"{model.session.is_row_exact}\n"
    )
    print_reuse(model, given.rounds)
    print_pauses(model, given.rounds)


def random_ids(model: gpt_edge.Generator, n: int, seed: int) -> list[int]:
    """Ids that no other seed gives."""
    return np.random.default_rng(seed).integers(0, model.tokenizer.vocab_size, n).tolist()


def print_reuse(model: gpt_edge.Generator, rounds: int) -> None:
    """Seconds until the first token with and without a start that was read before."""
    print("| shared start, tokens | read again, ms | held, ms | ratio | bytes held |")
    print("|---|---|---|---|---|")
    n_ctx = model.session.config.n_ctx
    for n_shared in (n_ctx // 8, n_ctx // 4, n_ctx // 2, n_ctx - 2 * N_NEW):
        cache = gpt_edge.PrefixCache(1 << 30)
        shared = random_ids(model, n_shared, 0)
        first_token(model, shared, cache)
        whole, held = [], []
        for number in range(rounds):
            prompt = shared + random_ids(model, N_NEW, number + 1)
            whole.append(first_token(model, prompt, False))
            held.append(first_token(model, prompt, cache))
        ratio = statistics.median(a / b for a, b in zip(whole, held, strict=True))
        print(
            f"| {n_shared} | {statistics.median(whole) * 1e3:.1f} | "
            f"{statistics.median(held) * 1e3:.1f} | {ratio:.1f} | "
            f"{cache.n_bytes / len(cache) / 1e6:.1f} MB a text |"
        )
    print()


def first_token(model: gpt_edge.Generator, ids: list[int], cache: object) -> float:
    """Seconds until the first token of a prompt."""
    stream = model.generate_ids(ids, max_new_tokens=1, ignore_end_token=True, prefix_cache=cache)
    list(stream)
    return stream.prefill_seconds


def print_pauses(model: gpt_edge.Generator, rounds: int) -> None:
    """How long four running rows wait between two tokens, alone and while a long prompt joins."""
    n_prompt = model.session.config.n_ctx // 2
    print(
        f"| a prompt of {n_prompt} tokens joins 4 rows, in chunks of | median step alone, ms | "
        "longest step while it joins, ms | steps until its first token |"
    )
    print("|---|---|---|---|")
    for chunk in (16, 32, 64, 128, 256):
        alone, longest, n_steps = [], [], 0
        for number in range(rounds):
            steps, pauses = pauses_of(model, chunk, n_prompt, number)
            alone.append(statistics.median(steps))
            longest.append(max(pauses))
            n_steps = len(pauses)
        print(
            f"| {chunk} | {statistics.median(alone) * 1e3:.2f} | "
            f"{statistics.median(longest) * 1e3:.2f} | {n_steps} |"
        )


def pauses_of(
    model: gpt_edge.Generator, chunk: int, n_prompt: int, seed: int
) -> tuple[list[float], list[float]]:
    """Seconds of the steps before a prompt joins, and of those that read it."""
    engine = gpt_edge.BatchEngine(model, prefill_chunk=chunk)
    params = gpt_edge.SamplingParams(max_new_tokens=100, ignore_end_token=True)
    for row in range(4):
        engine.add(random_ids(model, 8, row), params)
    while engine.n_running < 4:
        engine.step()
    alone = [timed(engine) for _ in range(10)]
    joining = engine.add(random_ids(model, n_prompt, 10 + seed), params)
    reading = []
    while not joining.ids:
        reading.append(timed(engine))
    engine.close()
    return alone, reading


def timed(engine: gpt_edge.BatchEngine) -> float:
    """Seconds of one step."""
    started = time.perf_counter()
    engine.step()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
