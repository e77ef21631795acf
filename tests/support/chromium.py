"""A headless Chromium, driven through the DevTools protocol over a pipe: no package needed.

Source: chromedevtools.github.io/devtools-protocol; --remote-debugging-pipe reads JSON from file
descriptor 3 and writes it to 4, each message ended by a zero byte.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT = 280.0  # seconds for one answer: the machine may be busy
FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # CI runs as root
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--hide-scrollbars",
)
# Puts the two ends where Chromium looks for them. First away from there: either may be 3 or 4.
CONNECT = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for end, wanted in zip(ends, (3, 4)):
    os.dup2(end, wanted)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_chromium() -> str:
    """The program; skips where there is none."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    pytest.skip("Chromium is not installed")


class Chromium:
    """The browser. `requests`: every address that a page or one of its workers asked for;
    `problems`: what was written to a console as an error, or not caught, and dialogs.
    """

    def __init__(self) -> None:
        program = find_chromium()
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, closed by close()
        ends = str(to_read), str(to_write)
        profile = f"--user-data-dir={self._profile.name}"
        self._process = subprocess.Popen(
            [sys.executable, "-c", CONNECT, *ends, program, *FLAGS, profile, "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            pass_fds=(to_read, to_write),
        )
        os.close(to_read)
        os.close(to_write)
        self._buffer = b""
        self._n_calls = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.problems: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the browser."""
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
        self._log.close()
        self._profile.cleanup()

    def new_page(
        self, address: str, *, width: int = 1180, height: int = 820, is_dark: bool = False
    ) -> Page:
        """A page of its own browsing context, so nothing of others is cached in it."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        found = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = Page(self, found["sessionId"], target["targetId"])
        self._watch(found["sessionId"])
        page.call("Page.enable")
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        feature = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[feature])
        page.goto(address)
        return page

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer. Raises RuntimeError for an error."""
        number = self._send(method, session, params)
        deadline = time.monotonic() + TIMEOUT
        while number not in self._answers:
            self._receive(deadline)
        answer = self._answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _send(self, method: str, session: str | None, params: dict[str, Any]) -> int:
        self._n_calls += 1
        message = {"id": self._n_calls, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        return self._n_calls

    def _watch(self, session: str) -> None:
        """Hear of requests and problems of a page or worker, and of the workers that it starts."""
        for method in ("Network.enable", "Runtime.enable", "Log.enable"):
            self._send(method, session, {})
        attach = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
        self._send("Target.setAutoAttach", session, attach)
        self._send("Runtime.runIfWaitingForDebugger", session, {})

    def _receive(self, deadline: float) -> None:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(f"Chromium said nothing for {TIMEOUT} seconds")
            data = os.read(self._from, 1 << 20)
            if not data:
                raise RuntimeError(f"Chromium ended: {self._said()}")
            self._buffer += data
        whole, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(whole)
        if "id" in message:
            self._answers[message["id"]] = message
        else:
            self._note(message["method"], message["params"], message.get("sessionId"))

    def _said(self) -> str:
        """The end of what it wrote to stderr."""
        self._log.seek(0)
        return self._log.read()[-2000:].decode(errors="replace")

    def _note(self, method: str, params: dict[str, Any], session: str | None) -> None:
        if method == "Target.attachedToTarget":
            self._watch(params["sessionId"])
        elif method == "Page.javascriptDialogOpening":
            self.problems.append(f"a dialog: {params['message']}")
            self._send("Page.handleJavaScriptDialog", session, {"accept": False})
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(params["entry"]["text"])


class Page:
    """One page."""

    def __init__(self, browser: Chromium, session: str, target: str) -> None:
        self.browser = browser
        self._session = session
        self._target = target

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command for this page."""
        return self.browser.call(method, self._session, **params)

    def close(self) -> None:
        """Close it; its workers end."""
        self.browser.call("Target.closeTarget", targetId=self._target)

    def goto(self, address: str) -> None:
        """Open an address."""
        found = self.call("Page.navigate", url=address)
        assert "errorText" not in found, found["errorText"]

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, which may be a promise. Raises RuntimeError for an
        exception.
        """
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return found["result"].get("value")

    def wait(self, condition: str, seconds: float = 60) -> Any:
        """Wait until an expression is true, and return it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if value := self.run(condition):
                    return value
            except RuntimeError as error:
                if "context" not in str(error) and "null" not in str(error):
                    raise  # while a page is being opened it has no elements yet
            time.sleep(0.02)
        state = self.run("document.body.innerText")
        raise TimeoutError(f"{condition} was not true within {seconds} seconds: {state[:2000]}")

    def press(self, key: str, *, control: bool = False) -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, modifiers=2 * control)

    def screenshot(self, path: Path) -> bytes:
        """Write a PNG of what is seen, and return it."""
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        path.write_bytes(data)
        return data
