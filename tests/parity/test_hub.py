"""hf://OWNER/NAME[@REVISION]: from a local server with the hub's API, and from a prepared cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.errors import BundleError, CheckpointError
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.reference.importers import hub as ours
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.reference.importers.hub import is_hub_name
from tests.support.hub_server import serve_repository
from tests.support.transformers_models import random_transformers, save_vocabulary

hub = pytest.importorskip("huggingface_hub")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "89abcdef0123456789abcdef0123456789abcdef"
IDS = torch.tensor([[5, 17, 3, 44]])
# what a user does in one process; each line of output is one answer
PROGRAM = """
import json, sys, warnings
warnings.simplefilter("ignore")
from gpt_edge.errors import GPTEdgeError
from gpt_edge.reference.importers import open_checkpoint
for name in sys.argv[1:]:
    try:
        checkpoint = open_checkpoint(name)
        names = sorted(path.name for path in checkpoint.path.iterdir())
        wte = float(checkpoint.tensor("wte.weight")[0, 0])
        print(json.dumps([dict(checkpoint.provenance), names, wte]))
    except GPTEdgeError as error:
        print(json.dumps([error.message, error.hint]))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder for each commit of a repository."""
    root = tmp_path_factory.mktemp("hub")
    for seed, commit in enumerate((COMMIT, OTHER)):
        random_transformers("GPT2", "LMHeadModel", seed=seed).save_pretrained(root / commit)
        save_vocabulary(root / commit)
        (root / commit / "README.md").write_text("not read")
        (root / commit / "pytorch_model.bin").write_bytes(b"not read either")
    return {commit: root / commit for commit in (COMMIT, OTHER)}


def test_a_repository_is_downloaded_by_name_and_revision(
    models: dict[str, Path], tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    names = ["hf://me/tiny", "hf://me/tiny@v2", "hf://me/none", "hf://me/tiny@v3", "hf://me"]
    with serve_repository("me/tiny", models, {"main": COMMIT, "v2": OTHER}) as endpoint:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *names],
            env={**environment, "HF_ENDPOINT": endpoint},
            capture_output=True,
            text=True,
            check=True,
        )
    main, second, no_repository, no_revision, no_name = map(json.loads, done.stdout.splitlines())
    for answer, commit in ((main, COMMIT), (second, OTHER)):
        provenance, files, wte = answer
        assert provenance == {"repository": "me/tiny", "revision": commit}
        assert {"config.json", "model.safetensors", "vocab.json", "merges.txt"} <= set(files)
        assert not {"README.md", "pytorch_model.bin"} & set(files)
        assert wte == float(open_checkpoint(models[commit]).tensor("wte.weight")[0, 0])
    assert no_repository[0] == "the hub has no repository me/none, or it is private"
    assert no_revision[0] == "hf://me/tiny has no revision 'v3'"
    assert no_name[0] == "'hf://me' is no name of the hub"


@pytest.fixture
def cache(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with one commit of me/tiny, and no network."""
    folder = tmp_path / "models--me--tiny"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "snapshots").mkdir()
    (folder / "snapshots" / COMMIT).symlink_to(models[COMMIT])
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return folder


@pytest.mark.parametrize("name", ["hf://me/tiny", f"hf://me/tiny@{COMMIT}"])
def test_the_cache_answers_without_a_network(
    name: str, cache: Path, models: dict[str, Path]
) -> None:
    for source in (name, Path(name)):
        checkpoint = open_checkpoint(source)
        assert checkpoint.provenance == {"repository": "me/tiny", "revision": COMMIT}
        wanted = open_checkpoint(models[COMMIT]).load_model()(IDS)[0]
        assert torch.equal(checkpoint.load_model()(IDS)[0], wanted)


@pytest.mark.parametrize("name", ["hf://me/other", f"hf://me/tiny@{OTHER}"])
def test_what_the_cache_lacks_is_an_error_without_a_network(name: str, cache: Path) -> None:
    with pytest.raises(CheckpointError, match="is not in the hub's cache") as caught:
        open_checkpoint(name)
    assert "HF_HUB_OFFLINE" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("status", "message", "hint"),
    [
        (None, r"cannot be reached \(OSError\)", "HF_HUB_OFFLINE=1"),
        (403, "the hub answers 403: no$", "HF_TOKEN"),
        (503, "the hub answers 503: no$", "try again later"),
    ],
)
def test_a_request_that_fails_is_one_line_with_a_hint(
    status: int | None, message: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = OSError("no\nmore of it")
    error.response = types.SimpleNamespace(status_code=status)  # type: ignore[attr-defined]

    def fail(*arguments: object) -> str:
        raise error

    monkeypatch.setattr(ours, "_download", fail)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint("hf://me/tiny")
    assert hint in str(caught.value.hint)


def test_what_is_no_source_here_shows_the_name_for_export(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as page:
        open_checkpoint(Path("https://huggingface.co/me/tiny/tree/v1"))
    assert page.value.hint == "for a repository of the hub write hf://me/tiny@v1"
    with pytest.raises(BundleError, match="hf://me/tiny names a repository") as caught:
        Bundle.open("hf://me/tiny")
    assert caught.value.hint == "gpt-edge export hf://me/tiny OUT, then use OUT"


@pytest.mark.parametrize("name", ["me/tiny", "gpt2"])
def test_a_plain_name_is_never_looked_for_on_the_hub(
    name: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "snapshot_download", None)
    with pytest.raises(CheckpointError, match="no such file or folder") as caught:
        open_checkpoint(name)
    assert "hf://" in str(caught.value.hint)
    assert not is_hub_name(name)


@pytest.mark.slow
def test_the_revision_is_in_the_manifest(cache: Path, tmp_path: Path) -> None:
    bundle, _ = export_bundle(Path("hf://me/tiny"), tmp_path / "b", graph="portable", scheme="fp32")
    assert bundle.manifest.provenance["repository"] == "me/tiny"
    assert bundle.manifest.provenance["revision"] == COMMIT
    assert bundle.load_tokenizer().decode([5]) != ""


@pytest.mark.slow
def test_a_name_is_fine_tuned_and_classifies_the_file_it_was_trained_from(
    models: dict[str, Path], tmp_path: Path
) -> None:
    """From the hub to labels as a user does it: a semicolon CSV, its text in two columns, and rows
    without a label.
    """
    rows = [
        f"{title};a {thing};{'up' if title in ('fine', 'nice') else 'down'}"
        for title in ("fine", "nice", "poor", "ugly")
        for thing in ("cat", "dog", "sea", "tea", "sun")
    ]
    table = tmp_path / "reviews.csv"
    table.write_text("\n".join(["title;body;label", *rows, "fine;no label;", ";;up"]) + "\n")
    columns = ["--text", "title", "--text", "body", "--skip-bad-rows"]
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }

    def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
        whole = [sys.executable, "-m", "gpt_edge", *map(str, words)]
        done = subprocess.run(whole, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done

    with serve_repository("me/tiny", models, {"main": COMMIT}) as endpoint:
        environment["HF_ENDPOINT"] = endpoint
        tuned = ["--checkpoint", "hf://me/tiny", "--data", table, "--label", "label", *columns]
        quick = ["--epochs", "4", "--lr", "3e-3", "--batch", "8", "--threads", "1"]
        words = ["finetune", "--task", "classification", *tuned, *quick, "--out", tmp_path / "run"]
        done = command(*words)
    assert "skipped 2 bad rows" in done.stdout + done.stderr
    command("export", tmp_path / "run" / "checkpoint", tmp_path / "b", "--scheme", "fp32")
    labelled = command("classify", tmp_path / "b", "--file", table, *columns, "--label", "label")
    answers = labelled.stdout.splitlines()
    assert len(answers) == len(rows)
    assert "20 examples: " in labelled.stderr
    assert "skipped 2 bad rows: line 22: label is empty; line 23: title and " in labelled.stderr
    # without --label a row needs no label
    every = command("classify", tmp_path / "b", "--file", table, *columns).stdout.splitlines()
    assert every[: len(rows)] == answers
    assert len(every) == len(rows) + 1
