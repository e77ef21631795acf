"""A page of the documentation as a test reads it: its blocks, its console examples, and lines
without their figures.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPO

FIGURE = re.compile(r"(?<![\w-])-?\d[\d.,]*(e[+-]\d+)?(?!\w)( [kMG]?B)?")


@dataclass(frozen=True)
class Example:
    """A command of a console block, and what the block shows of its output."""

    command: str
    shown: tuple[str, ...]


class Page:
    """A Markdown file's text and its fenced blocks, each with its kind, "" for none."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text("utf-8")
        self._blocks = re.findall(r"^```(\w*)\n(.*?)^```$", self.text, re.MULTILINE | re.DOTALL)

    def blocks(self, kind: str) -> list[str]:
        """The contents of the blocks of this kind, in their order."""
        return [content for name, content in self._blocks if name == kind]

    def examples(self) -> list[Example]:
        """Every command of the console blocks, in their order."""
        commands: list[tuple[str, list[str]]] = []
        for block in self.blocks("console"):
            for line in block.splitlines():
                if line.startswith("$ "):
                    commands.append((line[2:], []))
                else:
                    commands[-1][1].append(line)
        return [Example(command, tuple(shown)) for command, shown in commands]


def masked(line: str) -> str:
    """Without figures, which depend on the model and the machine."""
    return " ".join(FIGURE.sub("#", line).split())


def matches(shown: Sequence[str], printed: Sequence[str]) -> bool:
    """Whether the lines are those shown; a line "..." stands for any lines, a line that ends with
    it for any rest.
    """
    if not shown:
        return not printed
    if shown[0] == "...":
        return any(matches(shown[1:], printed[start:]) for start in range(len(printed) + 1))
    if not printed:
        return False
    expected = masked(shown[0])
    actual = masked(printed[0])
    if expected.endswith("..."):
        is_same = actual.startswith(expected[:-3].rstrip())
    else:
        is_same = actual == expected
    return is_same and matches(shown[1:], printed[1:])


def write_program(folder: Path) -> None:
    """Put a `gpt-edge` into the folder that is this checkout's; its `verify` shares the traces of
    the run.
    """
    program = folder / "gpt-edge"
    traced = folder / "traced.py"
    traced.write_text(
        f"import sys; sys.path.insert(0, {str(REPO)!r})\n"
        "from tests.support.traces import share_traces; share_traces()\n"
        "from gpt_edge.cli import main; sys.exit(main())\n"
    )
    program.write_text(
        f'#!/bin/sh\ncase "$1" in verify) program="{traced}" ;; *) program="{REPO / "cli.py"}" ;; '
        f'esac\nexec "{sys.executable}" "$program" "$@"\n'
    )
    program.chmod(0o755)
