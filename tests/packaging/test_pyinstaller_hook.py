"""PyInstaller finds the hook, and the hook names what a program needs beside its imports. Whole
programs were packed by hand, see docs/embedding.md.
"""

from __future__ import annotations

import importlib
import pkgutil
import runpy
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import gpt_edge
from gpt_edge.bundle.reader import DEFAULT_BUNDLE
from gpt_edge.cli.app import COMMANDS
from tests.conftest import REPO


def test_the_entry_point_names_the_folder_of_the_hook() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))
    place = project["project"]["entry-points"]["pyinstaller40"]["hook-dirs"]
    module, _, function = place.partition(":")
    (folder,) = getattr(importlib.import_module(module), function)()
    assert (Path(folder) / "hook-gpt_edge.py").is_file()
    assert module in project["tool"]["setuptools"]["packages"]


@pytest.fixture
def folder_of_hooks(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hooks, which find PyInstaller's functions as written here."""
    root = Path(gpt_edge.__file__).parent
    hooks = ModuleType("PyInstaller.utils.hooks")

    def collect_data_files(
        package: str, includes: list[str], include_py_files: bool = False
    ) -> list[tuple[str, str]]:
        assert package == "gpt_edge"
        return [
            (str(path), str(path.parent.relative_to(root)))
            for pattern in includes
            for path in root.glob(pattern)
        ]

    def collect_submodules(package: str) -> list[str]:
        paths = importlib.import_module(package).__path__
        return [one.name for one in pkgutil.walk_packages(paths, f"{package}.")]

    hooks.collect_data_files = collect_data_files  # type: ignore[attr-defined]
    hooks.collect_submodules = collect_submodules  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "PyInstaller", ModuleType("PyInstaller"))
    monkeypatch.setitem(sys.modules, "PyInstaller.utils", ModuleType("PyInstaller.utils"))
    monkeypatch.setitem(sys.modules, "PyInstaller.utils.hooks", hooks)
    return root / "integrations" / "pyinstaller_hooks"


def test_the_hook_packs_models_and_what_is_imported_by_name(folder_of_hooks: Path) -> None:
    packed = runpy.run_path(str(folder_of_hooks / "hook-gpt_edge.py"))
    folders = {folder for _, folder in packed["datas"]}
    assert f"models/{DEFAULT_BUNDLE}" in {Path(folder).as_posix() for folder in folders}
    assert {
        "gpt_edge.tokenizer.gpt2",
        "gpt_edge.generate.generator",
        "gpt_edge.generate.constraints.processor",
        "gpt_edge.classify.embedder",
        "gpt_edge.native.rewrite",
    } <= set(packed["hiddenimports"])


def test_a_program_that_runs_the_command_line_gets_every_command(folder_of_hooks: Path) -> None:
    packed = runpy.run_path(str(folder_of_hooks / "hook-gpt_edge.cli.app.py"))
    assert {f"gpt_edge.cli.commands.{name}" for name in COMMANDS} <= set(packed["hiddenimports"])
