"""A scheme's name is written in the table of schemes, in tests and in help, and nowhere else: code
asks for an attribute of the `Scheme`. Read from the source.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt_edge.schemes import EXPORTED, FOR_TASKS, QUANTIZED, SCHEMES, UNIFORM
from tests.conftest import REPO

TABLE = REPO / "gpt_edge" / "schemes.py"
SOURCES = sorted([*(REPO / "gpt_edge").rglob("*.py"), *(REPO / "export").rglob("*.py")])
# these cannot be another word, so they are not allowed inside a longer text either
HYPHENATED = [name for name in SCHEMES if "-" in name]


def docstring_ids(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            continue
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            yield id(first.value)


def help_ids(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "help":
            yield from (id(inner) for inner in ast.walk(node.value))


def scheme_literals(text: str) -> list[str]:
    """Line and literal of every text that names a scheme outside docstrings and help."""
    if not any(name in text for name in SCHEMES):
        return []
    tree = ast.parse(text)
    allowed = {*docstring_ids(tree), *help_ids(tree)}
    texts = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return [
        f"line {node.lineno}: {node.value!r}"
        for node in texts
        if id(node) not in allowed and names_a_scheme(node.value)
    ]


def names_a_scheme(text: str) -> bool:
    return text in SCHEMES or any(name in text for name in HYPHENATED)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPO)))
def test_no_module_but_the_table_names_a_scheme(path: Path) -> None:
    if path != TABLE:
        assert scheme_literals(path.read_text("utf-8")) == []


def test_a_literal_is_seen_but_not_in_docstrings_and_help() -> None:
    text = '"""int4"""\ndef f(s):\n    "int4"\n    return s == "int4" or Option(help="int4")\n'
    assert scheme_literals(text) == ["line 4: 'int4'"]
    assert scheme_literals('print("use --scheme int8-block")')
    assert scheme_literals(TABLE.read_text("utf-8"))


def test_tuples_of_names_follow_from_the_table() -> None:
    assert tuple(SCHEMES) == ("fp32", "int8", "int8-block", "int4", "int8-dynamic", "mixed")
    assert EXPORTED == ("fp32", "int8", "int8-block", "int4", "int8-dynamic")
    assert QUANTIZED == ("int8", "int8-block", "int4", "int8-dynamic", "mixed")
    assert FOR_TASKS == ("fp32", "int8", "int8-block", "int4")
    assert UNIFORM == ("int8", "int8-block", "int4")


def test_limits_are_given_for_what_is_compared_with_fp32() -> None:
    for scheme in SCHEMES.values():
        assert (scheme.max_mean_kl is None) == scheme.is_float
        has_task_limits = scheme.task_max_mean_kl is not None
        assert has_task_limits == (scheme.task_max_difference is not None)
        assert has_task_limits == (scheme.allows_tasks and not scheme.is_float)
        assert (not scheme.operators) == scheme.is_mixed
