"""The C++ library, compiled once and kept in pytest's cache until its sources change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.support.cpp_library import CppLibrary, CppModel, compile_library, missing_tool


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder, and say what a machine without a compiler skips."""
    missing = missing_tool()
    for item in items:
        if "/tests/cpp/" not in item.path.as_posix():
            continue
        item.add_marker(pytest.mark.cpp)
        if missing is not None:
            item.add_marker(pytest.mark.skip(reason=f"{missing} is not here"))


@pytest.fixture(scope="session")
def cpp(request: pytest.FixtureRequest) -> CppLibrary:
    """Compiled without most optimizations, which takes half the time, or with the flags of
    GPT_EDGE_CPP_FLAGS.
    """
    flags = os.environ.get("GPT_EDGE_CPP_FLAGS", "-O1").split()
    import fcntl  # not on Windows, where this is skipped

    folder = request.config.cache.mkdir("cpp")
    with open(folder / "lock", "w") as lock:  # processes of one run take turns
        fcntl.flock(lock, fcntl.LOCK_EX)
        library = compile_library(folder, *flags)
    return CppLibrary(library)


@pytest.fixture(scope="module")
def tiny(cpp: CppLibrary) -> CppModel:
    return cpp.open(REPO / "tests" / "golden" / "tiny-edge")


@pytest.fixture(scope="session")
def story_bundles(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The checkpoint of the built-in model in each scheme."""
    from gpt_edge.export.pipeline.export import export_bundle

    folder = tmp_path_factory.mktemp("stories")
    for scheme in ("fp32", "int8", "int8-block", "int4"):
        export_bundle(shared_data / "story-model", folder / scheme, scheme=scheme)
    export_bundle(shared_data / "story-model", folder / "portable", graph="portable", scheme="fp32")
    return {path.name: path for path in folder.iterdir()}
