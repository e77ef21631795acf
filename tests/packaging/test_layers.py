"""Imports point downward only, and the runtime's files never name a training or export package.
Read from the source.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPO

# Folders (and, at the bottom, files) from the bottom up. A module may import its own folder, and
# what lies strictly lower; folders on one line lie side by side, and none imports another.
LAYERS: list[set[str]] = [
    {
        "version",
        "errors",
        "config",
        "onnx_contract",
        "tasks",
        "task_inputs",
        "arrays",
        "schemes",
        "arguments",
    },
    {"system", "tokenizer"},
    {"bundle"},
    {"data", "native", "signing"},
    {"runtime"},
    {"generate", "classify", "evaluate", "web"},
    {"verify", "bench", "serve"},
    {"reference"},
    {"training", "export"},
    {"cli", "integrations"},
    {"__main__"},
]
# The same of the folders in export, which are the parts of `gpt_edge.export`.
EXPORT_LAYERS: list[set[str]] = [
    {"weights"},
    {"formats"},
    {"graph"},
    {"verify"},
    {"pipeline"},
    {"budget", "gguf", "ort", "transformers"},
    {"report"},
]
HEAVY = {"torch", "onnx", "onnxscript", "onnx_ir", "optimum", "transformers", "safetensors"}
# what is not of the standard library; reference, training and export may use anything
ALLOWED: dict[str, set[str]] = {
    **{name: set() for name in LAYERS[0]},
    "arrays": {"numpy"},  # types alone; whoever imports them computes with numpy
    "system": set(),
    # requests: what tiktoken fails with
    "tokenizer": {"tiktoken", "tiktoken_ext", "tokenizers", "sentencepiece", "requests"},
    "bundle": set(),
    "data": set(),
    "native": set(),
    "signing": {"cryptography", "model_signing"},
    "runtime": {"numpy", "onnxruntime"},
    "web": set(),
    **{name: {"numpy"} for name in ("generate", "classify", "evaluate", "verify", "bench")},
    # each file is imported by the program that it is for
    "integrations": {"llm", "lm_eval", "pydantic", "PyInstaller", "numpy", "sklearn"},
    "serve": {"numpy", "starlette", "uvicorn", "prometheus_client"},
    "cli": {"typer", "rich", "prompt_toolkit"},
}
BASE = LAYERS[0]  # files that import one another
DEPTH_OF = {name: depth for depth, layer in enumerate(LAYERS) for name in layer}
EXPORT_DEPTH_OF = {name: depth for depth, layer in enumerate(EXPORT_LAYERS) for name in layer}
EXPORT = "gpt_edge.export."
STDLIB = set(sys.stdlib_module_names)


@functools.cache
def sources() -> dict[str, Path]:
    """Every module of the package by its full name; links are the folders that they lead to."""
    places = {
        "gpt_edge": REPO / "gpt_edge",
        "gpt_edge.export": REPO / "export",
        "gpt_edge.models": REPO / "models",
    }
    found = {}
    for package, folder in places.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            if not any(
                (folder / Path(*parts[:depth])).is_symlink() for depth in range(1, len(parts))
            ):
                found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


@functools.cache
def imports(path: Path) -> tuple[str, ...]:
    """Full names of everything imported anywhere in the file, but for type checkers alone."""
    return tuple(find_imports(path))


def find_imports(path: Path) -> Iterator[str]:
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    for_types = {
        id(node)
        for block in nodes
        if isinstance(block, ast.If) and is_for_type_checkers(block)
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in nodes:
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            is_package = node.module in ("gpt_edge", "gpt_edge.export", "gpt_edge.cli")
            yield from (
                f"{node.module}.{alias.name}" if is_package else node.module for alias in node.names
            )


def is_for_type_checkers(block: ast.If) -> bool:
    return isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"


def test_the_source_is_found() -> None:
    found = sources()
    assert {
        "gpt_edge",
        "gpt_edge.cli.commands.generate",
        "gpt_edge.export.pipeline.export",
        "gpt_edge.tokenizer.gpt2",
    } <= found.keys()
    assert len(found) == len(set(found.values()))


def test_every_module_has_a_layer() -> None:
    tops = {name.split(".")[1] for name in sources() if "." in name}
    assert tops - {"models"} == set(DEPTH_OF)


@pytest.mark.parametrize(
    "name", [name for name in sources() if "." in name and name != "gpt_edge.models"]
)
def test_imports_point_downward(name: str) -> None:
    top = name.split(".")[1]
    for imported in imports(sources()[name]):
        parts = imported.split(".")
        if parts[0] != "gpt_edge":
            continue
        assert len(parts) > 1, f"{name} imports the package's root"
        is_own = parts[1] == top or {top, parts[1]} <= BASE
        assert is_own or DEPTH_OF[parts[1]] < DEPTH_OF[top], f"{name} imports {imported}"


def test_every_folder_of_export_has_a_layer() -> None:
    folders = {name.split(".")[2] for name in sources() if name.startswith(EXPORT)}
    assert folders == set(EXPORT_DEPTH_OF)


@pytest.mark.parametrize("name", [name for name in sources() if name.startswith(EXPORT)])
def test_imports_inside_export_point_downward(name: str) -> None:
    folder = name.split(".")[2]
    for imported in imports(sources()[name]):
        if not imported.startswith(EXPORT):
            continue
        target = imported.split(".")[2]
        is_lower = EXPORT_DEPTH_OF[target] < EXPORT_DEPTH_OF[folder]
        assert target == folder or is_lower, f"{name} imports {imported}"


@pytest.mark.parametrize(
    "name", [name for name in sources() if "." in name and name != "gpt_edge.models"]
)
def test_a_layer_imports_only_the_packages_it_may(name: str) -> None:
    top = name.split(".")[1]
    outside = (
        {imported.split(".")[0] for imported in imports(sources()[name])} - {"gpt_edge"} - STDLIB
    )
    if top in ALLOWED:
        assert outside <= ALLOWED[top]
        assert not outside & HEAVY


def test_the_root_imports_nothing_but_the_version() -> None:
    found = {
        name for name in imports(REPO / "gpt_edge" / "__init__.py") if name.startswith("gpt_edge")
    }
    assert found == {"gpt_edge.version"}


def test_nobody_imports_export_as_a_package_of_its_own() -> None:
    for name, path in sources().items():
        assert not {imported.split(".")[0] for imported in imports(path)} & {"export", "models"}, (
            name
        )
