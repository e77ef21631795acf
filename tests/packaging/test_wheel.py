"""What gets installed: `gpt_edge` and its data, nothing else, and it runs from there. The wheel is
built as a user would.

The tree is copied first: a build leaves folders behind, and a stale one would ship deleted files.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt_edge.native.compile import COMPILERS
from tests.conftest import REPO

LEFT_OUT = shutil.ignore_patterns(
    ".git",
    ".*_cache",
    ".hypothesis",
    "__pycache__",
    "build",
    "dist",
    "*.egg-info",
    ".venv",
    "runs",
    "*.so",
)
# The operators take half a minute to compile: installed for the tests once, with the checkout.
NO_COMPILER = {"CC": "/bin/false"}
OFFLINE = {
    **NO_COMPILER,
    "PIP_NO_INDEX": "1",
    "PIP_NO_DEPS": "1",
    "PIP_NO_BUILD_ISOLATION": "0",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))
# folder: its package
TOPS = {"gpt_edge": "gpt_edge", "export": "gpt_edge.export", "models": "gpt_edge.models"}


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as a fresh clone has it, links included."""
    folder = tmp_path_factory.mktemp("clone") / "gpt-edge"
    shutil.copytree(REPO, folder, symlinks=True, ignore=LEFT_OUT)
    return folder


@pytest.fixture(scope="session")
def installed(clone: Path) -> Path:
    """The folder of programs of a new virtual environment in which README's first command was
    typed.

    Without a network: what gpt-edge depends on is seen through a .pth file, gpt-edge itself is not.
    """
    environment = clone.parent / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (site,) = (environment / "lib").glob("python*/site-packages")
    (site / "outside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    programs = environment / "bin"
    pip = programs / "pip"  # of this environment, out of the other one's package
    pip.write_text(f'#!/bin/sh\nexec "{programs}/python" -m pip "$@"\n')
    pip.chmod(0o755)
    install, _, generate = first_command().partition(" && ")
    assert install == "pip install ."
    assert generate.startswith("gpt-edge generate ")
    done = shell(install, programs, clone, **OFFLINE)
    assert done.returncode == 0, done.stderr
    return programs


def first_command() -> str:
    """README's first command, in its first block."""
    block = (REPO / "README.md").read_text("utf-8").split("```bash\n", 1)[1].split("```")[0]
    return block.strip().splitlines()[0]


def shell(
    command: str, programs: Path, cwd: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        ["bash", "-c", command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def build_wheel(clone: Path, variables: dict[str, str]) -> Path:
    out = clone.parent / f"dist-{len(variables)}"
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, clone],
        check=True,
        capture_output=True,
        env={**os.environ, **variables},
    )
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def wheel_names(clone: Path) -> list[str]:
    """The names in the wheel."""
    wheel = build_wheel(clone, NO_COMPILER)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert len(names) == len(set(names))
    return names


def expected() -> Iterator[str]:
    """Every module, and every file of the embedded bundles, by its installed name."""
    for top, package in TOPS.items():
        for path in (REPO / top).rglob("*"):
            inside = path.relative_to(REPO / top)
            if any((REPO / top / parent).is_symlink() for parent in [inside, *inside.parents[:-1]]):
                continue
            is_data = (
                top == "models"
                and path.is_file()
                and len(inside.parts) == 2
                and "__pycache__" not in inside.parts
            )
            is_page = path.is_file() and "static" in inside.parts
            if path.suffix in (".py", ".c", ".h") or path.name == "py.typed" or is_data or is_page:
                yield f"{package.replace('.', '/')}/{inside.as_posix()}"


@pytest.mark.slow
def test_with_a_compiler_the_wheel_holds_the_operators(clone: Path) -> None:
    if not any(shutil.which(name) for name in COMPILERS):
        pytest.skip("no C compiler")
    with zipfile.ZipFile(build_wheel(clone, {})) as archive:
        names = [name for name in archive.namelist() if "_operators" in name]
    assert len(names) == 1


def test_without_a_compiler_the_installation_works_without_operators(installed: Path) -> None:
    environment = {"GPT_EDGE_NATIVE": "", "XDG_CACHE_HOME": "/nowhere"}
    done = shell("gpt-edge native", installed, installed, **environment)
    assert done.stdout.startswith("not in use: pip found no C compiler")


def test_the_wheel_holds_the_package_and_its_data_and_nothing_else(wheel_names: list[str]) -> None:
    information = [name for name in wheel_names if ".dist-info/" in name]
    assert set(wheel_names) - set(information) == set(expected())
    assert {name.split("/", 1)[1] for name in information} >= {
        "METADATA",
        "entry_points.txt",
        "licenses/LICENSE",
    }
    assert any(
        name.startswith("gpt_edge/models/") and name.endswith("/manifest.json")
        for name in wheel_names
    )


def test_the_packages_list_names_every_folder_with_modules() -> None:
    folders = set()
    for top, package in TOPS.items():
        for path in (REPO / top).rglob("__init__.py"):
            inside = path.parent.relative_to(REPO / top)
            if not any(
                (REPO / top / parent).is_symlink()
                for parent in [inside, *inside.parents[:-1]]
                if inside.parts
            ):
                folders.add(".".join([package, *inside.parts]))
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == folders


def test_every_folder_of_modules_is_a_package() -> None:
    for top in TOPS:
        for path in (REPO / top).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), path


def test_nothing_but_gpt_edge_appears_in_site_packages(installed: Path) -> None:
    (site,) = (installed.parent / "lib").glob("python*/site-packages")
    found = {path.name.partition("-")[0] for path in site.iterdir()} - {
        "outside.pth",
        "__pycache__",
    }
    assert found == {"gpt_edge"}
    # it, and its dist-info
    assert len([path for path in site.iterdir() if path.name.startswith("gpt_edge")]) == 2


def test_the_first_command_of_the_readme_writes_text_in_an_empty_folder(
    installed: Path, tmp_path: Path
) -> None:
    _, _, generate = first_command().partition(" && ")
    done = shell(generate, installed, tmp_path)
    assert done.returncode == 0, done.stderr
    # the story model samples by default, and says so
    assert re.fullmatch(r"sampling: top_k 40, temperature 0\.8, seed \d+\n", done.stderr)
    assert len(done.stdout.split()) > 20
    assert list(tmp_path.iterdir()) == []


def test_the_installed_package_is_the_one_that_runs(installed: Path, tmp_path: Path) -> None:
    code = (
        "import gpt_edge, gpt_edge.export, gpt_edge.models; "
        "print(gpt_edge.__file__, gpt_edge.export.__file__)"
    )
    done = shell(f'python -c "{code}"', installed, tmp_path)
    assert done.returncode == 0, done.stderr
    for path in done.stdout.split():
        assert Path(path).is_relative_to(installed.parent.resolve()), path
    assert shell("gpt-edge --version", installed, tmp_path).stdout == f"gpt-edge {version()}\n"


def version() -> str:
    from gpt_edge.version import __version__

    return __version__


def test_a_model_can_be_embedded_from_the_installed_package(
    installed: Path, tmp_path: Path
) -> None:
    golden = REPO / "tests" / "golden" / "tiny-edge"
    done = shell(f"gpt-edge generate 'the rain' -m '{golden}' -n 4 --json", installed, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_runtime_depends_on_no_training_package() -> None:
    markers = {
        requirement.partition(">")[0]: requirement.partition("; ")[2]
        for requirement in PROJECT["project"]["dependencies"]
    }
    on_windows_on_arm = markers.pop("tokenizers")
    assert on_windows_on_arm == "sys_platform == 'win32' and platform_machine == 'ARM64'"
    assert markers.pop("tiktoken") == "sys_platform != 'win32' or platform_machine != 'ARM64'"
    assert markers == dict.fromkeys(("numpy", "onnxruntime", "typer", "rich"), "")


def test_the_constraints_pin_each_package_once_and_exactly() -> None:
    lines = [
        line
        for line in (REPO / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    names = [line.partition("==")[0].lower() for line in lines]
    assert all(line.count("==") == 1 and " " not in line and "/" not in line for line in lines)
    assert len(names) == len(set(names))
    assert "torch==2.13.0" in lines
    assert {"onnxruntime", "optimum-onnx", "pytest", "ruff", "mypy", "numpy", "tiktoken"} <= set(
        names
    )
