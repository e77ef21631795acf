"""Whatever a prompt, a link, a model or a server spells, the page shows as text: nothing runs, and
nothing is asked for.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlencode

import pytest

from gpt_edge.serve.page import HEADERS, SITE
from gpt_edge.web.static_files import media_type, page_files
from tests.support.chromium import Chromium, Page
from tests.web.hostile_texts import HOSTILE

pytestmark = pytest.mark.browser

READY = "document.body.dataset.state === 'ready'"
N_SHOWN = 10  # labels
# an element that index.html does not have would be one that a text became
PLAIN = {"SPAN", "LI", "OPTION"}
PLACES = "#story *, #bars *, #label_bars *, #status *, #answer *, #writer *, #classifier *"


class HostileServer(BaseHTTPRequestHandler):
    """The page, and a server whose every word is hostile."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        name = "index.html" if path == "/" else path[1:]
        if path == "/v1/models":
            writers = [{"id": text, "kind": "language model"} for text in HOSTILE]
            labellers = [{"id": text, "kind": "classifier"} for text in HOSTILE]
            self._send(json.dumps({"data": [*writers, *labellers]}).encode(), "application/json")
        elif name == "site.json":
            self._send(SITE, "application/json")
        elif content := page_files().get(name):
            self._send(content, media_type(name))
        else:
            self._send(b"", "text/plain", 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/classify":
            first = int(body["input"][0])
            labels = HOSTILE[first : first + N_SHOWN]
            row = {"label": labels[0], "labels": labels, "probs": [1 / len(labels)] * len(labels)}
            self._send(json.dumps({"data": [row]}).encode(), "application/json")
        elif body["prompt"] == "fail":
            error = {"error": {"message": HOSTILE[body["seed"]]}}
            self._send(json.dumps(error).encode(), "application/json", 400)
        else:
            events = [{"choices": [choice(text)]} for text in HOSTILE]
            lines = [f"data: {json.dumps(event)}\n\n" for event in events]
            self._send("".join([*lines, "data: [DONE]\n\n"]).encode(), "text/event-stream")

    def _send(self, content: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def choice(text: str) -> dict[str, Any]:
    logprobs = {"tokens": [text], "token_logprobs": [-1], "top_logprobs": [{text: -1.0}]}
    return {"text": text, "finish_reason": text, "logprobs": logprobs}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), HostileServer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as running:
        yield running


@pytest.fixture
def page(browser: Chromium, address: str) -> Iterator[Page]:
    opened = browser.new_page(address)
    opened.wait(READY)
    yield opened
    opened.close()


def set_value(page: Page, name: str, value: object) -> None:
    page.run(f"document.getElementById({json.dumps(name)}).value = {json.dumps(str(value))}")


def click(page: Page, name: str) -> None:
    page.run(f"document.getElementById('{name}').click()")


def check_only_text(page: Page, address: str) -> None:
    """Nothing ran, nothing else was asked for, no element came to be."""
    tags = page.run(f"[...document.querySelectorAll({json.dumps(PLACES)})].map((it) => it.tagName)")
    assert set(tags) <= PLAIN
    assert page.run("window.hit") is None
    assert page.run("document.querySelectorAll('script').length") == 1
    asked = [one for one in page.browser.requests if not one.startswith("about:")]
    assert all(one.startswith(address) for one in asked)
    assert not [one for one in asked if "hit" in one.removeprefix(address).partition("?")[0]]
    assert page.browser.problems == []


def test_there_are_fifty() -> None:
    assert len(set(HOSTILE)) == 50


def test_what_a_server_writes_stays_text(page: Page, address: str) -> None:
    set_value(page, "seed", 1)
    click(page, "generate")
    page.wait(f"document.querySelectorAll('.token').length === {len(HOSTILE)}")
    shown = page.run("[...document.querySelectorAll('.token')].map((it) => it.textContent)")
    assert tuple(shown) == HOSTILE
    page.run("document.getElementById('story').focus()")
    for text in reversed(HOSTILE):
        page.press("ArrowLeft")
        name = page.run("document.querySelector('#bars .name').textContent")
        assert name == text.replace("\t", "⇥")
    assert HOSTILE[-1] in page.run("document.getElementById('status').textContent")
    check_only_text(page, address)


def test_names_labels_and_errors_stay_text(page: Page, address: str) -> None:
    for name in ("writer", "classifier"):
        names = page.run(f"[...document.getElementById('{name}').options].map((it) => it.value)")
        assert tuple(names) == HOSTILE
    set_value(page, "prompt", "fail")
    for number, text in enumerate(HOSTILE):
        set_value(page, "seed", number)
        click(page, "generate")
        expected = json.dumps(text)
        page.wait(f"document.getElementById('status').textContent === {expected}")
        page.wait(READY)
    page.browser.problems = [text for text in page.browser.problems if "400" not in text]
    click(page, "label_tab")
    for first in range(0, len(HOSTILE), N_SHOWN):
        set_value(page, "example", first)
        click(page, "classify")
        expected = json.dumps(HOSTILE[first])
        page.wait(f"document.getElementById('answer').textContent === {expected}")
        shown = page.run("[...document.querySelectorAll('.name')].map((it) => it.textContent)")
        assert tuple(shown[-N_SHOWN:]) == HOSTILE[first : first + N_SHOWN]
    check_only_text(page, address)


def test_what_a_link_holds_stays_text(page: Page, address: str) -> None:
    for number, text in enumerate(HOSTILE):
        values = {"prompt": text, "model": text, "seed": number, "temperature": text, "x": text}
        page.goto(f"{address}?{number}#{urlencode(values)}")
        page.wait(f"location.search === '?{number}' && {READY}")
        assert page.run("document.getElementById('prompt').value") == text
        assert page.run("document.getElementById('writer').value") == text
        assert page.run("document.getElementById('seed').value") == str(number)
        assert page.run("document.getElementById('temperature').value") == "0.8"
    click(page, "generate")
    page.wait("document.querySelectorAll('.token').length > 0")
    assert page.run("document.querySelector('.prompt').textContent") == HOSTILE[-1]
    check_only_text(page, address)
