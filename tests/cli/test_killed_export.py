"""A real `gpt-edge export`, killed at random moments: the target holds the old bundle or the new
one, whole.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpt_edge.bundle.bundle import Bundle
from tests.conftest import REPO

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

N_KILLS = 50


def test_an_export_killed_at_fifty_moments_leaves_the_old_bundle_or_the_new_one(
    checkpoint: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    commands = {
        scheme: [
            sys.executable,
            "cli.py",
            "export",
            checkpoint,
            target,
            "--scheme",
            scheme,
            "--force",
        ]
        for scheme in ("int8", "fp32")
    }
    manifests, seconds = {}, 0.0
    for scheme, command in commands.items():
        started = time.perf_counter()
        subprocess.run(command, cwd=REPO, check=True, capture_output=True)
        seconds = time.perf_counter() - started
        manifests[scheme] = (target / "manifest.json").read_bytes()
    moments, found = random.Random(5), []
    for index in range(N_KILLS):
        command = commands["int8" if index % 2 else "fp32"]
        process = subprocess.Popen(
            command, cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # Half of the moments lie around the end, where files are written and the folder is
        # exchanged.
        time.sleep(moments.uniform(0.0 if index % 4 < 2 else 0.7, 1.05) * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        bundle = Bundle.open(target)  # every file hashed
        assert (target / "manifest.json").read_bytes() == manifests[bundle.scheme], index
        found.append(bundle.scheme)
    assert len(set(found)) == 2  # some were cut off, some had ended
    subprocess.run(commands["int8"], cwd=REPO, check=True, capture_output=True)
    assert {path.name for path in tmp_path.iterdir()} <= {"out", ".out.lock"}
