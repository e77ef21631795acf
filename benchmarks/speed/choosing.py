"""What it costs to choose a token from 50,257 logits: greedy, top-k, and the chain of processors.

python benchmarks/speed/choosing.py [--against CHECKOUT]

--against: the same in another checkout of gpt-edge, whose `Sampler` need know greedy and top-k
only; both run in turns, and the least of each is shown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

VOCAB_SIZE = 50_257
ROUNDS = 5
TRIES = 200
CHAIN = {
    "temperature": 0.8,
    "top_p": 0.95,
    "min_p": 0.02,
    "typical_p": 0.95,
    "repetition_penalty": 1.2,
    "presence_penalty": 0.2,
    "frequency_penalty": 0.2,
    "no_repeat_ngram_size": 3,
    "logit_bias": {5: 1.0, 17: -2.0},
    "bad_words": [(3, 4), (9,)],
    "min_new_tokens": 5,
}
SETTINGS: dict[str, dict[str, object]] = {
    "greedy": {},
    "top_k 40": {"top_k": 40},
    "every processor, top_k 40": {**CHAIN, "top_k": 40},
    "every processor, no top_k": CHAIN,
}


def rows() -> np.ndarray:
    """Logits [32, V] with a few likely tokens and a long tail, as those of a language model."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (32, VOCAB_SIZE))
    for row in logits:
        row[random.choice(VOCAB_SIZE, 200, replace=False)] += np.linspace(12, 4, 200)
    return logits.astype(np.float32)


def microseconds(names: Sequence[str]) -> dict[str, float]:
    """The least time of a choice, by the name of its settings."""
    from gpt_edge.generate.params import SamplingParams
    from gpt_edge.generate.sampler import Sampler

    logits = rows()
    history = list(range(300))
    found = {}
    for name in names:
        params = SamplingParams(max_new_tokens=10, seed=1, **SETTINGS[name])  # type: ignore[arg-type]
        choose = chain_of(params) if name.startswith("every") else Sampler(params).sample
        times = []
        for number in range(TRIES):
            started = time.perf_counter()
            choose(logits[number % len(logits)], history)
            times.append(time.perf_counter() - started)
        found[name] = min(times) * 1e6
    return found


def chain_of(params: object) -> object:
    """A sampler behind the processors that the params ask for."""
    import gpt_edge
    from gpt_edge.generate.processors import build_processors
    from gpt_edge.generate.sampler import Sampler

    tokenizer = gpt_edge.load().tokenizer
    return Sampler(params, build_processors(params, 200, tokenizer, [0])).sample  # type: ignore[arg-type]


def in_child(checkout: Path, names: Sequence[str]) -> dict[str, float]:
    """The figures of a checkout, in a process of its own."""
    command = [sys.executable, __file__, "--child", str(checkout), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        sys.path.insert(0, arguments.child[0])
        print(json.dumps(microseconds(arguments.child[1:])))
        return
    here = Path(__file__).resolve().parents[2]
    both = {"here": (here, list(SETTINGS))}
    if arguments.against is not None:
        both["there"] = (arguments.against, ["greedy", "top_k 40"])
    least: dict[str, dict[str, float]] = {name: {} for name in both}
    for _ in range(ROUNDS):
        for name, (checkout, settings) in both.items():
            for setting, value in in_child(checkout, settings).items():
                least[name][setting] = min(value, least[name].get(setting, value))
    print("| settings | " + " | ".join(f"{name}, µs" for name in both) + " |")
    print("|---|" + "---|" * len(both))
    for setting in SETTINGS:
        values = [least[name].get(setting) for name in both]
        print(
            f"| {setting} | " + " | ".join("" if v is None else f"{v:.0f}" for v in values) + " |"
        )


if __name__ == "__main__":
    main()
