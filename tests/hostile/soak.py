"""Long runs in one process: does memory grow, does a descriptor or a thread stay open?

    python -m tests.hostile.soak --generations 20000 --loads 200 --classifications 10000

Of the generations, with random prompts and lengths, a tenth is cancelled and a twentieth is given a
prompt that does not fit. Resident memory after the first tenth, the warm-up, is compared with that
at the end; the slope is that of a least-squares line, with its upper 95 % bound. Needs no torch.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import math
import os
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

import gpt_edge
from gpt_edge.classify.classifier import Classifier
from gpt_edge.generate.generator import Generator

WORDS = ("a", "the", "cat", "dog", "ran to", "big", "house", "and then", "she said", "Lily", "12")
ALLOWED_PERCENT = 2.0
ALLOWED_BYTES = 8 << 20  # where a process is so small that a hundredth of it is one arena


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Growth:
    """rss: bytes, one for each sample after the warm-up. every: tries between two of them."""

    title: str
    n_tries: int
    rss: list[int]
    every: int
    descriptors: tuple[int, int]
    threads: tuple[int, int]

    @property
    def percent(self) -> float:
        """From the first sample to the last."""
        return 100 * (self.rss[-1] / self.rss[0] - 1)

    @property
    def slope(self) -> tuple[float, float]:
        """Bytes a try, and the upper bound of the 95 % interval."""
        tries = np.arange(len(self.rss)) * float(self.every)
        line = np.polynomial.Polynomial.fit(tries, self.rss, 1).convert()
        left = np.asarray(self.rss) - line(tries)
        spread = math.sqrt(float(left @ left) / max(1, len(tries) - 2))
        error = spread / math.sqrt(float(np.square(tries - tries.mean()).sum()))
        return float(line.coef[1]), float(line.coef[1]) + 1.96 * error

    @property
    def is_flat(self) -> bool:
        """Whether nothing grew by more than is allowed."""
        grown = self.rss[-1] - self.rss[0]
        is_small = self.percent <= ALLOWED_PERCENT or grown <= ALLOWED_BYTES
        return is_small and len({*self.descriptors}) == len({*self.threads}) == 1

    def row(self) -> str:
        """Of the table."""
        slope, bound = self.slope
        mega = [f"{value / 1e6:.1f}" for value in (self.rss[0], self.rss[-1])]
        cells = [
            self.title,
            f"{self.n_tries:,}",
            *mega,
            f"{self.percent:+.2f} %",
            f"{slope:.0f} (≤ {bound:.0f})",
            " → ".join(map(str, self.descriptors)),
            " → ".join(map(str, self.threads)),
            "yes" if self.is_flat else "NO",
        ]
        return f"| {' | '.join(cells)} |"


HEAD = (
    "| what | tries | MB after warm-up | MB at the end | growth | bytes a try | descriptors "
    "| threads | flat |\n|---|---|---|---|---|---|---|---|---|"
)


def watched(title: str, n_tries: int, once: Callable[[int], object]) -> Growth:
    """Do `once` so many times; measure after the first tenth, and 90 times from there on."""
    every = max(1, n_tries // 100)
    warm = max(1, n_tries // 10)
    rss = []
    before = (0, 0)
    for number in range(n_tries):
        if number == warm:
            before = _open_things()
        if number >= warm and (number - warm) % every == 0:
            gc.collect()  # so that it does not count when Python last did
            rss.append(resident_bytes())
        once(number)
    gc.collect()
    rss.append(resident_bytes())
    after = _open_things()
    return Growth(title, n_tries, rss, every, (before[0], after[0]), (before[1], after[1]))


def _open_things() -> tuple[int, int]:
    """Descriptors and Python's threads."""
    return len(os.listdir("/proc/self/fd")), threading.active_count()


def generations(generator: Generator, n_tries: int) -> Growth:
    """Prompts of 1 to 60 words, 1 to 8 new tokens, greedy and sampled."""
    draw = random.Random(0)
    too_long = "word " * (generator.session.config.n_ctx + 10)

    def once(number: int) -> None:
        if draw.random() < 0.05:
            try:
                generator.complete(too_long)
            except gpt_edge.ContextLengthError:
                return
            raise AssertionError("a prompt that does not fit was accepted")
        prompt = " ".join(draw.choices(WORDS, k=draw.randint(1, 60)))
        params = gpt_edge.SamplingParams(
            max_new_tokens=draw.randint(1, 8),
            temperature=draw.choice((0.0, 0.8)),
            seed=number,
            ignore_end_token=True,
        )
        if draw.random() < 0.1:
            with generator.stream(prompt, params) as stream:
                list(itertools.islice(stream, 1))
            return
        assert generator.complete(prompt, params).ids

    return watched("generations", n_tries, once)


def loads(n_tries: int) -> Growth:
    """Load the built-in story model, one token, close."""

    def once(number: int) -> None:
        with gpt_edge.load(threads=1) as generator:
            generator.complete("Once", gpt_edge.SamplingParams(max_new_tokens=1))

    return watched("loads and closes", n_tries, once)


def classifications(n_tries: int) -> Growth:
    """Texts of 1 to 40 words, one or three at a time."""
    draw = random.Random(1)
    classifier = Classifier.load("sentiment-6m-int8", threads=1)

    def once(number: int) -> None:
        n_texts = draw.choice((1, 1, 3))
        texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 40))) for _ in range(n_texts)]
        assert len(classifier.predict(texts)) == n_texts

    return watched("classifications", n_tries, once)


def main() -> int:
    """Read the options, run, print; 1 if something grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generations", type=int, default=0)
    parser.add_argument("--loads", type=int, default=0)
    parser.add_argument("--classifications", type=int, default=0)
    options = parser.parse_args()
    print(f"onnxruntime {onnxruntime.__version__}\n\n{HEAD}", flush=True)
    grown = []
    if options.loads:
        grown.append(loads(options.loads))
        print(grown[-1].row(), flush=True)
    if options.generations:
        with gpt_edge.load(threads=1) as generator:
            grown.append(generations(generator, options.generations))
        print(grown[-1].row(), flush=True)
    if options.classifications:
        grown.append(classifications(options.classifications))
        print(grown[-1].row(), flush=True)
    return 0 if all(growth.is_flat for growth in grown) else 1


if __name__ == "__main__":
    raise SystemExit(main())
