"""Tiny checkpoints and their exports, made once: tracing costs seconds."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.verify.report import Verification
from tests.support.models import TINY, save_random

Export = Callable[[str, str, str], tuple[Bundle, Verification]]


@pytest.fixture(scope="session", autouse=True)
def _shared_traces(shared_traces: None) -> None:
    """A model's shape is traced once in a run."""


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One tiny checkpoint of each kind."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {kind: save_random(root / kind, config) for kind, config in TINY.items()}


@pytest.fixture(scope="session")
def export(checkpoints: dict[str, Path], run_folder: Path) -> Export:
    """export(kind, graph, scheme): the bundle and its figures, made once in a run."""
    from tests.support.traces import only_one

    root = run_folder / "bundles"
    root.mkdir(exist_ok=True)
    made: dict[tuple[str, str, str], tuple[Bundle, Verification]] = {}

    def make(kind: str, graph: str, scheme: str) -> tuple[Bundle, Verification]:
        key = (kind, graph, scheme)
        if key not in made:
            out = root / "-".join(key)
            figures = root / f"{out.name}.pickle"
            with only_one(root / f"{out.name}.lock"):
                if not figures.exists():
                    _, report = export_bundle(
                        checkpoints[kind], out, graph=graph, scheme=scheme, tokenizer="none"
                    )
                    figures.write_bytes(pickle.dumps(report))
            made[key] = Bundle.open(out), pickle.loads(figures.read_bytes())
        return made[key]

    return make
