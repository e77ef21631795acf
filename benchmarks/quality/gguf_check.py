"""Does llama.cpp write the same greedy tokens from our GGUF files as torch from the checkpoint?

    python benchmarks/quality/gguf_check.py CHECKPOINT --llama-python VENV/bin/python

--llama-python is a Python that has llama-cpp-python. Prints a table for benchmarks/RESULTS.md: for
each type the size of the file, whether llama.cpp encodes the prompts as we do, and how many of the
greedy tokens after each prompt are those of torch in float32.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from gpt_edge.export.gguf.file import export_gguf
from gpt_edge.export.gguf.layout import TYPES
from gpt_edge.export.pipeline.shared import tokenizer_for
from gpt_edge.export.verify.reference import reference_greedy
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.tokenizer import build_tokenizer

PROMPTS = (
    "Once upon a time",
    "The lighthouse keeper had counted ships for thirty years, and",
    "She put the box on the table. Inside lay 1,204 letters",
    "Größe, naïve, 中文 🙂:",
    "  two spaces,\n\na new line and\ttabs",
)
N_NEW = 32
LLAMA = """
import json, sys
from llama_cpp import Llama
# keys and values in float32, as ours; llama.cpp's default is float16
model = Llama(sys.argv[1], n_ctx=int(sys.argv[2]), verbose=False, n_threads=1, n_threads_batch=1,
              type_k=0, type_v=0)
rows = []
for text in json.loads(sys.argv[3]):
    ids = model.tokenize(text.encode(), add_bos=False, special=False)
    model.reset()
    found, n_new = [], int(sys.argv[4])
    for id in model.generate(ids, temp=0.0, repeat_penalty=1.0, reset=True):
        found.append(id)
        if len(found) == n_new:
            break
    rows.append([ids, found])
print(json.dumps(rows))
"""


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--llama-python", type=Path, required=True)
    parser.add_argument("--tokenizer")
    given = parser.parse_args()
    checkpoint = open_checkpoint(given.checkpoint)
    source = tokenizer_for(checkpoint, given.tokenizer)
    assert source is not None
    tokenizer = build_tokenizer(source)
    model = checkpoint.load_model()
    prompts = [np.array(tokenizer.encode(text), np.int64) for text in PROMPTS]
    wanted = [reference_greedy(model, prompt, N_NEW) for prompt in prompts]
    print("| type | bytes | prompts encoded alike | greedy tokens equal to torch's |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for type in TYPES:
            path = Path(name) / f"{type}.gguf"
            exported = export_gguf(given.checkpoint, path, type=type, tokenizer=given.tokenizer)
            rows = run_llama(given.llama_python, path, checkpoint.config.n_ctx)
            n_alike = sum(
                ids == prompt.tolist() for (ids, _), prompt in zip(rows, prompts, strict=True)
            )
            equal = [
                count_equal(found, tokens)
                for (_, found), (tokens, _) in zip(rows, wanted, strict=True)
            ]
            counts = ", ".join(
                f"{n} of {len(tokens)}" for n, (tokens, _) in zip(equal, wanted, strict=True)
            )
            print(f"| {type} | {exported.n_bytes:,} | {n_alike} of {len(rows)} | {counts} |")


def run_llama(python: Path, path: Path, n_ctx: int) -> list[tuple[list[int], list[int]]]:
    """Of each prompt its ids and the greedy tokens after it, by llama.cpp."""
    arguments = (str(path), str(n_ctx), json.dumps(PROMPTS), str(N_NEW))
    done = subprocess.run(
        [str(python), "-c", LLAMA, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = " | ".join(done.stderr.strip().splitlines()[-3:])
        raise SystemExit(f"error: {python} failed with {done.returncode}: {last}")
    return [(ids, found) for ids, found in json.loads(done.stdout)]


def count_equal(found: list[int], wanted: list[int]) -> int:
    """How many tokens are equal from the start on."""
    pairs = zip(found, wanted, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(found), len(wanted)))


if __name__ == "__main__":
    main()
