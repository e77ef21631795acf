"""The gate's allow-list is what exports write: no operator more, and none of theirs is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.gate.check import checked_model
from gpt_edge.bundle.gate.operators import OF_MICROSOFT, STANDARD
from gpt_edge.bundle.gate.proto import read_graph
from gpt_edge.schemes import EXPORTED
from tests.conftest import REPO
from tests.parity.conftest import Export

# of heads that this folder's models do not have, of schemes that `quantize` chooses, or of graphs
# that `gpt-edge web` arranges, see tests/web/test_site.py
ELSEWHERE = {"BitShift", "BitwiseAnd", "Gemm", "ReduceSum", "Relu"}


def operators_of(bundle: Bundle) -> set[str]:
    """The operators of a graph that passed the gate."""
    data = checked_model(bundle)
    assert isinstance(data, bytes)
    return {node.op for node in read_graph(data, 100_000).nodes}


def stored_bundles() -> list[Path]:
    """The golden and the built-in ones."""
    folders = (REPO / "models", REPO / "tests" / "golden")
    return sorted(path.parent for folder in folders for path in folder.glob("*/manifest.json"))


@pytest.mark.parametrize("kind", ["gpt1", "gpt2", "gpt3"])
def test_every_export_passes_the_gate(kind: str, export: Export) -> None:
    for graph in ("edge", "portable"):
        for scheme in EXPORTED if kind == "gpt2" else EXPORTED[:4]:
            assert operators_of(export(kind, graph, scheme)[0])


def test_every_stored_bundle_passes_the_gate() -> None:
    assert len(stored_bundles()) >= 11
    for folder in stored_bundles():
        assert operators_of(Bundle.open(folder))


def test_no_operator_is_allowed_that_no_export_writes(export: Export) -> None:
    written = set(ELSEWHERE)
    for folder in stored_bundles():
        written |= operators_of(Bundle.open(folder))
    for scheme in EXPORTED:
        for graph in ("edge", "portable"):
            written |= operators_of(export("gpt2", graph, scheme)[0])
    assert written == set(STANDARD) | set(OF_MICROSOFT)
