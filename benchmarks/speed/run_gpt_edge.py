"""gpt-edge as one engine of the peers' harness: its command line, its timing protocol, its JSON
line.

    python benchmarks/speed/run_gpt_edge.py --model-dir BUNDLE --prompt-tokens 32 --threads 2 --json

The harness (common.py) lies in ../shared/peers beside this checkout, or in the folder that
GPT_EDGE_PEERS names. Ready means what an app waits for: every file hashed, the tokenizer built, the
session opened. A generation is what an app does: prompts read one by one into one cache, then a
step for all rows and one choice per row.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
STOCK = "stock"  # the variant without gpt-edge's own operators, whether they are built or not
HARNESS = Path(os.environ.get("GPT_EDGE_PEERS", REPO.parent / "shared" / "peers"))


class Engine:
    """What the harness asks for. Prompts are lists of ids of one length, `times` are of
    time.perf_counter().
    """

    name = "gpt-edge"

    def __init__(self, bundle: Path, threads: int, *, is_stock: bool = False) -> None:
        if is_stock:
            os.environ["GPT_EDGE_NATIVE"] = "0"
        from gpt_edge.generate.load import (
            load,  # imported here: the harness sets the threads of numeric libraries first
        )

        self._generator = load(bundle, threads=threads)

        import onnxruntime as ort

        from gpt_edge.bundle.bundle import Bundle
        from gpt_edge.generate.params import SamplingParams
        from gpt_edge.generate.sampler import Sampler
        from gpt_edge.native.library import find_library
        from gpt_edge.version import __version__

        self._session = self._generator.session
        opened = Bundle.open(bundle, check=False)
        self._choose = Sampler(SamplingParams()).sample  # greedy
        self.version = f"gpt-edge {__version__}, onnxruntime {ort.__version__}" + (
            "" if find_library() is None else ", native"
        )
        self.precision = opened.scheme
        self.disk_paths = [opened.path]

    def prefill(self, prompts: list[list[int]]) -> float:
        """Read the prompts into a new cache, up to the logits; seconds."""
        started = time.perf_counter()
        self._read(prompts)
        return time.perf_counter() - started

    def generate(self, prompts: list[list[int]], n: int) -> tuple[list[float], list[int]]:
        """Choose exactly `n` tokens for each prompt; when each step's tokens were known, and the
        first row's tokens.
        """
        logits: Iterable[Any]  # a row of float32 [V] for each prompt
        cache, logits = self._read(prompts)
        times, first_row = [], []
        while True:
            ids = [self._choose(row) for row in logits]
            times.append(time.perf_counter())
            first_row.append(ids[0])
            if len(times) == n:
                return times, first_row
            logits = self._session.decode(ids, cache)

    def _read(self, prompts: list[list[int]]) -> tuple[Any, list[Any]]:
        cache = self._session.new_cache(len(prompts))
        return cache, [
            self._session.forward([ids], cache, row=row)[0, 0] for row, ids in enumerate(prompts)
        ]


def load(args: Any) -> Engine:
    """Open args.model_dir with args.threads; a bundle that cannot be opened ends the process with
    one line.
    """
    from gpt_edge.errors import GPTEdgeError

    try:
        return Engine(args.model_dir, args.threads, is_stock=args.variant == STOCK)
    except GPTEdgeError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    sys.path[:0] = [str(HARNESS), str(REPO)]  # this checkout, whatever is installed
    import common

    common.main(load)
