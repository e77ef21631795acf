"""A corpus of a few sentences and recipes of models that train in a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from gpt_edge.training.recipe import Recipe, read_recipe

NAMES = ("Lily", "Tom", "Mia", "Ben", "Sue", "Max")
THINGS = ("ball", "cat", "tree", "boat", "song", "cake", "star")

RECIPE = """
[data]
train = "train.txt"
valid = "valid.txt"

[tokenizer]
vocab_size = 300

[model]
n_layer = 2
n_head = 2
n_embd = 32
n_ctx = 32

[training]
steps = 12
batch_tokens = 256
row_tokens = 16
long_rows_from = 8
learning_rate = 0.005
warmup_steps = 4
dropout = 0.1
threads = 1

[evaluation]
every_steps = 3
patience = 5

[output]
folder = "{folder}"
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Bit-equality is promised on one thread; flush-denormal, which a Trainer sets for the process,
    ends with the test.
    """
    torch.set_num_threads(1)
    yield
    torch.set_flush_denormal(False)


def stories(n: int, first: int = 0) -> str:
    """`n` tiny documents, no two alike."""
    told = []
    for i in range(first, first + n):
        name, thing, other = NAMES[i % 6], THINGS[i % 7], THINGS[(i // 7) % 7]
        told.append(f"{name} had a {thing}. {name} saw a {other} too, {i} times.\n<|endoftext|>\n")
    return "".join(told)


@pytest.fixture
def make_recipe(tmp_path: Path) -> Callable[..., Path]:
    """Write the corpus and a recipe; each keyword replaces the line that sets this key."""

    def make(name: str = "recipe", **changes: object) -> Path:
        (tmp_path / "train.txt").write_text(stories(120))
        (tmp_path / "valid.txt").write_text(stories(12, first=200))
        lines = RECIPE.format(folder=(tmp_path / "runs" / name).as_posix()).splitlines()
        for key, value in changes.items():
            text = f'"{value}"' if isinstance(value, str) else str(value).lower()
            if any(line.startswith(f"{key} =") for line in lines):
                lines = [
                    f"{key} = {text}" if line.startswith(f"{key} =") else line for line in lines
                ]
            else:
                lines.insert(lines.index("[training]") + 1, f"{key} = {text}")
        path = tmp_path / f"{name}.toml"
        path.write_text("\n".join(lines))
        return path

    return make


@pytest.fixture
def recipe(make_recipe: Callable[..., Path]) -> Recipe:
    """The tiny recipe as it is."""
    return read_recipe(make_recipe())
