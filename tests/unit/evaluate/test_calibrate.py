"""Calibrating a bundle: the manifest gets a temperature, the rest of the folder stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.reader import BUILTIN, DEFAULT_BUNDLE
from gpt_edge.classify.classifier import Classifier
from gpt_edge.errors import BundleError, OutputError
from gpt_edge.evaluate.calibrate import by_answers, calibrate, example_logits, measure_calibration

TEXTS = [["The soup was cold."], ["We loved every minute."], ["Never again."], ["Good, not great."]]
LABELS = ["negative", "positive", "negative", "negative"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the built-in classifier of reviews."""
    folder = tmp_path_factory.mktemp("calibrate") / "reviews"
    shutil.copytree(BUILTIN / "sentiment-6m-int8", folder)
    return folder


def test_only_the_manifest_changes_and_probabilities_follow(bundle: Path) -> None:
    before = Bundle.open(bundle)
    text = ["A wonderful place."]
    logits = example_logits(before, [text])[0]
    made, figures = calibrate(bundle, TEXTS, LABELS)
    after = Bundle.open(bundle)
    assert made.path == bundle
    assert after.manifest.files == before.manifest.files
    assert after.task is not None
    assert after.task.temperature == figures.temperature != before.manifest.task.temperature  # type: ignore[union-attr]
    assert after.manifest.quality["calibration"] == figures.to_dict()
    found = Classifier.load(bundle).predict([text]).rows[0]
    shares = np.exp(logits / figures.temperature)
    assert found.probability == pytest.approx(shares.max() / shares.sum(), rel=1e-6)
    again = measure_calibration(made, TEXTS, [0, 1, 0, 0])  # by number
    assert again == figures


def test_a_copy_leaves_the_bundle_as_it_is(bundle: Path, tmp_path: Path) -> None:
    before = (bundle / "manifest.json").read_bytes()
    made, _ = calibrate(bundle, TEXTS, LABELS, out=tmp_path / "copy")
    assert made.path == tmp_path / "copy"
    assert (bundle / "manifest.json").read_bytes() == before
    with pytest.raises(OutputError, match="exists"):
        calibrate(bundle, TEXTS, LABELS, out=tmp_path / "copy")
    calibrate(bundle, TEXTS, LABELS, out=tmp_path / "copy", force=True)


def test_what_cannot_be_calibrated_is_told(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match="built-in model, which stays as it is"):
        calibrate("sentiment-6m-int8", TEXTS, LABELS)
    with pytest.raises(BundleError, match="a language model"):
        calibrate(DEFAULT_BUNDLE, TEXTS, LABELS, out=tmp_path / "x")
    with pytest.raises(ValueError, match="example 1: 'great' is not a label"):
        calibrate(bundle, TEXTS, ["negative", "great", "negative", "negative"])
    with pytest.raises(ValueError, match="3 labels for 4 examples"):
        calibrate(bundle, TEXTS, LABELS[:3])
    with pytest.raises(ValueError, match="example 1: classification wants 1 text, got 2"):
        calibrate(bundle, [["a"], ["a", "b"]], LABELS[:2])
    assert not (tmp_path / "x").exists()


def test_answers_of_different_number_are_filled_up() -> None:
    rows = by_answers(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), [2, 3])
    np.testing.assert_array_equal(rows, [[1, 2, -np.inf], [3, 4, 5]])
