"""What would another vocabulary, depth, width, dropout or optimiser have given? Short runs of one
recipe, one change each.

    python benchmarks/quality/trials.py models/tinystories-5m.toml runs/trials --steps 150

Every trial sees the same number of tokens and a cosine over all of its steps; the score is that of
the whole validation text in float32. A trial that has ended is not run again: delete its folder for
that.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from gpt_edge.reference.checkpoint import read_checkpoint_config
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.training.pretrain.run import train

TRIALS: dict[str, dict[str, object]] = {
    "the recipe": {},
    "AdamW": {"optimizer": '"adamw"', "learning_rate": 0.002},
    "vocabulary 1,024": {"vocab_size": 1024},
    "vocabulary 4,096": {"vocab_size": 4096},
    "3 layers": {"n_layer": 3},
    "8 layers": {"n_layer": 8},
    "width 384": {"n_embd": 384, "n_head": 6},
    "dropout 0": {"dropout": 0.0},
    "dropout 0.15": {"dropout": 0.15},
}


def main() -> None:
    """Run the trials and print a Markdown row for each."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("recipe", type=Path)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--steps", type=int, default=150)
    arguments.add_argument("--only", nargs="*", choices=list(TRIALS), default=list(TRIALS))
    given = arguments.parse_args()
    print(
        "| trial | parameters | tokens | loss/token | bits/byte |\n|---|---|---|---|---|",
        flush=True,
    )
    for name in given.only:
        folder = (given.out / re.sub(r"\W+", "-", name)).absolute()
        checkpoint = run(given.recipe, folder, given.steps, TRIALS[name])
        config = open_checkpoint(checkpoint).config
        training = read_checkpoint_config(checkpoint)["training"]
        score, n_tokens = (
            training["validation"],
            training["steps_done"] * training["recipe"]["training"]["batch_tokens"],
        )
        print(
            f"| {name} | {config.n_parameters / 1e6:.2f}M | {n_tokens / 1e6:.2f}M | "
            f"{score['validation_loss']:.4f} | "
            f"{score['bits_per_byte']:.4f} |",
            flush=True,
        )


def run(recipe: Path, folder: Path, steps: int, changes: dict[str, object]) -> Path:
    """Train with the changes, unless that was done, and return the checkpoint."""
    checkpoint = folder / "checkpoint"
    if checkpoint.exists() and "steps_done" in read_checkpoint_config(checkpoint)["training"]:
        return checkpoint
    short = {
        "steps": steps,
        "constant_until": 0,
        "long_rows_from": 0,
        "every_steps": steps,
        "warmup_steps": steps // 8,
    }
    text = recipe.read_text("utf-8").replace('"../', f'"{recipe.resolve().parent.as_posix()}/../')
    for key, value in {**short, **changes, "folder": f'"{folder.as_posix()}"'}.items():
        text, n_found = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
        if n_found != 1:
            raise SystemExit(f"{recipe} has {n_found} lines for {key}, 1 is wanted")
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_suffix(".toml")
    path.write_text(text, "utf-8")
    return train(path).checkpoint


if __name__ == "__main__":
    main()
