"""Complete the prompts of a JSON Lines file in batches, each with a seed of its own.

    python complete_jsonl.py prompts.jsonl completions.jsonl --batch 8

A line is {"prompt": "…"} and may have "seed", "temperature" and "max_new_tokens". A line of the
output is {"prompt", "text", "seed", "finish_reason", "tokens"}, in the order of the input. A seed
that the input does not give is drawn and written down, so every line can be repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import gpt_edge

FIELDS = {"prompt", "seed", "temperature", "max_new_tokens"}


def read_requests(path: Path) -> list[dict[str, Any]]:
    """The objects of the file. Exits with the number of a line that is not a request."""
    requests = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            request = json.loads(line)
        except ValueError as error:
            sys.exit(f"error: {path}, line {number}: not JSON ({error})")
        if not isinstance(request, dict) or "prompt" not in request or set(request) - FIELDS:
            sys.exit(f"error: {path}, line {number}: expected an object with {sorted(FIELDS)}")
        requests.append(request)
    return requests


def params_of(request: dict[str, Any]) -> gpt_edge.SamplingParams:
    return gpt_edge.SamplingParams(
        max_new_tokens=request.get("max_new_tokens", 60),
        temperature=request.get("temperature", 0.8),
        top_k=40,
        seed=request.get("seed"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Complete the prompts of a JSON Lines file.")
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bundle", help="folder or name; by default the built-in story model")
    parser.add_argument("--batch", type=int, default=8, help="prompts computed together")
    options = parser.parse_args()

    requests = read_requests(options.source)
    model = gpt_edge.load(options.bundle)
    completions = model.generate_batch(
        [request["prompt"] for request in requests],
        [params_of(request) for request in requests],
        truncate="left",
        batch_size=options.batch,
    )
    with options.out.open("w", encoding="utf-8") as out:
        for request, completion in zip(requests, completions, strict=True):
            line = {
                "prompt": request["prompt"],
                "text": completion.text,
                "seed": completion.seed,
                "finish_reason": completion.finish_reason,
                "tokens": completion.completion_tokens,
            }
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
    n_tokens = sum(completion.completion_tokens for completion in completions)
    print(f"{len(completions)} completions, {n_tokens} tokens", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except (gpt_edge.GPTEdgeError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")
