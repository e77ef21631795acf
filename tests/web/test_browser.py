"""The page in a real Chromium: the same tokens as Python, offline, without requests elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import gpt_edge
from gpt_edge.bundle.bundle import DEFAULT_BUNDLE
from gpt_edge.web.local_server import bind_site
from tests.support.chromium import Chromium, Page
from tests.web.hostile_texts import HOSTILE

pytestmark = pytest.mark.browser

PROMPTS = ("Once upon a time", "The little dog", "Lily and Tom")
READY = "document.body.dataset.state === 'ready'"
SCREENS: dict[str, dict[str, Any]] = {
    "desktop": {"width": 1180, "height": 820},
    "phone": {"width": 360, "height": 740},
    "dark": {"width": 1180, "height": 820, "is_dark": True},
}


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a folder while it is served."""
    with bind_site(folder, 0) as server:
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


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with serving(site) as found:
        yield found


@pytest.fixture(scope="module")
def page(browser: Chromium, address: str) -> Page:
    """The page with its model loaded."""
    opened = browser.new_page(address)
    opened.wait(READY)
    return opened


@pytest.fixture(scope="module")
def model(site: Path) -> gpt_edge.Generator:
    """Python on the very files that the page reads."""
    return gpt_edge.load(site / "models" / DEFAULT_BUNDLE)


def generate(page: Page, prompt: str, **settings: Any) -> dict[str, Any]:
    """Fill the form, press the button, and return what the page says when the text has ended."""
    values = {"temperature": 0.8, "top_k": 40, "top_p": "", "seed": 1, **settings}
    for name, value in {"prompt": prompt, **values}.items():
        page.run(f"document.getElementById({json.dumps(name)}).value = {json.dumps(str(value))}")
    return written(page, "document.getElementById('generate').click()")


def written(page: Page, start: str) -> dict[str, Any]:
    found: dict[str, Any] = page.run(
        "new Promise((resolve) => { document.addEventListener('gpt-edge-written', "
        f"(event) => resolve(event.detail), {{once: true}}); {start} }})"
    )
    page.wait(READY)
    return found


def story(page: Page) -> str:
    text: str = page.run("document.getElementById('story').textContent")
    return text


def test_the_page_writes_the_ids_of_python(page: Page, model: gpt_edge.Generator) -> None:
    for prompt in PROMPTS:
        found = generate(page, prompt, temperature=0, max_new_tokens=20)
        expected = model.complete(prompt, max_new_tokens=20)
        assert tuple(found["ids"]) == expected.ids
        assert story(page) == prompt + expected.text


def test_a_seed_gives_the_text_of_python(page: Page, model: gpt_edge.Generator) -> None:
    for seed, top_p in ((7, ""), (2**40, 0.9)):
        found = generate(page, PROMPTS[0], seed=seed, top_p=top_p, max_new_tokens=25)
        expected = model.complete(
            PROMPTS[0],
            temperature=0.8,
            top_k=40,
            top_p=top_p or None,
            seed=seed,
            max_new_tokens=25,
        )
        assert tuple(found["ids"]) == expected.ids
        assert story(page) == PROMPTS[0] + expected.text
        assert f"seed {seed}" in page.run("document.getElementById('status').textContent")


def test_bars_show_the_likeliest_tokens_and_arrow_keys_move_over_them(page: Page) -> None:
    generate(page, PROMPTS[0], max_new_tokens=12)
    rows = page.run("[...document.querySelectorAll('#bars li')].map((row) => row.textContent)")
    assert 5 <= len(rows) <= 6
    assert all(row.endswith(" %") for row in rows)
    before = page.run("document.getElementById('bars_caption').textContent")
    page.run("document.getElementById('story').focus()")
    for _ in range(3):
        page.press("ArrowLeft")
    assert page.run("document.querySelectorAll('.token.pointed').length") == 1
    assert page.run("document.getElementById('bars_caption').textContent") != before


def test_keys_generate_and_stop(page: Page) -> None:
    page.run("document.getElementById('max_new_tokens').value = '400'")
    page.run("document.getElementById('prompt').focus()")
    page.press("Enter", control=True)
    page.wait("document.querySelectorAll('.token').length > 3")
    assert page.run("document.getElementById('story').getAttribute('aria-busy')") == "true"
    page.press("Escape")
    page.wait(READY)
    assert page.run("document.getElementById('status').textContent").startswith("Stopped")
    assert page.run("document.getElementById('story').getAttribute('aria-busy')") == "false"


def test_a_link_holds_prompt_and_settings(browser: Chromium, page: Page, address: str) -> None:
    generate(page, "A & B #1?", seed=9, max_new_tokens=5)
    script = "navigator.clipboard.writeText = (text) => { window.copied = text; }; "
    page.run(script + "document.getElementById('share').click()")
    link = page.wait("window.copied")
    assert link.startswith(f"{address}#")
    other = browser.new_page(link)
    other.wait(READY)
    assert other.run("document.getElementById('prompt').value") == "A & B #1?"
    again = written(other, "document.getElementById('generate').click()")
    assert story(other) == story(page)
    assert again["tokens"] == 5
    other.close()


def test_the_classifier_answers_in_its_tab(browser: Chromium, address: str, site: Path) -> None:
    opened = browser.new_page(address)
    opened.wait(READY)
    opened.run("document.getElementById('label_tab').click()")
    opened.run("document.getElementById('classify').click()")
    opened.wait("document.querySelectorAll('#label_bars li').length === 2")
    text = opened.run("document.getElementById('example').value")
    expected = gpt_edge.Classifier.load(site / "models" / "sentiment-6m-int8").predict([text])
    assert opened.run("document.getElementById('answer').textContent") == expected.labels[0]
    opened.close()


def test_hostile_prompts_stay_text(page: Page) -> None:
    for prompt in HOSTILE:
        generate(page, prompt, max_new_tokens=2)
        assert story(page).startswith(prompt)
    inside = page.run(
        "[...document.querySelectorAll('#story *, #bars *')].map((element) => element.tagName)"
    )
    assert set(inside) <= {"SPAN", "LI"}
    assert page.run("window.hit") is None


def test_the_policy_lets_nothing_from_elsewhere_run(page: Page) -> None:
    blocked = page.run("fetch('https://example.org/').then(() => 'sent', () => 'blocked')")
    assert blocked == "blocked"
    page.run(
        "(() => { const script = document.createElement('script'); script.textContent = "
        "'window.hit = 1'; document.body.append(script); })()"
    )
    assert page.run("window.hit") is None
    page.browser.problems = [
        text for text in page.browser.problems if "Content Security Policy" not in text
    ]
    page.browser.requests = [text for text in page.browser.requests if "example.org" not in text]


def test_memory_is_flat_over_twenty_generations(page: Page) -> None:
    sizes = [generate(page, PROMPTS[0], max_new_tokens=12)["memoryBytes"] for _ in range(20)]
    assert sizes[0] > 20_000_000
    assert sizes[-1] == sizes[3]


def test_it_works_without_a_network(browser: Chromium, site: Path, tmp_path: Path) -> None:
    with serving(site) as place:
        opened = browser.new_page(place)
        opened.wait("document.getElementById('offline').textContent === 'Works offline.'")
        opened.wait(READY)
        first = generate(opened, PROMPTS[0], max_new_tokens=10)
    opened.call("Page.reload", ignoreCache=False)
    opened.wait("performance.timeOrigin > 0 && document.body.dataset.state === 'ready'")
    assert generate(opened, PROMPTS[0], max_new_tokens=10)["ids"] == first["ids"]
    opened.close()
    # what the reload asked for met no server, but the service worker
    browser.problems = [text for text in browser.problems if "ERR_CONNECTION" not in text]


def test_a_corrupt_file_is_named_and_nothing_runs(
    browser: Chromium, site: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "site"
    shutil.copytree(site, broken)
    weights = broken / "models" / DEFAULT_BUNDLE / "model.onnx.data"
    content = bytearray(weights.read_bytes())
    content[1000] ^= 1
    weights.write_bytes(content)
    with serving(broken) as place:
        opened = browser.new_page(place)
        opened.wait("document.body.dataset.state === 'failed'")
        text = opened.run("document.getElementById('status').textContent")
        assert "model.onnx.data is corrupt" in text
        assert "Hint: copy the bundle again" in text
        assert opened.run("document.getElementById('generate').disabled")
        opened.close()


@pytest.mark.parametrize("screen", SCREENS)
def test_it_fits_the_screen(browser: Chromium, address: str, screen: str, tmp_path: Path) -> None:
    """GPT_EDGE_SCREENSHOTS names a folder that keeps the pictures, to look at them."""
    opened = browser.new_page(address, **SCREENS[screen])
    opened.wait(READY)
    generate(opened, PROMPTS[0], seed=6, max_new_tokens=60)
    width = SCREENS[screen]["width"]
    assert opened.run("document.documentElement.scrollWidth") <= width
    smallest = opened.run(
        "Math.min(...[...document.querySelectorAll('button')].filter((one) => one.offsetHeight)"
        ".map((one) => one.offsetHeight))"
    )
    assert smallest >= 32  # pixels that a finger can hit
    background = opened.run("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in background.strip("rgb()").split(","))
    assert (brightness < 200) == (screen == "dark")
    folder = Path(os.environ.get("GPT_EDGE_SCREENSHOTS", tmp_path))
    assert opened.screenshot(folder / f"{screen}.png").startswith(b"\x89PNG")
    opened.close()


def test_every_request_went_to_the_site(browser: Chromium, address: str, page: Page) -> None:
    asked = [one for one in browser.requests if not one.startswith(("blob:", "data:", "about:"))]
    assert len(asked) > 50
    assert {one.split("/")[2].split(":")[0] for one in asked} == {"127.0.0.1"}
    assert browser.problems == []
