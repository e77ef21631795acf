"""The traces that the tests share are those that torch would make again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt_edge.config import GPTConfig
from gpt_edge.export.graph import build
from gpt_edge.export.weights.source import WeightSource
from gpt_edge.reference.importers import open_checkpoint
from tests.support import traces
from tests.support.models import save_random
from tests.support.task_models import save_task

# the wiring of the classifiers in tests/cli
ONE = GPTConfig(n_layer=1, n_head=2, n_embd=16, n_ctx=64, vocab_size=260)
SIZES = {"n_ctx": 33, "vocab_size": 97, "n_inner": 24}
WIDTHS = {"n_head": 3, "n_embd": 36, "scale_attention": False}  # heads of 12: padded to 16
BANDED = {"n_layer": 2, "attention": ("dense", "banded"), "norm": "post"}
LONG = pytest.mark.slow


def saved(folder: Path, config: GPTConfig, task: str | None) -> Path:
    """A random checkpoint."""
    return save_random(folder, config) if task is None else save_task(folder, config, task)


def graph_file(source: WeightSource, folder: Path, graph: str) -> bytes:
    """The file of an int8 graph that is traced now, or read from what was."""
    folder.mkdir()
    build._wiring.cache_clear()
    build.build_graph(source, folder, graph=graph, scheme="int8")
    return (folder / build.MODEL_FILE).read_bytes()


@pytest.mark.parametrize(
    ("graph", "task", "other_task"),
    [
        ("edge", "classification", "multiple-choice"),
        pytest.param("edge", "similarity", "scores", marks=LONG),
        pytest.param("edge", None, None, marks=LONG),
        pytest.param("portable", None, None, marks=LONG),
        pytest.param("portable", "classification", "multiple-choice", marks=LONG),
    ],
)
def test_a_shared_trace_gives_the_bytes_of_ones_own(
    graph: str,
    task: str | None,
    other_task: str | None,
    tmp_path: Path,
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, other = ONE, dataclasses.replace(ONE, **SIZES)
    if graph == "edge":
        other = dataclasses.replace(other, **WIDTHS)
    if task is None:
        config = dataclasses.replace(config, **BANDED, window=9)
        other = dataclasses.replace(other, **BANDED, window=9 if graph == "portable" else 5)
    one = open_checkpoint(saved(tmp_path / "one", config, task))
    two = open_checkpoint(saved(tmp_path / "two", other, other_task))
    own = torch.onnx.export.__wrapped__  # type: ignore[attr-defined]
    traced = []

    def export(model: torch.nn.Module, *arguments: Any, **options: Any) -> Any:
        traced.append(model)
        return own(model, *arguments, **options)

    monkeypatch.setattr(torch.onnx, "export", traces.sharing(export, run_folder / "traces"))
    graph_file(one, tmp_path / "one's", graph)
    traced.clear()
    shared = graph_file(two, tmp_path / "shared", graph)
    assert traced == []
    monkeypatch.setattr(torch.onnx, "export", own)
    assert shared == graph_file(two, tmp_path / "own", graph)
