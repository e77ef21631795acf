"""The examples of docs/quickstart.md and docs/python.md run, and every option that a page of
docs/ names exists.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.support.pages import Page, matches, write_program
from tests.support.runner import done, run

DOCS = REPO / "docs"
QUICKSTART = Page(DOCS / "quickstart.md")
PAGES = (
    "quickstart",
    "sources",
    "tokenizers",
    "quantization",
    "verification",
    "native",
    "phones",
    "web",
    "constraints",
)
COMMANDS = [
    "generate",
    "chat",
    "export",
    "quantize",
    "verify",
    "diff",
    "report",
    "inspect",
    "eval",
    "tokenize",
    "bench",
    "web",
    "serve",
    "native",
]


def test_the_python_examples_run_one_after_the_other(tmp_path: Path) -> None:
    blocks = Page(DOCS / "python.md").blocks("python")
    assert len(blocks) == 15
    ran = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "cancelled" in ran.stdout
    assert "(1, 1, 4096)" in ran.stdout


def test_the_examples_of_constraints_run(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("llguidance")
    blocks = Page(DOCS / "constraints.md").blocks("python")
    assert len(blocks) == 4
    exec("\n".join(blocks), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] in (" black", " white")
    assert re.fullmatch(r" \d{1,2} degrees", printed[1])
    assert printed[-5] == " scared 0.57"
    assert printed[-1].startswith("ay ")


def test_the_recipes_for_apps_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("llguidance")
    page = Page(DOCS / "embedding.md")
    assert len(re.findall(r"^## \d+\. ", page.text, re.MULTILINE)) == 12
    monkeypatch.chdir(REPO)  # the bundle of the tests is named from there
    exec(compile("\n".join(page.blocks("python")), "embedding.md", "exec"), {})
    printed = capsys.readouterr().out
    likely, unlikely = re.findall(r"^(-\d+\.\d+) ", printed, re.MULTILINE)
    assert float(likely) > float(unlikely)
    assert re.search(r"^[345]$", printed, re.MULTILINE)  # the age
    assert re.search(r"^ sad 0\.\d+$", printed, re.MULTILINE)
    assert re.search(r"^True [1-9]\d*$", printed, re.MULTILINE)  # restored, and not read again
    assert "2 256\n" in printed


@pytest.mark.slow  # checks numpy's types too: 45 s of one core
@pytest.mark.parametrize("name", ["python", "embedding"])
def test_the_idioms_of_a_page_have_the_types_that_mypy_expects(name: str, tmp_path: Path) -> None:
    program = tmp_path / f"page_{name}.py"
    program.write_text("\n".join(Page(DOCS / f"{name}.md").blocks("python")), "utf-8")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), str(program)],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(REPO), "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("index", range(len(QUICKSTART.examples())))
def test_a_command_of_the_quickstart_prints_what_it_shows(index: int, tmp_path: Path) -> None:
    example = QUICKSTART.examples()[index]
    write_program(tmp_path)
    ran = subprocess.run(
        ["bash", "-c", example.command],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    if "generate" in example.command:  # another CPU may choose otherwise at a near tie
        assert ran.stdout.split()[:3] == example.shown[0].split()[:3]
    else:
        assert matches(example.shown, ran.stdout.splitlines()), ran.stdout


def test_the_commands_of_the_tokenizers_page_print_what_it_shows() -> None:
    examples = Page(DOCS / "tokenizers.md").examples()
    assert len(examples) == 2
    for example in examples:
        ran = run(*shlex.split(example.command)[1:])
        assert ran.code == 0
        assert matches(example.shown, (ran.err + ran.out).splitlines()), ran


@functools.cache
def all_help() -> str:
    """The help of every command."""
    commands = (*COMMANDS, "train", "finetune")
    return "".join([done("--help").out, *(done(command, "--help").out for command in commands)])


@pytest.mark.parametrize("name", PAGES)
def test_every_option_of_a_page_exists(name: str) -> None:
    known = all_help()
    text = (DOCS / f"{name}.md").read_text("utf-8")
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - {"--help"}:
        assert option in known, option
