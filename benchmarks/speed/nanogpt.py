"""gpt-edge beside nanoGPT's train.py: the same shape, batch, rates and tokens, in turn, as a
Markdown table.

    python benchmarks/speed/nanogpt.py --nanogpt ../nanoGPT --text input.txt --steps 200 --rounds 3

nanoGPT runs its recipe for CPUs (its README: 4 layers, 4 heads, width 128, block 64, batch 12, no
compile, float32) from a copy, so the checkout stays as it is; gpt-edge runs
models/shakespeare.toml. Tokens per second leave out evaluations and the first quarter of the steps,
where gpt-edge compiles; `seconds` is the whole command. The loss is that of both final checkpoints
through the reference model in float32: the last tenth of the text in blocks of 64 that do not
overlap. gpt-edge's vocabulary is 257 bytes, nanoGPT's the text's own characters, which must be
ASCII.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from gpt_edge.reference.importers import open_checkpoint

RECIPE = Path(__file__).resolve().parents[2] / "models" / "shakespeare.toml"
BLOCK, BATCH = 64, 12
NANOGPT = {
    "dataset": "text",
    "device": "cpu",
    "compile": False,
    "eval_iters": 1,
    "log_interval": 1,
    "block_size": BLOCK,
    "batch_size": BATCH,
    "n_layer": 4,
    "n_head": 4,
    "n_embd": 128,
    "dropout": 0.0,
    "learning_rate": 1e-3,
    "min_lr": 1e-4,
    "beta2": 0.99,
    "warmup_iters": 100,
    "gradient_accumulation_steps": 1,
    "out_dir": "out",
}


@dataclass(frozen=True)
class Measured:
    """One run."""

    tokens_per_second: float
    seconds: float
    loss: float  # nats per character


def main() -> None:
    """Run both in turn and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--nanogpt", type=Path, required=True, help="a checkout of nanoGPT")
    arguments.add_argument(
        "--text", type=Path, required=True, help="Tiny Shakespeare, or another text in ASCII"
    )
    arguments.add_argument("--steps", type=int, default=200)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="bfloat16", help="of gpt-edge"
    )
    given = arguments.parse_args()
    text = given.text.read_text("ascii")
    split = int(len(text) * 0.9)
    found: dict[str, list[Measured]] = {"nanoGPT": [], "gpt-edge": []}
    print("| round | engine | tokens/s | seconds | validation loss |\n|---|---|---|---|---|")
    for number in range(1, given.rounds + 1):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            found["nanoGPT"].append(
                run_nanogpt(given.nanogpt, folder / "nanogpt", text, split, given.steps)
            )
            found["gpt-edge"].append(
                run_gpt_edge(folder / "gpt-edge", text, split, given.steps, given.precision)
            )
        for engine, runs in found.items():
            print(f"| {number} | {engine} | {row(runs[-1])} |", flush=True)
    middle = {
        engine: statistics.median(run.tokens_per_second for run in runs)
        for engine, runs in found.items()
    }
    print(
        f"\nmedian tokens/s: nanoGPT {middle['nanoGPT']:,.0f}, gpt-edge {middle['gpt-edge']:,.0f}, "
        "",
        end="",
    )
    print(
        f"{middle['gpt-edge'] / middle['nanoGPT']:.2f} x; {given.steps} steps of {BATCH * BLOCK} "
        "tokens, ",
        end="",
    )
    print(
        f"gpt-edge in {given.precision}, torch {torch.__version__}, {torch.get_num_threads()} "
        "threads"
    )


def row(run: Measured) -> str:
    """The figures of a table's line."""
    return f"{run.tokens_per_second:,.0f} | {run.seconds:.1f} | {run.loss:.4f}"


def run_nanogpt(checkout: Path, folder: Path, text: str, split: int, steps: int) -> Measured:
    """Train with nanoGPT's own train.py, from a copy of its files."""
    characters = sorted(set(text))
    table = {character: id for id, character in enumerate(characters)}
    encoded = np.array([table[c] for c in text], np.uint16)
    data = folder / "data" / "text"
    data.mkdir(parents=True)
    for name in ("train.py", "model.py", "configurator.py"):
        shutil.copy(checkout / name, folder / name)
    encoded[:split].tofile(data / "train.bin")
    encoded[split:].tofile(data / "val.bin")
    (data / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": len(characters)}))
    settings = {**NANOGPT, "max_iters": steps, "lr_decay_iters": steps, "eval_interval": steps}
    started = time.monotonic()
    output = run(
        [sys.executable, "train.py", *(f"--{key}={value}" for key, value in settings.items())],
        folder,
    )
    seconds = time.monotonic() - started
    times = {
        int(n): float(ms)
        for n, ms in re.findall(r"^iter (\d+): .*time ([\d.]+)ms", output, re.MULTILINE)
    }
    # the one at `steps` holds the evaluation
    counted = [ms for n, ms in times.items() if steps // 4 <= n < steps]
    rate = 1000 * BATCH * BLOCK * len(counted) / sum(counted)
    return Measured(rate, seconds, block_loss(folder / "out" / "ckpt.pt", encoded[split:]))


def run_gpt_edge(folder: Path, text: str, split: int, steps: int, precision: str) -> Measured:
    """Train with `gpt-edge train`."""
    folder.mkdir()
    (folder / "train.txt").write_text(text[:split], "ascii")
    (folder / "valid.txt").write_text(text[split:], "ascii")
    shutil.copy(RECIPE, folder / "recipe.toml")
    settings = {"training.steps": steps, "training.precision": precision, "output.plot": "false"}
    settings |= {
        "evaluation.every_steps": max(1, steps // 4),
        "output.folder": (folder / "run").as_posix(),
    }
    changes = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    launcher = "import sys; from gpt_edge.cli import main; sys.exit(main(sys.argv[1:]))"
    started = time.monotonic()
    run([sys.executable, "-c", launcher, "train", "recipe.toml", *changes], folder)
    seconds = time.monotonic() - started
    records = [
        json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    rate = statistics.harmonic_mean([record["tokens_per_second"] for record in records[1:]])
    return Measured(
        rate,
        seconds,
        block_loss(folder / "run" / "checkpoint", np.frombuffer(text[split:].encode(), "u1")),
    )


def run(command: list[str], folder: Path) -> str:
    """Run a command in `folder` and return what it printed; show it and stop where it failed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


@torch.no_grad()
def block_loss(checkpoint: Path, ids: np.ndarray) -> float:
    """Loss per character of ids [N] in blocks of BLOCK that do not overlap, as nanoGPT
    draws them.
    """
    model = open_checkpoint(checkpoint).load_model()
    n_blocks = (len(ids) - 1) // BLOCK
    stream = torch.from_numpy(ids[: n_blocks * BLOCK + 1].astype(np.int64))
    inputs, targets = stream[:-1].view(-1, BLOCK), stream[1:].view(-1, BLOCK)
    total = 0.0
    for part, wanted in zip(inputs.split(128), targets.split(128), strict=True):
        total += F.cross_entropy(
            model(part)[0].flatten(0, 1), wanted.flatten(), reduction="sum"
        ).item()
    return total / targets.numel()


if __name__ == "__main__":
    main()
