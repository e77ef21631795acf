"""docs/adapters.md is executed: each command in its order, each output line compared with its
figures masked, and its Python. The pages' model and examples are those of test_finetuning_doc.
"""

from __future__ import annotations

import random
import shlex
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.support.pages import Page, matches
from tests.support.runner import done, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PAGE = Page(REPO / "docs" / "adapters.md")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of random weights, and reviews of which most are negative."""
    from tests.support.finetune_factory import LARGER, make_checkpoint

    (tmp_path / "runs" / "tinystories").mkdir(parents=True)
    make_checkpoint(tmp_path / "runs" / "tinystories" / "checkpoint", LARGER)
    draw = random.Random(1)
    rows = [f"It was {draw.choice(('warm', 'kind'))},positive" for _ in range(10)]
    rows = [row.replace("It", '"It').replace(",positive", '",positive') for row in rows]
    rows += [f"so {draw.choice(('cold', 'rude', 'bad'))},negative" for _ in range(60)]
    (tmp_path / "train.csv").write_text("\n".join(["review,opinion", *rows]) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_does_what_it_shows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examples = PAGE.examples()
    commands = [shlex.split(example.command)[1] for example in examples]
    assert commands == ["finetune", "export", "export", "classify", "verify"]
    for example in examples:
        result = run(*shlex.split(example.command)[1:])  # finetune shows its progress
        assert result.code == 0, result.err
        assert matches(example.shown, result.out.splitlines()), (example.command, result.out)
    (source,) = PAGE.blocks("python")
    exec(compile(source, "docs/adapters.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[-1] == "True"
    inspected = done("inspect", "reviews-adapter", "--json").json
    assert inspected["base"]["name"] == "stories-base"
    assert "adapter, edge graph" in done("inspect", "reviews-adapter").out
    assert "by which adapters know it" in done("inspect", "stories-base").out
