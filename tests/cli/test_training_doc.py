"""docs/training.md is executed: its recipe with few steps and a made-up text, each command, each
file that it lists.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gpt_edge.training.recipe import read_recipe
from tests.conftest import REPO
from tests.support.pages import Page, matches, write_program

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PAGE = Page(REPO / "docs" / "training.md")
SHORTER = {
    "steps": "6",
    "batch_tokens": "512",
    "row_tokens": "64",
    "every_steps": "3",
    "compile": "false",
}
WORDS = [
    "the",
    "a",
    "little",
    "big",
    "dog",
    "cat",
    "girl",
    "tree",
    "ran",
    "saw",
    "was",
    "very",
    "happy",
    "and",
    "one",
    "day",
]


def story(draw: random.Random) -> str:
    return "Once upon a time " + " ".join(draw.choice(WORDS) for _ in range(60)) + "."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's text and recipe, and gpt-edge on the path."""
    folder = tmp_path_factory.mktemp("training")
    draw = random.Random(1)
    # enough for the page's vocabulary
    words = ["".join(draw.choices("etaoinshrdlu", k=7)) for _ in range(900)]
    stories = [
        *(story(draw) for _ in range(60)),
        *(" ".join(draw.choices(words, k=60)) for _ in range(120)),
    ]
    (folder / "stories.txt").write_text("\n<|endoftext|>\n".join(stories))
    (recipe,) = PAGE.blocks("toml")
    for key, value in SHORTER.items():
        recipe, n_changed = re.subn(rf"(?m)^{key} = \S+", f"{key} = {value}", recipe)
        assert n_changed == 1, key
    (folder / "stories.toml").write_text(recipe)
    (folder / "models").mkdir()
    for name in ("tinystories", "tinystories-21m", "gpt1", "shakespeare"):
        shutil.copy(REPO / "models" / f"{name}.toml", folder / "models")
    (folder / "bin").mkdir()
    write_program(folder / "bin")
    return folder


def run(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    path = f'PATH="{folder / "bin"}:{Path(sys.executable).parent}:$PATH"; '
    return subprocess.run(
        path + command, shell=True, cwd=folder, capture_output=True, text=True, check=False
    )


def test_each_command_prints_what_the_page_shows(folder: Path) -> None:
    examples = PAGE.examples()
    assert [example.command.split()[1] for example in examples] == ["train", "export", "generate"]
    for example in examples:
        done = run(folder, example.command)
        assert done.returncode == 0, (example.command, done.stderr)
        assert done.stdout.strip()
        if "generate" not in example.command:  # another model, another story
            assert matches(example.shown, done.stdout.splitlines()), (example.command, done.stdout)


def test_a_finished_run_says_so_to_resume(folder: Path) -> None:
    (resume,) = re.findall(r"`(gpt-edge train \S+ --resume)`", PAGE.text)
    done = run(folder, resume)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("runs/stories/checkpoint: 6 steps")


def test_the_files_that_the_page_lists_are_there(folder: Path) -> None:
    listed = {
        name
        for row in re.findall(r"^\| (`[^|]+`) \| [^|]+ \|$", PAGE.text, re.MULTILINE)
        for name in row.split("`")[1::2]
    }
    actual = {path.name + "/" * path.is_dir() for path in (folder / "runs" / "stories").iterdir()}
    assert actual == {name for name in listed if "." in name or "/" in name} - {"tensorboard/"}


def test_the_keys_and_recipes_that_the_page_names_exist(folder: Path) -> None:
    table = re.findall(r"^\| (`[a-z_`, ]+`) \|", PAGE.text, re.MULTILINE)
    changes = {
        "micro_batch_tokens": "64",
        "ema": "0.9",
        "activation_checkpointing": "true",
        "optimizer": "'adamw'",
        "precision": "'float32'",
        "compile": "false",
        "device": "'cpu'",
    }
    assert {name for row in table for name in row.split("`")[1::2]} == set(changes)
    sets = [f"training.{key}={value}" for key, value in changes.items()]
    assert read_recipe(folder / "stories.toml", tuple(sets)).training.ema == 0.9
    for name in re.findall(r"`models/(\S+\.toml)`", PAGE.text):
        assert tomllib.loads((folder / "models" / name).read_text())


def test_two_processes_train_as_the_page_says(folder: Path) -> None:
    (lines,) = PAGE.blocks("sh")
    command = lines.splitlines()[0].replace("--nproc-per-node 8", "--nproc-per-node 2")
    command = command.replace(
        "models/gpt1.toml", "stories.toml --set output.folder=two --set training.batch_tokens=512"
    )
    done = run(folder, command)
    assert done.returncode == 0, done.stderr
    assert (folder / "two" / "checkpoint" / "model.safetensors").is_file()
