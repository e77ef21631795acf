"""The gate alone, in this process and without onnxruntime: attacks and mutants end in a BundleError
or in bytes to run. `python scripts/branches.py gate` measures what of it they reach.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from gpt_edge import onnx_contract
from gpt_edge.bundle.bundle import Bundle, builtin_bundles
from gpt_edge.bundle.gate import check, graph
from gpt_edge.bundle.gate.check import checked_model
from gpt_edge.errors import BundleError
from tests.hostile.attacks import ATTACKS, Attack, spoiled
from tests.hostile.mutants import BUNDLES, resigned, sweep
from tests.hostile.signing import GOLDEN, copy_of, sign

pytestmark = pytest.mark.filterwarnings("ignore:.*does not list")


def gate(folder: Path) -> str:
    """What becomes of a bundle before onnxruntime."""
    try:
        checked_model(Bundle.open(folder))
    except BundleError:
        return "refused"
    return "passed"


@pytest.mark.parametrize("name", [*BUNDLES, *builtin_bundles()])
def test_a_good_bundle_passes(name: str) -> None:
    assert gate(GOLDEN / name if name in BUNDLES else Bundle.open(name).path) == "passed"


def test_a_file_that_is_cut_or_gone_while_it_is_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*given: Any) -> None:
        os.truncate(folder / "model.onnx.data", 10)
        numbers(*given)

    folder = copy_of("tiny-edge", tmp_path / "bundle")
    bundle, numbers = Bundle.open(folder), check._check_numbers
    monkeypatch.setattr(check, "_check_numbers", cut)
    with pytest.raises(BundleError, match=r"model\.onnx\.data was cut while it was read"):
        checked_model(bundle)
    (folder / "model.onnx").unlink()
    with pytest.raises(BundleError, match="cannot be read: No such file"):
        checked_model(bundle)


def test_a_value_whose_type_a_graph_leaves_open_passes(tmp_path: Path) -> None:
    folder = copy_of("tiny-portable", tmp_path / "bundle")
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    model.graph.value_info.add(name=model.graph.node[0].output[0])
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    sign(folder)
    assert gate(folder) == "passed"


def test_a_file_of_onnxruntimes_format_is_that_of_the_export_at_work() -> None:
    bundle: Any = SimpleNamespace(model_path=Path("model.ort"))
    assert checked_model(bundle) == Path("model.ort")


def test_a_head_that_reads_every_token_has_a_row_for_each() -> None:
    config = dataclasses.replace(Bundle.open("sentiment-6m-int8").config, n_label=3)
    spec = graph._outputs(config, "portable", "token-classification")[onnx_contract.LOGITS]
    assert spec.axes == ("examples", "sequence", 3)


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_an_attack_is_refused(attack: Attack, tmp_path: Path) -> None:
    assert gate(spoiled(attack, tmp_path / "bundle")) == "refused"


@pytest.mark.slow
def test_mutants_are_refused_or_pass(tmp_path: Path) -> None:
    some = itertools.islice(sweep(), 0, None, 7)
    outcomes = []
    for mutant in itertools.chain(some, map(resigned, range(5000, 5400))):
        mutant.write(tmp_path / "bundle")
        outcomes.append(gate(tmp_path / "bundle"))
    assert outcomes.count("refused") > 500
    assert outcomes.count("passed") > 20
