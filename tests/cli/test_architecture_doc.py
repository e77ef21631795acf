"""docs/architecture.md: its tree is the tree, its layers are those that the imports are checked
against, and the files that it tells a reader to open exist.
"""

from __future__ import annotations

import re

import pytest

from scripts import make_tree
from tests.conftest import REPO
from tests.packaging.test_layers import LAYERS
from tests.support.pages import Page

PAGE = Page(REPO / "docs" / "architecture.md")


def test_the_tree_is_up_to_date() -> None:
    assert make_tree.render(PAGE.text) == PAGE.text, "run python scripts/make_tree.py"


def test_the_tree_names_every_module_once() -> None:
    named = []
    for section in re.split(r"^### ", PAGE.text, flags=re.MULTILINE)[1:]:
        folder = section.partition("\n")[0].strip("`/")
        named += [f"{folder}/{name}" for name in re.findall(r"^\| `(\S+)` \|", section, re.M)]
    sources = [
        path.relative_to(REPO).as_posix()
        for top in ("gpt_edge", "export")
        for path in (REPO / top).rglob("*.py")
        # not a bare __init__.py, and nothing that lies behind the links
        if path.stat().st_size and not path.is_relative_to(REPO / "gpt_edge" / "export")
        if not path.is_relative_to(REPO / "gpt_edge" / "models")
    ]
    assert sorted(name for name in named if name.endswith(".py")) == sorted(sources)


def test_a_folder_without_a_phrase_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(make_tree.FOLDERS, "gpt_edge/bench")
    with pytest.raises(ValueError, match="no phrase for the folder gpt_edge/bench"):
        make_tree.render(PAGE.text)


def test_no_phrase_is_left_of_a_folder_that_is_gone() -> None:
    assert {name for name in make_tree.FOLDERS if not (REPO / name).is_dir()} == set()


def test_the_layers_are_those_that_imports_are_checked_against() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", PAGE.text, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, len(LAYERS) + 1))
    assert [set(re.findall(r"`(\w+)`", cell)) for _, cell in rows] == LAYERS


def test_the_nine_files_of_generate_exist_in_order() -> None:
    listed = re.findall(r"^(\d)\. `(\S+)`: ", PAGE.text, re.MULTILINE)
    assert [int(number) for number, _ in listed] == list(range(1, 10))
    for _, name in listed:
        assert (REPO / name).is_file(), name
