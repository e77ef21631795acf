"""Every page's links lead somewhere, and every file that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import REPO

PAGES = sorted(
    [
        *REPO.glob("*.md"),
        *(REPO / "docs").glob("*.md"),
        *(REPO / "benchmarks").rglob("*.md"),
        *(REPO / "examples").rglob("*.md"),
        REPO / "models" / "README.md",
    ]
)
TOP_FOLDERS = "benchmarks|docs|examples|export|gpt_edge|models|scripts|tests"
FENCES = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_links_and_file_names_lead_somewhere(page: Path) -> None:
    text = FENCES.sub("", page.read_text("utf-8"))
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not link.startswith("https://"):
            assert (page.parent / link).exists(), link
    for name in re.findall(rf"`((?:{TOP_FOLDERS})/[\w./-]+)`", text):
        assert (REPO / name).exists(), name
