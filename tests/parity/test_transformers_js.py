"""transformers.js loads our portable bundles and continues a prompt with the same greedy tokens."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.runtime.session import Session
from tests.support.models import TINY, save_random

SCRIPT = Path(__file__).parent.parent / "support" / "transformers_js.cjs"
PROMPT = [5, 17, 3, 44]
N_NEW = 200

pytestmark = pytest.mark.slow


@functools.cache
def environment() -> dict[str, str]:
    """Of a node that finds transformers.js; skips where there is none."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    variables = dict(os.environ)
    if "NODE_PATH" not in variables and shutil.which("npm") is not None:
        found = subprocess.run(["npm", "root", "-g"], capture_output=True, text=True)
        variables["NODE_PATH"] = found.stdout.strip()
    probe = ["node", "-e", 'require("@huggingface/transformers")']
    if subprocess.run(probe, env=variables, capture_output=True).returncode:
        pytest.skip(
            "node finds no @huggingface/transformers: npm install -g @huggingface/transformers, or "
            "set NODE_PATH"
        )
    return variables


def greedy(bundle: Path) -> list[int]:
    session = Session(Bundle.open(bundle))
    cache = session.new_cache()
    logits = session.forward([PROMPT], cache)[0]
    ids: list[int] = []
    while len(ids) < N_NEW:
        ids.append(int(np.argmax(logits.reshape(-1)[-session.config.vocab_size :])))
        logits = session.decode(ids[-1:], cache)
    return ids


@pytest.mark.parametrize("scheme", ["fp32", "int8", "int8-block", "int4"])
def test_transformers_js_writes_the_same_200_tokens(scheme: str, tmp_path: Path) -> None:
    variables = environment()
    config = dataclasses.replace(TINY["gpt2"], n_ctx=256)
    checkpoint = save_random(tmp_path / "gpt2", config, std=0.25)
    bundle = tmp_path / "portable"
    export_bundle(checkpoint, bundle, graph="portable", scheme=scheme, tokenizer="none")
    command = ["node", str(SCRIPT), str(bundle), json.dumps(PROMPT), str(N_NEW)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours = greedy(bundle)
    assert json.loads(done.stdout) == ours
    assert len(set(ours)) > 5  # a loop of one token would prove little
