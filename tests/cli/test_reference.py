"""docs/cli.md is what the commands say of themselves."""

from __future__ import annotations

import re

import pytest

from gpt_edge.cli.app import COMMANDS
from gpt_edge.cli.reference import reference
from tests.conftest import REPO
from tests.support.runner import done


def test_the_page_is_written_from_the_commands() -> None:
    page = (REPO / "docs" / "cli.md").read_text("utf-8")
    assert page == reference(), "python -m gpt_edge.cli.reference >docs/cli.md"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_has_every_option_of_help(name: str) -> None:
    section = reference().split(f"\n### {name}\n")[1].split("\n### ")[0].replace("\\|", "|")
    shown = done(name, "--help").out
    options = set(re.findall(r"^  (?:-\w, )?(--[a-z0-9-]+)", shown, re.MULTILINE)) - {"--help"}
    assert options == set(re.findall(r"^\| `(?:-\w, )?(--[a-z0-9-]+)", section, re.MULTILINE))
