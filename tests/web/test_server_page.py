"""The page of `gpt-edge serve` is the same page, and asks the server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serve.conftest import Running, start
from tests.support.chromium import Chromium

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def served() -> Iterator[Running]:
    yield from start()


def test_the_page_asks_the_server_for_texts_and_labels(served: Running) -> None:
    with Chromium() as browser:
        fragment = "#prompt=the+end&seed=5&temperature=0.7&max_new_tokens=12"
        page = browser.new_page(f"http://127.0.0.1:{served.port}/{fragment}")
        page.wait("document.body.dataset.state === 'ready'")
        page.run("document.getElementById('generate').click()")
        page.wait("document.getElementById('status').textContent.includes('seed 5')")
        expected = served.complete(seed=5, temperature=0.7, max_tokens=12).json()["choices"][0]
        text = page.run("document.getElementById('story').textContent")
        assert text == "the end" + expected["text"]
        assert page.run("document.querySelectorAll('#bars li').length") >= 5
        page.run("document.getElementById('label_tab').click()")
        page.run("document.getElementById('classify').click()")
        page.wait("document.querySelectorAll('#label_bars li').length === 2")
        assert page.run("document.getElementById('answer').textContent") == "positive"
        asked = {one.split("/", 3)[3] for one in browser.requests}
        assert {"v1/models", "v1/completions", "v1/classify"} <= asked
        assert not [path for path in asked if path.startswith(("ort/", "js/page/worker"))]
        assert browser.problems == []
