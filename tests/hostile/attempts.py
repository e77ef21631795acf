"""Tries of hostile bundles, each in a child process; see `attempt_server.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPO


@dataclass(frozen=True)
class Outcome:
    """outcome: loaded, refused, traceback, killed or hung."""

    outcome: str
    message: str
    seconds: float

    @property
    def is_clean(self) -> bool:
        """Whether it was opened, or refused in one clear line."""
        return self.outcome in ("loaded", "refused")


class Attempts:
    """A server of tries; end it with `close`. library: which custom operators, 0 for none."""

    def __init__(self, library: str = "") -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        if library:
            environment["GPT_EDGE_NATIVE"] = library
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.attempt_server"],
            cwd=REPO,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, path: Path, what: str = "run") -> Outcome:
        """The outcome of one bundle."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"path": str(path), "what": what}) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the server."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
