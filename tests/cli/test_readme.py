"""Every example of README.md is executed: what it shows is what happens.

The commands run in a folder with a small recipe in place of the real one, which would take an hour;
figures that depend on it are compared with their digits masked.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gpt_edge.native.library import bodies, installed_library
from tests.cli.test_commands import write_recipe
from tests.conftest import REPO
from tests.support.pages import Page, masked, write_program
from tests.support.runner import Result, done, run
from tests.support.warm_process import PATIENCE

README = Page(REPO / "README.md")
ANYTHING = "..."  # a line that stands for any lines
# words of a story that are compared without custom operators: another CPU adds in another order,
# and may choose differently at a near tie
SAME_WORDS = 3
STORY = 'gpt-edge generate "Once upon a time"'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the examples run, one after the other, with a recipe of two steps instead of the
    README's.
    """
    folder = tmp_path_factory.mktemp("readme")
    (folder / "models").mkdir()
    write_recipe(folder / "models")
    recipe = folder / "models" / "recipe.toml"
    recipe.rename(recipe.with_name("tinystories.toml"))
    text = recipe.with_name("tinystories.toml").read_text().replace('"run"', '"runs/tinystories"')
    recipe.with_name("tinystories.toml").write_text(text.replace("n_ctx = 32", "n_ctx = 128"))
    return folder


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose gpt-edge is this checkout's."""
    folder = tmp_path_factory.mktemp("bin")
    write_program(folder)
    return folder


def has_operators() -> bool:
    """Are custom operators installed that this CPU runs?"""
    library = installed_library()
    return library is not None and bool(bodies(library))


def execute(command: str, folder: Path, programs: Path) -> Result:
    """Run `command` in a shell. What needs torch runs in this process, which has loaded it, also
    where its output goes into a file.
    """
    heavy = re.match(r"gpt-edge ((?:train|export|verify) [^|<>]*?)(?: > (\S+))?$", command)
    if heavy is not None:
        with contextlib.chdir(folder):
            result = run(*shlex.split(heavy[1]))
            if heavy[2] is None:
                return result
            Path(heavy[2]).write_text(result.out)
            return replace(result, out="")
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    if command.startswith("gpt-edge native") and not has_operators():
        pytest.skip("no operators are installed, or none for this CPU")
    if command.startswith(("gpt-edge native", STORY)) and has_operators():
        del environment["GPT_EDGE_NATIVE"]
        environment["XDG_CACHE_HOME"] = str(folder / "cache")
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("index", range(len(README.examples())))
def test_a_console_example_does_what_it_shows(index: int, folder: Path, programs: Path) -> None:
    example = README.examples()[index]
    done = execute(example.command, folder, programs)
    if "train" not in example.command:  # which reports on standard error
        assert done.err == ""
    assert done.code == 0, done
    if example.command.startswith(STORY) and has_operators():
        # the same text on every CPU
        assert list(example.shown) == [*done.out.splitlines()[: len(example.shown) - 1], ANYTHING]
        return
    if "generate" in example.command:
        words = 0 if "-m stories" in example.command else SAME_WORDS
        assert example.shown[0].split()[:words] == done.out.split()[:words]
        assert done.out.strip()
        return
    lines = iter(masked(line) for line in done.out.splitlines())
    for line in example.shown:
        assert line == ANYTHING or masked(line) in lines, (line, done.out)
    if "tokenize" in example.command:
        assert done.out.splitlines() == list(example.shown)


@pytest.mark.parametrize("index", range(len(README.blocks("python"))))
def test_the_python_example_runs(index: int, tmp_path: Path) -> None:
    code = README.blocks("python")[index]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "tokens/s" in done.stdout
    assert len(code.splitlines()) <= 10


def test_the_two_commands_are_those_that_packaging_and_ci_run() -> None:
    """The first is typed in tests/packaging/test_wheel.py; the second is this run itself, through
    .ci/run.
    """
    install, test = README.blocks("bash")
    assert install == 'pip install . && gpt-edge generate "Once upon a time"\n'
    assert test == 'pip install -c constraints.txt -e ".[dev]" && python -m pytest\n'
    ci = (REPO / ".ci" / "run").read_text()
    for half in test.strip().split(" && "):
        assert half.replace("pip install ", "") in ci


def test_every_command_and_option_of_the_readme_exists() -> None:
    rows = re.findall(r"^\| `gpt-edge (.*?)` \|", README.text.replace("\\|", "/"), re.MULTILINE)
    assert len(rows) == 6
    named = set()
    for row in rows:
        command = row.split()[0]
        named.add(command)
        help_text = done(command, "--help").out
        for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", row):
            assert option in help_text, (command, option)
    (others,) = re.findall(r"^The others are (.*?);", README.text, re.MULTILINE)
    named |= set(re.findall(r"`([a-z]+)`", others))
    assert named == set(re.findall(r"^  ([a-z]+) {2,}\w", done("--help").out, re.MULTILINE))


def test_the_readme_fits_three_screens() -> None:
    assert len(README.text.splitlines()) <= 150


def test_no_line_of_the_readme_promises_what_is_not_there() -> None:
    for name in re.findall(r"`([\w./-]+\.(?:md|txt|py|toml))`", README.text):
        assert (REPO / name).is_file(), name
