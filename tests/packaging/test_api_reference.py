"""The API reference of docs/index.md is built by the command that the page gives."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import gpt_edge
from tests.conftest import REPO
from tests.support.pages import Page

(COMMAND,) = Page(REPO / "docs" / "index.md").blocks("sh")


def test_ci_builds_the_api_reference() -> None:
    assert (
        COMMAND.strip().replace("runs/api", '"$folder/api"') in (REPO / ".ci" / "run").read_text()
    )


@pytest.mark.slow  # twenty seconds of rendering, which .ci/run has anyway
def test_the_api_reference_is_built_and_names_everything_public(tmp_path: Path) -> None:
    pytest.importorskip("pdoc")
    program, *arguments = shlex.split(COMMAND)
    assert program == "python"
    arguments[arguments.index("runs/api")] = str(tmp_path / "api")
    built = subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPO), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert built.returncode == 0, built.stderr
    assert "does not resolve" not in built.stderr
    page = (tmp_path / "api" / "gpt_edge.html").read_text("utf-8")
    for name in set(gpt_edge.__all__) - {"__version__"}:
        assert f'id="{name}"' in page, name
    modules = [word for word in arguments if word.startswith("gpt_edge.")]
    for module in modules:
        assert (tmp_path / "api" / f"{module.replace('.', '/')}.html").is_file(), module
    assert list(tmp_path.iterdir()) == [tmp_path / "api"]  # importing the package writes nothing
