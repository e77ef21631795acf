"""`export --to ort`: the written file computes what the bundle computes, on every CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.errors import ExportError, OutputError, ParityError
from gpt_edge.export.ort import folder as ort_folder
from gpt_edge.export.ort.folder import OPERATORS_FILE, ORT_FILE, convert_bundle, export_ort
from gpt_edge.runtime.session import Session
from tests.parity.conftest import Export


def plain_session(path: Path) -> ort.InferenceSession:
    """A session that sets nothing, as an app's."""
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("graph", "scheme"), [("edge", "int8"), ("portable", "int8-dynamic")])
def test_a_plain_session_computes_what_the_bundle_does(
    graph: str, scheme: str, export: Export, tmp_path: Path
) -> None:
    """int8 weights would saturate here on x86 CPUs without VNNI: the file has uint8 ones."""
    bundle = export("gpt2", graph, scheme)[0]
    exported = convert_bundle(bundle, tmp_path / "out")
    assert exported.figures["bundle against model.ort"]["logits"]["ok"]
    assert (exported.n_unsigned > 0) == (scheme == "int8")
    opened = plain_session(tmp_path / "out" / ORT_FILE)
    ids = np.arange(12)[None]
    feeds = {"input_ids": ids, "position_ids": ids, "attention_mask": np.ones_like(ids)}
    feeds |= {"logit_rows": ids, "seqlens_k": np.array([11], np.int32)}
    feeds["total_sequence_length"] = np.array([12], np.int32)
    names = [value.name for value in opened.get_inputs()]
    for value in opened.get_inputs():
        if value.name.startswith("past"):
            n_past = 16 if graph == "edge" else 0
            shape = (1, value.shape[1], n_past, value.shape[3])
            feeds[value.name] = np.zeros(shape, np.float32)
    logits = opened.run(["logits"], {name: feeds[name] for name in names})[0]
    session = Session(bundle, native=False)
    expected = session.forward(ids, session.new_cache(), "all")
    np.testing.assert_allclose(logits, expected, atol=1e-5)  # the order of float sums at most


def test_the_list_of_operators_names_all_and_only_onnxruntimes(
    export: Export, tmp_path: Path
) -> None:
    bundle = export("gpt2", "edge", "int8")[0]
    exported = export_ort(bundle.path, tmp_path / "out")
    lines = (tmp_path / "out" / OPERATORS_FILE).read_text().splitlines()
    assert str(tmp_path) not in "".join(lines)
    rows = [line.split(";") for line in lines if not line.startswith("#")]
    assert {domain for domain, _, _ in rows} == {"ai.onnx", "com.microsoft"}
    operators = [name for _, _, names in rows for name in names.split(",")]
    assert len(operators) == exported.operators
    assert {"MatMulIntegerToFloat", "MatMulNBits", "GroupQueryAttention"} <= set(operators)


def test_what_cannot_be_written_leaves_nothing(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle: Bundle = export("gpt2", "edge", "int8")[0]
    out = tmp_path / "out"
    monkeypatch.setattr(ort_folder, "MAX_BYTES", 1000)
    with pytest.raises(ExportError, match="file holds 1,000"):
        convert_bundle(bundle, out)
    monkeypatch.undo()
    monkeypatch.setattr(ort_folder, "store_unsigned", lambda graph: _zero_a_norm(graph))
    with pytest.raises(ParityError, match="logits"):
        convert_bundle(bundle, out)
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="did not write"):
        convert_bundle(bundle, out, force=True)


def _zero_a_norm(graph: ort_folder.ir.Graph) -> int:
    value = graph.initializers["h.1.ln_1.weight"]
    value.const_value = ort_folder.ir.tensor(np.zeros(value.shape.numpy(), np.float32))
    return 0
