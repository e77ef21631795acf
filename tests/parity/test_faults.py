"""The verifier under attack. Every planted fault is caught, and the place it was planted in is
named.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from gpt_edge.export.pipeline.verify import verify_bundle
from gpt_edge.export.verify.localize import localize
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.verify.report import Verification
from tests.parity.conftest import Export
from tests.support.faults import FAULTS, Fault, plant

FOR_THE_VERIFIER = (
    "gpt_edge.runtime.open_graph.checked_model",
    "gpt_edge.export.verify.localize.checked_model",
)


@pytest.fixture
def without_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate would refuse many of the faults before the verifier sees them."""
    for name in FOR_THE_VERIFIER:
        monkeypatch.setattr(name, lambda bundle: bundle.model_path)


SCHEMES = ("fp32", "int8", "int8-block", "int4")


@pytest.mark.usefixtures("without_gate")
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_planted_fault_is_found_where_it_was_planted(
    fault: Fault, export: Export, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    good, _ = export(fault.kind, fault.graph, fault.scheme)
    faulty = plant(good, tmp_path / "faulty", fault.edit)
    first = localize(faulty, open_checkpoint(checkpoints[fault.kind]).load_model()).first
    assert first is not None
    assert str(first.operator) == fault.place, first


def check_verify(fault: Fault, export: Export, source: Path, out: Path) -> Verification:
    good, _ = export(fault.kind, fault.graph, fault.scheme)
    report = verify_bundle(plant(good, out, fault.edit), source)
    assert report.faults
    assert report.first is not None, report.faults
    assert report.first["place"] == fault.place, report.first
    assert report.summary().startswith(f"first at {fault.place}: ")
    return report


@pytest.mark.usefixtures("without_gate")
@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_verify_catches_every_fault(
    fault: Fault, export: Export, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    check_verify(fault, export, checkpoints[fault.kind], tmp_path / "faulty")


@pytest.mark.usefixtures("without_gate")
def test_verify_reports_a_graph_that_cannot_be_run(
    export: Export, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    fault = next(fault for fault in FAULTS if fault.name == "a head with fewer rows")
    report = check_verify(fault, export, checkpoints["gpt2"], tmp_path / "faulty")
    assert any("onnxruntime failed while running the model" in text for text in report.faults)


def test_verify_says_what_the_gate_refuses(
    export: Export, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    fault = next(fault for fault in FAULTS if fault.name == "a head with fewer rows")
    good, _ = export(fault.kind, fault.graph, fault.scheme)
    report = verify_bundle(plant(good, tmp_path / "faulty", fault.edit), checkpoints[fault.kind])
    assert any("its output logits has the shape" in text for text in report.faults)
    assert report.first is None


def test_verify_names_what_the_noise_of_8_bits_hides(
    export: Export, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """One wrong scale moves the logits less than rounding does: they pass, the weights do not."""
    fault = next(fault for fault in FAULTS if fault.name == "one scale of one block 2 % wrong")
    report = check_verify(fault, export, checkpoints["gpt2"], tmp_path / "faulty")
    assert report.figures["torch against int8"]["logits"]["ok"] is True
    assert len(report.faults) == 1
    assert report.figures["weights"]["mlp.c_fc"] == {
        **report.figures["weights"]["mlp.c_fc"],
        "ok": False,
        "places": 2,
    }


def test_there_are_enough_faults_and_each_has_its_own_edit() -> None:
    assert len({fault.edit for fault in FAULTS}) >= 30
    assert len({str(fault) for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("graph", ["edge", "portable"])
@pytest.mark.parametrize("kind", ["gpt1", "gpt2", "gpt3"])
def test_no_fault_is_found_where_none_is(
    kind: str, graph: str, export: Export, checkpoints: dict[str, Path]
) -> None:
    model = open_checkpoint(checkpoints[kind]).load_model()
    for scheme in (*SCHEMES, "int8-dynamic") if kind == "gpt2" else SCHEMES:
        found = localize(export(kind, graph, scheme)[0], model)
        assert found.faults == [], scheme
        assert all(values["share"] < 0.8 for values in found.operators.values()), (
            scheme,
            found.operators,
        )


def test_a_copy_without_a_fault_is_right(
    export: Export, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """What the injector itself does to a bundle is no fault."""
    copied = plant(export("gpt2", "edge", "int8")[0], tmp_path / "copy", lambda graph, config: None)
    report = verify_bundle(copied, checkpoints["gpt2"])
    assert (report.faults, report.first) == ([], None)
    assert set(report.figures) >= {
        "torch paths",
        "fp32 paths",
        "int8 paths",
        "weights",
        "operators",
    }
