"""The C++ library, compiled once and kept in pytest's cache until its sources change."""

from __future__ import annotations

import fcntl
import os

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
    folder = request.config.cache.mkdir("cpp")
    with open(folder / "lock", "w") as lock:  # processes of one run take turns
        fcntl.flock(lock, fcntl.LOCK_EX)
        library = compile_library(folder, *flags)
    os.environ.pop("GPT_EDGE_ONNXRUNTIME", None)
    return CppLibrary(library)


@pytest.fixture(scope="module")
def tiny(cpp: CppLibrary) -> CppModel:
    return cpp.open(REPO / "tests" / "golden" / "tiny-edge")
