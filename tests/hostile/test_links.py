"""A file of weights that has a second name: onnx_ir takes it for an attack, which is said before it
reads.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.errors import BundleError
from gpt_edge.export.weights.bundle_source import BundleSource
from tests.hostile.signing import GOLDEN


def test_a_file_of_weights_under_two_names_is_one_clear_line(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "tiny-portable", tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    assert BundleSource(bundle).tensor("wpe.weight").ndim == 2
    os.link(bundle.path / "model.onnx.data", tmp_path / "second")
    with pytest.raises(BundleError, match=r"model\.onnx\.data has 2 names") as raised:
        BundleSource(bundle)
    assert "cp -r" in str(raised.value.hint)
