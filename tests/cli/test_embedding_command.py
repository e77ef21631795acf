"""From pairs of texts to vectors on the command line: finetune, export, embed, inspect, and what
such a bundle is not for.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.runner import done, run

pytestmark = pytest.mark.slow  # trains and exports


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny embedder, int8, trained for a moment."""
    from tests.support.finetune_factory import LARGER, make_checkpoint

    folder = tmp_path_factory.mktemp("embedding")
    source = make_checkpoint(folder / "tiny", LARGER)
    rows = [f"a {word} here,the {word}" for word in ("cat", "dog", "sun", "tea", "car", "sea")]
    pairs = folder / "pairs.csv"
    pairs.write_text("\n".join(["question,answer", *rows]) + "\n")
    columns = ("--text", "question", "--text", "answer")
    settings = ("--epochs", "1", "--batch", "3", "--dimensions", "8", "--lr", "1e-3")
    command = ("finetune", "--task", "embedding", "--data", pairs, "--dev", pairs)
    found = run(*command, *columns, "--checkpoint", source, "--out", folder / "run", *settings)
    assert found.code == 0, found
    assert "embedding, vectors of 8 numbers" in found.out
    assert re.search(r"^dev    retrieval [01]\.\d{4}, 95 % interval", found.out, re.MULTILINE)
    done("export", folder / "run" / "checkpoint", folder / "vectors")
    return folder / "vectors"


def test_vectors_come_out_and_labels_do_not(bundle: Path) -> None:
    lines = done("embed", bundle, "a cat", "a dog").out.splitlines()
    vectors = [json.loads(line)["embedding"] for line in lines]
    assert [len(vector) for vector in vectors] == [8, 8]
    assert all(sum(x * x for x in vector) == pytest.approx(1, abs=1e-5) for vector in vectors)
    assert "embedding, vectors of 8 numbers" in done("inspect", bundle).out
    assert done("verify", bundle).out
    refused = run("classify", bundle, "a cat")
    assert refused.code == 1
    assert "gives vectors of texts, no labels" in refused.err
    assert "hint: use gpt-edge embed" in refused.err
    last = run("embed", bundle, "a cat", "--pooling", "last")
    assert last.code == 2
    assert "trained for pooling 'mean'" in last.err


def test_a_label_or_one_column_is_refused(bundle: Path, tmp_path: Path) -> None:
    command = ("finetune", "--task", "embedding", "--data", tmp_path / "x.csv")
    rest = ("--checkpoint", tmp_path, "--out", tmp_path / "out")
    labelled = run(*command, *rest, "--label", "a")
    assert (labelled.code, "leave out --label" in labelled.err) == (2, True)
    single = run(*command, *rest, "--text", "a")
    assert (single.code, "expects --text 2 times, got 1" in single.err) == (2, True)
