"""The page of `gpt-edge serve` is the same page, and asks the server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from gpt_edge.serve.guard import Access
from tests.serve.conftest import Running, start
from tests.support.chromium import Chromium, Page

pytestmark = pytest.mark.browser
KEY = "k3y-of-the-server"


@pytest.fixture(scope="module")
def served() -> Iterator[Running]:
    yield from start()


@pytest.fixture(scope="module")
def key_served() -> Iterator[Running]:
    yield from start(lambda port: Access(port, api_key=KEY))


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


def enter_key(page: Page, key: str) -> None:
    page.wait("!document.getElementById('access').hidden")
    page.run(f"document.getElementById('api_key').value = {json.dumps(key)}")
    page.run("document.getElementById('use_key').click()")


def test_the_page_asks_for_the_key_and_keeps_it_in_its_tab(key_served: Running) -> None:
    address = f"http://127.0.0.1:{key_served.port}/"
    with Chromium() as browser:
        page = browser.new_page(f"{address}#seed=3&max_new_tokens=5")
        for wrong in ("wr0ng", "schl\u00fcssel"):
            enter_key(page, wrong)
            page.wait("document.getElementById('access_note').classList.contains('error')")
        enter_key(page, f" {KEY} ")
        page.wait("document.body.dataset.state === 'ready'")
        assert page.run("document.getElementById('access').hidden")
        page.run("document.getElementById('generate').click()")
        page.wait("document.getElementById('status').textContent.includes('seed 3')")
        page.run("navigator.clipboard.writeText = (text) => { window.copied = text; }")
        page.run("document.getElementById('share').click()")
        assert KEY not in page.wait("window.copied")
        assert KEY not in page.run("document.documentElement.outerHTML")
        assert page.run("JSON.stringify(localStorage) + document.cookie") == "{}"
        page.call("Page.reload")
        page.wait("performance.timeOrigin > 0 && document.body.dataset.state === 'ready'")
        assert not [one for one in browser.requests if KEY in one]
        other = browser.new_page(address)  # nothing of the first one
        other.wait("!document.getElementById('access').hidden")
        assert [text for text in browser.problems if "401" not in text] == []
