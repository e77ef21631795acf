"""The examples of docs/server.md run."""

from __future__ import annotations

import re

import pytest

from gpt_edge.bundle.bundle import DEFAULT_BUNDLE
from gpt_edge.serve.sampling_fields import CONSTRAINTS
from tests.serve.conftest import Running
from tests.support.pages import REPO, Page
from tests.support.runner import run

PAGE = REPO / "docs" / "server.md"


def test_the_client_of_the_page_prints_a_text(
    served: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = Page(PAGE).blocks("python")
    assert len(blocks) == 1
    code = blocks[0].replace("127.0.0.1:8000", f"127.0.0.1:{served.port}")
    exec(code.replace(DEFAULT_BUNDLE, "tiny-edge"), {})
    assert capsys.readouterr().out


def test_options_and_fields_of_the_page_exist(served: Running) -> None:
    text = PAGE.read_text()
    help_ = run("serve", "--help").out
    options = set(re.findall(r"`[^`]*?(--[a-z][a-z-]*)", text))
    assert len(options) >= 7
    assert [option for option in options if option not in help_] == []
    assert all(f"`{name}`" in text for name in CONSTRAINTS)
    for path in ("/v1/models", "/health", "/ready", "/metrics"):
        assert f"`{path}" in text or f"{path}`" in text
        assert served.client.get(path).status_code == 200
