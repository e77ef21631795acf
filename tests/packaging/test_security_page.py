"""SECURITY.md and docs/security.md hold what they say: each promise names tests that are there, and
the table of dependencies has the lower bounds of pyproject.toml.
"""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import REPO

PAGE = (REPO / "SECURITY.md").read_text("utf-8")
PROMISED = PAGE.split("## What is promised")[1].split("\n## ")[0]
PROMISES = [line for line in PROMISED.splitlines() if line.startswith("- ")]
TABLE = (REPO / "docs" / "security.md").read_text("utf-8").split("## Dependencies")[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[\w,]+\])?(?:[>=]=([\d.]+))?")
ROW = re.compile(r"\| ([\w.-]+) \| ([\d.]+) \| (.+) \|")
FOR_DEVELOPERS = "dev"


@functools.cache
def functions(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_each_promise_names_tests_that_are_there() -> None:
    assert len(PROMISES) >= 20
    for promise in PROMISES:
        named = NAMED.findall(promise)
        assert named, promise
        assert len(named) == promise.count("`tests/"), promise
        for file, name in named:
            assert name in functions(REPO / file), f"{file} has no {name}"


def requirements() -> Iterator[tuple[str, str]]:
    """Name and lower bound of every package that gpt-edge asks for, those of developers apart."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"]
    lists = [extras[name] for name in extras if name != FOR_DEVELOPERS]
    lists += [project["project"]["dependencies"], project["build-system"]["requires"]]
    for text in (text for names in lists for text in names):
        found = REQUIREMENT.match(text)
        assert found is not None, text
        if found[1] != "gpt-edge":
            yield found[1], found[2]


def test_the_table_of_dependencies_has_the_lower_bounds() -> None:
    rows = ROW.findall(TABLE.split("\n## ")[0])
    assert len(rows) == len({name for name, _, _ in rows})
    assert {(name, bound) for name, bound, _ in rows} == set(requirements())


def test_an_advisory_is_fixed_at_the_lower_bound_or_before() -> None:
    """The versions in parentheses are those that brought the fix."""
    n_advisories = 0
    for name, bound, because in ROW.findall(TABLE):
        n_advisories += because.count("CVE-")
        for fixed in re.findall(r"\((?:all )?(?:fixed in )?([\d.]+)\)", because):
            assert version(fixed) <= version(bound), (name, fixed)
        assert ("CVE-" in because) or ("advisor" in because), name
    assert n_advisories >= 15


def version(text: str) -> tuple[int, ...]:
    numbers = tuple(int(part) for part in text.split("."))
    return (*numbers, 0, 0, 0)[:3]


def test_transformers_reads_only_what_was_written_here() -> None:
    """As the page says beside the table: no folder of others reaches `from_pretrained`."""
    found = {
        path.relative_to(REPO).as_posix()
        for top in ("gpt_edge", "export")
        for path in (REPO / top).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "from_pretrained"
    }
    without_links = {name for name in found if not name.startswith("gpt_edge/export/")}
    assert without_links == {"export/graph/optimum_int8.py", "export/transformers/folder.py"}
