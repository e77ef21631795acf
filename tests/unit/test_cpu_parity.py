"""scripts/cpu_parity.py: what one CPU says, and when two of them agree."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPO

SCRIPT = REPO / "scripts/cpu_parity.py"
CPU = {"machine": "aarch64", "name": "0xd0c", "features": "fp asimd", "hwcap": "3"}
CPU |= {"python": "3.11", "numpy": "2", "onnxruntime": "1", "operators": "onnxruntime's"}
CUSTOM = {**CPU, "operators": "custom"}
MODEL = {"ids": [[1, 2], [3]], "texts": ["a", "b", "c"], "sha256": "x", "logits": [0.0, 1.0]}
MODEL |= {"is_whole": True}
CLASSIFIER = {"labels": ["yes", "no"], "scores": [[0.9, 0.1], [0.495, 0.505]]}
CLASSIFIER |= {"sha256": "x", "is_whole": True}


def compare(
    there: dict[str, Any], folder: Path, here: dict[str, Any] | None = None
) -> tuple[int, str]:
    """Exit code and output of the comparison with what this CPU said."""
    here = here or {"cpu": CPU, "model": MODEL, "classifier": CLASSIFIER}
    paths = [folder / "here.json", folder / "there.json"]
    for path, values in zip(paths, (here, there), strict=True):
        path.write_text(json.dumps(values))
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(SCRIPT), "compare", *map(str, paths)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SCRIPT), run_name="__main__")
    assert isinstance(ended.value.code, int)
    return ended.value.code, out.getvalue()


@pytest.mark.parametrize(
    ("change", "code", "row"),
    [
        ({}, 0, "| model | 3 of 3 | 3 of 3 | the same bits | |"),
        ({"sha256": "y", "logits": [0.0, 1.5]}, 0, "| 3 of 3 | 3 of 3 | 5.0e-01 apart | |"),
        ({"ids": [[1, 9], [3]]}, 1, "| model | 2 of 3 |"),
        ({"ids": [[1, 2], [3, 4]]}, 1, "| model | 3 of 4 |"),  # a text that did not end
        ({"texts": ["a", "b", "z"]}, 0, "| 2 of 3 |"),
    ],
)
def test_ids_decide_and_the_rest_is_shown(
    change: dict[str, Any], code: int, row: str, tmp_path: Path
) -> None:
    there = {"cpu": CPU, "model": {**MODEL, **change}, "classifier": CLASSIFIER}
    found, out = compare(there, tmp_path)
    assert row in out
    assert found == code
    assert "features fp asimd, AT_HWCAP 3" in out


@pytest.mark.parametrize(("index", "code"), [(0, 1), (1, 0)])
def test_a_label_may_differ_at_a_near_tie_only(index: int, code: int, tmp_path: Path) -> None:
    classifier = copy.deepcopy(CLASSIFIER)
    classifier["labels"][index] = "other"
    found, out = compare({"cpu": CPU, "model": MODEL, "classifier": classifier}, tmp_path)
    assert found == code
    assert "1 of 2" in out


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("model", {"sha256": "y"}),
        ("model", {"texts": ["a", "b", "z"]}),
        ("classifier", {"sha256": "y"}),
        ("classifier", {"labels": ["yes", "yes"]}),  # a near tie
    ],
)
def test_custom_operators_must_agree_in_every_bit(
    name: str, change: dict[str, Any], tmp_path: Path
) -> None:
    mine = {"model": MODEL, "classifier": CLASSIFIER}
    there = {**mine, name: {**mine[name], **change}}
    here = {"cpu": CUSTOM, **mine}
    assert compare({"cpu": CUSTOM, **mine}, tmp_path, here)[0] == 0
    assert compare({"cpu": CUSTOM, **there}, tmp_path, here)[0] == 1
    assert compare({"cpu": CPU, **there}, tmp_path, here)[0] == 0  # one side has onnxruntime's
    partly = {key: {**value, "is_whole": False} for key, value in mine.items()}
    assert compare({"cpu": CUSTOM, **there}, tmp_path, {"cpu": CUSTOM, **partly})[0] == 0


def test_a_classifier_is_run_without_torch(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = [sys.executable, str(SCRIPT), "run", str(out), "sentiment-6m-int8"]
    subprocess.run(command, check=True, capture_output=True)
    values = json.loads(out.read_text())
    assert len(values["sentiment-6m-int8"]["labels"]) == 32
    assert values["cpu"]["onnxruntime"]
