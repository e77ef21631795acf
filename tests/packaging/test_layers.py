"""Imports point downward only, and the runtime's files never name a training or export package. Read from the source."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPO

# The layers from the bottom up. A module may import what lies strictly lower, and its own group.
LAYERS: list[dict[str, set[str]]] = [
    {"base": {"version", "errors", "config", "graph", "tasks", "threads", "fork", "protobuf", "child"}},
    {"files": {"disk", "lock", "files", "manifest"}},
    {"native": {"native"}},
    {"text and bundles": {"batching", "sampling", "stopping", "tokenizer", "foreign", "bundle_reader", "bundle"}},
    {"session": {"cache", "edge", "portable", "ort_session", "ort_graph", "session", "encoder"}},
    {
        "generation": {
            "stream",
            "generate",
            "loading",
            "parity",
            "paths",
            "difference",
            "verification",
            "evaluate",
            "metrics",
            "classify",
            "embed",
            "task_verification",
            "native_check",
        }
    },
    {"bench": {"bench"}},
    {"reference": {"reference"}},
    {"training": {"training"}, "export": {"export"}},  # side by side: neither imports the other
    {"cli": {"cli"}},
]
HEAVY = {"torch", "onnx", "onnxscript", "onnx_ir", "optimum", "transformers", "safetensors"}
ALLOWED = {  # by layer, what is not of the standard library
    "base": set(),
    "files": set(),
    "native": set(),
    "text and bundles": {
        "numpy",
        "tiktoken",
        "tiktoken_ext",
        "tokenizers",
        "requests",
    },  # requests: what tiktoken fails with
    "session": {"numpy", "onnxruntime"},
    "generation": {"numpy"},
    "bench": {"numpy"},
    "cli": {"typer", "rich"},
}
GROUP_OF = {module: name for layer in LAYERS for name, modules in layer.items() for module in modules}
STDLIB = set(sys.stdlib_module_names)
DEPTH_OF = {name: depth for depth, layer in enumerate(LAYERS) for name in layer}


def sources() -> dict[str, Path]:
    """Every module of the package by its full name; links are the folders that they lead to."""
    places = {"gpt_edge": REPO / "gpt_edge", "gpt_edge.export": REPO / "export", "gpt_edge.models": REPO / "models"}
    found = {}
    for package, folder in places.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            if not any((folder / Path(*parts[:depth])).is_symlink() for depth in range(1, len(parts))):
                found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


def imports(path: Path) -> Iterator[str]:
    """Full names of everything imported anywhere in the file, but for type checkers alone."""
    tree = ast.parse(path.read_text("utf-8"))
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            is_package = node.module in ("gpt_edge", "gpt_edge.export", "gpt_edge.cli")
            yield from (f"{node.module}.{alias.name}" if is_package else node.module for alias in node.names)


def test_the_source_is_found() -> None:
    found = sources()
    assert {"gpt_edge", "gpt_edge.cli.text", "gpt_edge.export.pipeline", "gpt_edge.tokenizer.gpt2"} <= found.keys()
    assert len(found) == len(set(found.values()))


def test_every_module_has_a_layer() -> None:
    tops = {name.split(".")[1] for name in sources() if "." in name}
    assert tops - {"models"} == set(GROUP_OF)


@pytest.mark.parametrize("name", [name for name in sources() if "." in name and name != "gpt_edge.models"])
def test_imports_point_downward(name: str) -> None:
    group = GROUP_OF[name.split(".")[1]]
    for imported in imports(sources()[name]):
        parts = imported.split(".")
        if parts[0] != "gpt_edge":
            continue
        assert len(parts) > 1, f"{name} imports the package's root"
        other = GROUP_OF[parts[1]]
        assert other == group or DEPTH_OF[other] < DEPTH_OF[group], f"{name} ({group}) imports {imported} ({other})"


@pytest.mark.parametrize("name", [name for name in sources() if "." in name and name != "gpt_edge.models"])
def test_a_layer_imports_only_the_packages_it_may(name: str) -> None:
    group = GROUP_OF[name.split(".")[1]]
    outside = {imported.split(".")[0] for imported in imports(sources()[name])} - {"gpt_edge"} - STDLIB
    if group in ALLOWED:
        assert outside <= ALLOWED[group]
        assert not outside & HEAVY


def test_the_root_imports_nothing_but_errors_and_the_version() -> None:
    found = {name for name in imports(REPO / "gpt_edge" / "__init__.py") if name.startswith("gpt_edge")}
    assert found == {"gpt_edge.errors", "gpt_edge.version"}


def test_nobody_imports_export_as_a_package_of_its_own() -> None:
    for name, path in sources().items():
        assert not {imported.split(".")[0] for imported in imports(path)} & {"export", "models"}, name
