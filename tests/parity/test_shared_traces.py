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
CONFIG = GPTConfig(n_layer=1, n_head=2, n_embd=16, n_ctx=64, vocab_size=260)
OTHER = dataclasses.replace(CONFIG, n_ctx=33, vocab_size=97, n_inner=24)
LONG = pytest.mark.slow


def graph_file(source: WeightSource, folder: Path, graph: str) -> bytes:
    """The file of an int8 graph that is traced now, or read from what was."""
    folder.mkdir()
    build._wiring.cache_clear()
    build.build_graph(source, folder, graph=graph, scheme="int8")
    return (folder / build.MODEL_FILE).read_bytes()


@pytest.mark.parametrize(
    ("graph", "task"),
    [
        ("edge", "classification"),
        pytest.param("edge", None, marks=LONG),
        pytest.param("portable", None, marks=LONG),
        pytest.param("edge", "scores", marks=LONG),
        pytest.param("portable", "classification", marks=LONG),
    ],
)
def test_a_shared_trace_gives_the_bytes_of_ones_own(
    graph: str, task: str | None, tmp_path: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if task is None:
        folders = [save_random(tmp_path / "one", CONFIG), save_random(tmp_path / "two", OTHER)]
    else:
        other = "multiple-choice" if task == "classification" else task
        folders = [
            save_task(tmp_path / "one", CONFIG, task),
            save_task(tmp_path / "two", OTHER, other),
        ]
    one, two = [open_checkpoint(folder) for folder in folders]
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
