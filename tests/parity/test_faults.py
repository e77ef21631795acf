"""The verifier under attack. Every planted fault is caught, and the place it was planted in is
named.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.export.pipeline.verify import verify_bundle
from gpt_edge.export.verify.bisect import first_beyond_noise
from gpt_edge.export.verify.localize import localize
from gpt_edge.reference.checkpoint import load_task_model
from gpt_edge.reference.heads import TaskModel
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.reference.model import GPT
from gpt_edge.runtime.session import Session
from gpt_edge.verify.report import Verification
from gpt_edge.verify.subject import verify_alone
from tests.parity.conftest import Export
from tests.support.faults import FAULTS, Fault, plant
from tests.support.graph_faults import FAULTS as ANYWHERE
from tests.support.graph_faults import Planted
from tests.support.models import TINY
from tests.support.quiet_faults import FAULTS as QUIET
from tests.support.task_models import save_task

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


# a spread of the faults that fit any bundle; scripts/faults.py plants all of them in every kind
EVERYDAY = {
    ("edge", "int8"): (
        "positions off by one in the middle",
        "a cached step wrong in the middle",
        "a dense layer narrowed",
        "attention's result in bfloat16",
        "the rows' scale 1 % off",
        "other hidden states handed out",
        "the last scale negated",
        "fewer levels for activations",
        "a step of activations floored",
        "a branch floored at -50",
        "one token wrong at one position",
        "rows of a batch have one length",
        "rows of a batch read the first row's positions",
    ),
    ("portable", "int8"): (
        "one id read as another",
        "rows of a batch read the first row's ids",
        "20 rows of the embedding permuted",
        "a branch + 0.02",
        "the last scale negated",
        "0.003 added by a Sum",
        "padding is read",
    ),
}
OF_A_CLASSIFIER = (
    "attention's bias dropped",
    "20 rows of the embedding permuted",
    "the head's bias + 0.2",
    "a scale x 1.5",
)


def by_name(name: str) -> Planted:
    return next(fault for fault in (*ANYWHERE, *QUIET) if fault.name == name)


def check_localize(bundle: Bundle, name: str, model: GPT | TaskModel, out: Path) -> None:
    fault = by_name(name)
    assert fault.fits(bundle)
    first = localize(plant(bundle, out, fault.edit), model).first
    assert first is not None
    assert str(first.operator) in fault.places_in(bundle.config), first


@pytest.mark.usefixtures("without_gate")
@pytest.mark.parametrize(
    ("graph", "scheme", "name"), [(*key, name) for key in EVERYDAY for name in EVERYDAY[key]]
)
def test_a_fault_is_found_wherever_in_the_context_it_lies(
    graph: str, scheme: str, name: str, export: Export, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    model = open_checkpoint(checkpoints["gpt2"]).load_model()
    check_localize(export("gpt2", graph, scheme)[0], name, model, tmp_path / "faulty")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path]:
    folder = tmp_path_factory.mktemp("classifier")
    source = save_task(folder / "source", TINY["gpt3"], "classification")
    return export_bundle(source, folder / "out", tokenizer="none")[0], source


@pytest.mark.usefixtures("without_gate")
@pytest.mark.parametrize("name", OF_A_CLASSIFIER)
def test_a_fault_of_a_classifier_is_found_where_it_was_planted(
    name: str, classifier: tuple[Bundle, Path], tmp_path: Path
) -> None:
    bundle, source = classifier
    check_localize(bundle, name, load_task_model(source), tmp_path / "faulty")


def test_reversed_labels_are_reported_as_such(
    classifier: tuple[Bundle, Path], tmp_path: Path
) -> None:
    bundle, source = classifier
    task = bundle.task
    assert task is not None
    reversed_task = dataclasses.replace(task, labels=task.labels[::-1])
    manifest = dataclasses.replace(bundle.manifest, task=reversed_task)
    report = verify_bundle(dataclasses.replace(bundle, manifest=manifest), source)
    assert report.faults == [
        "labels: the labels are reversed: label 0 is 'good', the checkpoint's is 'bad'"
    ]
    assert set(report.figures) >= {"checkpoint", "weights", "operators"}
    assert report.figures["operators"]["task_head"]["ok"]


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


def test_a_fault_that_no_operator_shows_is_placed_where_the_noise_is_left(
    export: Export, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    good, _ = export("gpt2", "edge", "int8")
    model = open_checkpoint(checkpoints["gpt2"]).load_model()
    assert first_beyond_noise(good, model)["place"] == "runtime"
    for name in ("a layer zeroed", "no mask in one layer", "queries and keys swapped"):
        fault = next(fault for fault in FAULTS if fault.name == name)
        bundle, _ = export(fault.kind, fault.graph, fault.scheme)
        planted = plant(bundle, tmp_path / name, fault.edit)
        first = first_beyond_noise(planted, model)
        assert first["layer"] == int(fault.place[6])
        assert "from here on" in first["text"]


def test_a_path_that_goes_wrong_in_the_runtime_is_said_to(
    export: Export,
    checkpoints: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The graph is right, but a cached step is not: no operator can be blamed."""
    good, _ = export("gpt2", "edge", "fp32")
    forward = Session.forward

    def wrong(self: Session, ids: Any, cache: Any, rows: Any = "last", **rest: Any) -> Any:
        logits = forward(self, ids, cache, rows, **rest)
        is_late = int(cache.lengths.max()) > 60
        return logits * 1.01 if is_late and np.asarray(ids).shape[1] == 1 else logits

    monkeypatch.setattr(Session, "forward", wrong)
    report = verify_bundle(good, checkpoints["gpt2"])
    assert report.faults[0].startswith("fp32 paths, ")
    assert report.first is not None
    assert report.first["place"] == "runtime"


def test_a_bundle_alone_says_what_it_proves(
    export: Export, classifier: tuple[Bundle, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = export("gpt2", "edge", "fp32")[0]
    files = "proved without a checkpoint: its 2 files have the sizes and hashes of its manifest"
    graph = "its graph has the operators and shapes of its config"
    rest = "are the checkpoint's, which --against CHECKPOINT compares"
    agreed = f"{files}, {graph} and its execution paths agree with each other; not proved: that its"
    assert verify_alone(good).notes == [f"{agreed} weights {rest}"]
    assert verify_alone(classifier[0]).notes == [f"{agreed} weights and labels {rest}"]
    forward = Session.forward

    def wrong(self: Session, ids: Any, cache: Any, rows: Any = "last", **more: Any) -> Any:
        is_step = np.asarray(ids).shape[1] == 1
        return forward(self, ids, cache, rows, **more) * (1.01 if is_step else 1)

    monkeypatch.setattr(Session, "forward", wrong)
    report = verify_alone(good)
    assert report.faults
    assert report.notes == [f"{files} and {graph}; not proved: that its weights {rest}"]
