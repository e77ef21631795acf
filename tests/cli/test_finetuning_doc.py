"""docs/finetuning.md is executed: each command in its order, each output line compared with its
figures masked.

A random model of two layers replaces the pretrained one, and eighty made-up lines the CSV file:
what the page shows took half an hour, this takes a minute.
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.support.pages import Page, matches, write_program

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PAGE = Page(REPO / "docs" / "finetuning.md")
WORDS = {"negative": ("cold", "rude", "bad"), "positive": ("warm", "kind", "good")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the page assumes: a pretrained checkpoint, examples, and gpt-edge on
    the path.
    """
    from tests.support.finetune_factory import LARGER, make_checkpoint

    folder = tmp_path_factory.mktemp("finetuning")
    (folder / "runs" / "tinystories").mkdir(parents=True)
    make_checkpoint(folder / "runs" / "tinystories" / "checkpoint", LARGER)
    draw = random.Random(1)
    for name, n in (("train", 80), ("test", 20)):
        rows = []
        for _ in range(n):
            opinion = draw.choice(list(WORDS))
            rows.append(f'"It was {draw.choice(WORDS[opinion])}, really",{opinion}')
        # the page's most frequent class
        rows += [f"so {word},negative" for word in WORDS["negative"] * 10]
        (folder / f"{name}.csv").write_text("\n".join(["review,opinion", *rows]) + "\n")
    pairs = [f"{draw.uniform(0, 5):.1f}\ta {a}\ta {b}" for a in "abcdef" for b in "abcd"]
    (folder / "pairs.tsv").write_text("\n".join(["score\tsentence1\tsentence2", *pairs]) + "\n")
    (folder / "bin").mkdir()
    write_program(folder / "bin")
    return folder


def test_each_command_prints_what_the_page_shows(folder: Path) -> None:
    examples = PAGE.examples()
    assert [example.command.split()[1] for example in examples] == [
        "finetune",
        "export",
        "classify",
        "calibrate",
    ]
    for example in examples:
        path = f'PATH="{folder / "bin"}:$PATH"; '
        done = subprocess.run(
            path + example.command,
            shell=True,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (example.command, done.stderr)
        assert matches(example.shown, done.stdout.splitlines()), (example.command, done.stdout)


def test_the_files_that_the_page_lists_are_there(folder: Path) -> None:
    listed = set(re.findall(r"^\| `(checkpoint|\w+\.\w+)/?` \|", PAGE.text, re.MULTILINE))
    assert listed - {"confusion.png"} == {path.name for path in (folder / "reviews").iterdir()}


def test_the_python_example_runs(folder: Path) -> None:
    (source,) = PAGE.blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(REPO), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert -1 <= float(done.stdout) <= 1


def test_every_flag_that_the_page_names_exists() -> None:
    from tests.support.runner import done

    help_text = "".join(
        done(command, "--help").out for command in ("finetune", "classify", "embed")
    )
    for flag in re.findall(
        r"--[a-z][a-z-]+",
        "\n".join(line for line in PAGE.text.splitlines() if "export" not in line),
    ):
        assert flag in help_text, flag


def test_lines_are_compared_with_their_figures_masked() -> None:
    assert matches(["a 1.5 b", "..."], ["a 2 b", "c", "d"])
    assert matches(["label ..."], ["label  0.93"])
    assert not matches(["a 1 b"], ["a 1 c"])
    assert not matches(["a"], ["a", "b"])
