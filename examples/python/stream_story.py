"""Stream a story to the terminal and into a file, end it at a stop string, and report the timing.

python stream_story.py "Once upon a time" story.txt --stop "The end" --seed 7
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import gpt_edge


def main() -> None:
    parser = argparse.ArgumentParser(description="Stream a story to the terminal and a file.")
    parser.add_argument("prompt")
    parser.add_argument("out", type=Path, help="file for prompt and story")
    parser.add_argument("--bundle", help="folder or name; by default the built-in story model")
    parser.add_argument("--tokens", type=int, default=120, help="maximum number of new tokens")
    parser.add_argument("--stop", action="append", default=[], help="end before this text")
    parser.add_argument("--seed", type=int, help="the same seed gives the same story")
    options = parser.parse_args()

    start = time.perf_counter()
    model = gpt_edge.load(options.bundle)
    ready_seconds = time.perf_counter() - start

    params = gpt_edge.SamplingParams(
        max_new_tokens=options.tokens,
        top_k=40,
        temperature=0.8,
        seed=options.seed,
        stop=tuple(options.stop),
    )
    stream = model.stream(options.prompt, params)
    with options.out.open("w", encoding="utf-8") as file:
        print(options.prompt, end="", flush=True)
        file.write(options.prompt)
        for piece in stream:
            print(piece, end="", flush=True)
            file.write(piece)
    print()

    story = stream.completion
    print(
        f"ready after {ready_seconds:.2f} s, first token after {story.prefill_seconds * 1e3:.0f} "
        "ms, "
        f"{story.completion_tokens} tokens at {story.tokens_per_second:.0f} tokens/s, "
        f"ended by {story.finish_reason}, seed {story.seed}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    try:
        main()
    except gpt_edge.GPTEdgeError as error:
        sys.exit(f"error: {error.message}")
