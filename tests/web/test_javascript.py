"""The JavaScript library computes what the Python library computes: `node --test` on fixtures that
Python has just made, with the scripts and the wasm that a site holds.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.gate.operators import OF_MICROSOFT, STANDARD
from gpt_edge.tasks import EMBEDDING, TOKENS, TaskSpec
from tests.conftest import REPO
from tests.support.tiny_model import bundle_path
from tests.web import fixtures

PROMPTS = ("Once upon a time",)


@pytest.fixture(scope="module")
def fixture_file(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = Bundle.open()
    arranged = site / "models" / bundle.manifest.name
    sentiment = site / "models" / "sentiment-6m-int8"
    folder = tmp_path_factory.mktemp("tasks")
    marks = {"labels": ("bad", "good"), "problem": "single-label"}
    tags = fixtures.with_task(sentiment, folder / "tags", TaskSpec(TOKENS, **marks))
    embedding = TaskSpec(EMBEDDING, *Bundle.open(sentiment).task.tokens, dimensions=2)
    trained = fixtures.with_task(sentiment, folder / "trained", embedding)
    values = {
        "scripts": str(site / "js"),
        "runtime": str(site / "ort"),
        "philox": fixtures.philox(),
        "sampler": fixtures.sampler(bundle.load_tokenizer()),
        "stops": fixtures.stops(),
        "tokenizers": fixtures.tokenizers(bundle),
        "models": [
            fixtures.texts(arranged, PROMPTS, 24),
            fixtures.texts(bundle_path("portable"), ("a b",), 20),
        ],
        "vocabulary": fixtures.vocabulary(bundle),
        "arranged": fixtures.arranged_bundles(folder / "arranged"),
        "spoiled": fixtures.spoiled_bundles(folder / "spoiled"),
        "classifier": fixtures.labels(sentiment),
        "tags": fixtures.token_labels(tags),
        "vectors": [
            fixtures.vectors(arranged, ("mean", "last")),
            fixtures.vectors(sentiment, ("mean", "last")),
            fixtures.vectors(trained, ("mean",)),
        ],
    }
    path = tmp_path_factory.mktemp("fixtures") / "fixtures.json"
    path.write_text(json.dumps(values))
    return path


def test_the_list_of_operators_is_that_of_python() -> None:
    text = (REPO / "web" / "src" / "bundle" / "operator_list.ts").read_text()
    for name, table in (("STANDARD", STANDARD), ("MICROSOFT", OF_MICROSOFT)):
        start = text.index(f"{name}_OPERATORS: ")
        listed = re.findall(r'"(\w+)"', text[start : text.index("]);", start)])
        assert listed == sorted(table)


@pytest.mark.parametrize("name", ["sampling", "tokenizer", "model", "unpacking", "hostile"])
def test_the_library_agrees_with_python(name: str, node: str, fixture_file: Path) -> None:
    done = subprocess.run(
        [node, "--test", f"tests/{name}.test.mjs"],
        cwd=REPO / "web",
        env={**os.environ, "GPT_EDGE_FIXTURES": str(fixture_file)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
