"""The programs of examples/node and examples/browser."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import gpt_edge
from gpt_edge.bundle.bundle import DEFAULT_BUNDLE, Bundle
from tests.conftest import REPO
from tests.support.chromium import Chromium
from tests.web.test_browser import serving

EXAMPLES = REPO / "examples"


@pytest.fixture
def node_folder(tmp_path: Path) -> Path:
    """The program beside packages as npm would put them; skips where they are not installed."""
    modules = REPO / "web" / "node_modules"
    compiler = modules / "typescript" / "bin" / "tsc"
    if not compiler.is_file() or not (modules / "onnxruntime-node").is_dir():
        pytest.skip("onnxruntime-node and TypeScript are not installed: npm ci in web/")
    package = tmp_path / "node_modules" / "gpt-edge"
    package.mkdir(parents=True)
    shutil.copy(REPO / "web" / "package.json", package)
    build = ["node", str(compiler), "--outDir", str(package / "dist")]
    subprocess.run(build, cwd=REPO / "web", check=True)
    for name in ("onnxruntime-node", "onnxruntime-common"):
        (tmp_path / "node_modules" / name).symlink_to(modules / name)
    for name in ("story.js", "package.json"):
        shutil.copy(EXAMPLES / "node" / name, tmp_path)
    return tmp_path


def node_program(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["node", "--preserve-symlinks", "story.js", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_node_program_writes_the_text_of_python(node: str, node_folder: Path) -> None:
    model = gpt_edge.load(native=False)
    expected = model.complete(
        "The little dog", model.generation_defaults, max_new_tokens=60, seed=11
    )
    done = node_program(node_folder, str(Bundle.open().path), "The little dog", "11")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"The little dog{expected.text}\n"
    assert f"{expected.completion_tokens} tokens, {expected.finish_reason}" in done.stderr


@pytest.mark.slow
def test_the_node_program_says_what_is_wrong_in_one_line(node: str, node_folder: Path) -> None:
    missing = node_program(node_folder, "no-such-folder")
    assert missing.returncode == 1
    first, second = missing.stderr.splitlines()
    assert first.startswith("error: cannot read")
    assert second.startswith("hint: ")
    assert node_program(node_folder).returncode == 2


@pytest.mark.browser
def test_the_page_of_the_example_writes_the_text_of_python(site: Path, tmp_path: Path) -> None:
    for path in (EXAMPLES / "browser").glob("*.[hj]*"):
        shutil.copy(path, tmp_path)
    shutil.copytree(site, tmp_path / "site")
    model = gpt_edge.load(site / "models" / DEFAULT_BUNDLE)
    expected = model.complete(
        "Once upon a time", model.generation_defaults, max_new_tokens=40, seed=7
    )
    with serving(tmp_path) as address, Chromium() as browser:
        page = browser.new_page(address)
        page.wait("document.getElementById('go')?.disabled === false")
        page.run("document.getElementById('go').click()")
        page.wait("document.getElementById('text').textContent.length > 100")
        page.wait("!document.getElementById('go').disabled")
        text = page.run("document.getElementById('text').textContent")
        assert text == "Once upon a time" + expected.text
        assert browser.problems == []
