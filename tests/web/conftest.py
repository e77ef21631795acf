"""A site with the built-in bundles, written once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.web.site import write_site


@pytest.fixture(scope="session")
def node() -> str:
    """The program node, 20 or newer; skips where there is none."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed")
    return found


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with the built-in story model and a classifier."""
    bundles = [Bundle.open(), Bundle.open("sentiment-6m-int8")]
    return write_site(bundles, tmp_path_factory.mktemp("site") / "site")
