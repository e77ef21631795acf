"""Mutants: one small change of one file each, made from its syntax tree.

A comparison flipped, a number off by one, an operator exchanged, a condition negated, an assignment
to a slice made one to the name, an addition in place made an assignment, a call dropped. What is
raised, asserted, annotated, documented or shown by `__repr__` is left as it is, and so is what runs
at import outside functions, and `strict` of `zip`, which asserts what holds by construction.
"""

from __future__ import annotations

import ast
import copy
import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLIPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
EXCHANGED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
}


@dataclass(frozen=True)
class Mutant:
    """One change: the kind-th of the number-th node of a file's code.

    first, last: the lines of its statement, or of a compound statement's head.
    """

    path: str
    line: int
    column: int
    change: str
    number: int
    kind: int
    first: int
    last: int

    @property
    def name(self) -> str:
        """Of one state of the file."""
        return f"{self.path}:{self.line}:{self.column} {self.change}"

    @property
    def code(self) -> str:
        """The line that is changed."""
        return source_of(self.path).splitlines()[self.line - 1].strip()

    def tree(self) -> ast.Module:
        """The whole file's, with the change and the lines of the original."""
        tree = ast.parse(source_of(self.path))
        _apply(next(n for i, (n, _) in enumerate(_code(tree)) if i == self.number), self.kind)
        return ast.fix_missing_locations(tree)


@functools.cache
def source_of(path: str) -> str:
    """The text of a file of the checkout."""
    return (ROOT / path).read_text(encoding="utf-8")


@functools.cache
def digest_of(path: str) -> str:
    """Of the text: results are of one state of a file."""
    return hashlib.sha256(source_of(path).encode()).hexdigest()[:16]


def mutants_of(path: str) -> list[Mutant]:
    """Every mutant of a file."""
    found = []
    for number, (node, statement) in enumerate(_code(ast.parse(source_of(path)))):
        for kind in range(_n_changes(node)):
            if change := _apply(_shallow(node), kind):
                place = getattr(node, "lineno", 0), getattr(node, "col_offset", 0)
                found.append(Mutant(path, *place, change, number, kind, *_lines(statement)))
    return found


def _shallow(node: ast.AST) -> ast.AST:
    """A copy that may be changed; what is inside the node is not."""
    copied = copy.copy(node)
    if isinstance(copied, ast.Compare):
        copied.ops = list(copied.ops)
    return copied


def _lines(statement: ast.stmt) -> tuple[int, int]:
    """The first and last line of a statement, without the statements inside it."""
    inside = getattr(statement, "body", None) or getattr(statement, "cases", None)
    if not inside:
        return statement.lineno, statement.end_lineno or statement.lineno
    below = inside[0].pattern if isinstance(inside[0], ast.match_case) else inside[0]
    return statement.lineno, max(statement.lineno, below.lineno - 1)


def _code(tree: ast.AST) -> Iterator[tuple[ast.AST, ast.stmt]]:
    """Nodes of code inside functions in a fixed order, each with its statement."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    seen: set[int] = set()
    for function in functions:
        if function.name == "__repr__":
            continue
        for statement in function.body:
            for node, owner in _walk(statement, statement):
                if id(node) not in seen:
                    seen.add(id(node))
                    yield node, owner


def _walk(node: ast.AST, owner: ast.stmt) -> Iterator[tuple[ast.AST, ast.stmt]]:
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.FunctionDef | ast.Assert):
        return
    if isinstance(node, ast.keyword) and node.arg == "strict":
        return
    if isinstance(node, ast.stmt):
        owner = node
    yield node, owner
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _walk(child, owner)


def _n_changes(node: ast.AST) -> int:
    if isinstance(node, ast.Constant):
        return 2 if isinstance(node.value, int) and not isinstance(node.value, bool) else 1
    kinds = (ast.Compare, ast.BinOp, ast.BoolOp, ast.If, ast.Assign, ast.AugAssign, ast.Expr)
    return 1 if isinstance(node, kinds) else 0


def _apply(node: ast.AST, kind: int) -> str:
    """Change a node in place, and say how; "" where nothing was changed."""
    match node:
        case ast.Compare(ops=[op, *_]) if type(op) in FLIPPED:
            node.ops[0] = FLIPPED[type(op)]()
            return f"{type(op).__name__} becomes {type(node.ops[0]).__name__}"
        case ast.BinOp(op=op) if type(op) in EXCHANGED:
            node.op = EXCHANGED[type(op)]()
            return f"{type(op).__name__} becomes {type(node.op).__name__}"
        case ast.BoolOp(op=op):
            node.op = ast.Or() if isinstance(op, ast.And) else ast.And()
            return f"{type(op).__name__} becomes {type(node.op).__name__}"
        case ast.Constant(value=bool(value)):
            node.value = not value
            return f"{value} becomes {not value}"
        case ast.Constant(value=int(value)):
            node.value = value + (1 if kind == 0 else -1)
            return f"{value} becomes {node.value}"
        case ast.If(test=test):
            node.test = ast.UnaryOp(ast.Not(), test)
            return "a condition is negated"
        case ast.AugAssign(target=target, value=value):
            store = copy.deepcopy(target)
            _become(node, ast.Assign([store], value))
            return "an addition in place becomes an assignment"
        case ast.Assign(targets=[ast.Subscript(value=inner, slice=ast.Slice(None, None))]):
            name = copy.deepcopy(inner)
            name.ctx = ast.Store()  # type: ignore[attr-defined]
            node.targets = [name]
            return "writing into an array becomes rebinding its name"
        case ast.Expr(value=ast.Call()):
            # it stays where nothing runs it, so that a closure keeps its variables
            never = ast.copy_location(ast.Constant(False), node)
            kept = ast.copy_location(ast.Expr(node.value), node)
            _become(node, ast.If(never, [kept], []))
            return "a call is dropped"
    return ""


def _become(node: ast.AST, other: ast.AST) -> None:
    other = ast.copy_location(other, node)
    node.__class__ = other.__class__  # type: ignore[assignment]
    node.__dict__ = other.__dict__
