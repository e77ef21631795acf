"""The guard against saturating 8-bit products: on any CPU, forced on and off, and on an emulated
CPU without VNNI.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.runtime import ort_session
from gpt_edge.runtime.session import Session
from gpt_edge.system.python_process import python_command, python_environment
from gpt_edge.verify.report import Verification
from tests.packaging.test_layers import sources
from tests.parity.conftest import Export

GUARD = "session.x64quantprecision"
SCHEMES = ("fp32", "int8", "int8-block", "int4", "int8-dynamic")
# of signed weights: those of int8-dynamic are unsigned
SATURATES = {("edge", "int8")}
CPU_SATURATES = ort_session.products_saturate()
EMULATOR = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")


def logits(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, guard: bool) -> np.ndarray:
    """All logits of 40 tokens, the guard forced on or off."""
    monkeypatch.setattr(ort_session, "products_saturate", lambda: guard)
    session = Session(bundle)
    found: np.ndarray = session.forward(np.arange(40)[None], session.new_cache(), "all")
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("graph", ["edge", "portable"])
def test_the_guard_changes_nothing_but_saturating_products(
    graph: str, scheme: str, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = export("gpt2", graph, scheme)[0]
    difference = np.abs(
        logits(bundle, monkeypatch, True) - logits(bundle, monkeypatch, False)
    ).max()
    if CPU_SATURATES and (graph, scheme) in SATURATES:
        assert difference > 0.1  # what a runtime without the guard would show here
    else:
        assert difference <= 1e-5


class Recorded(ort.SessionOptions):  # type: ignore[misc]
    """Options that remember what was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[str, str] = {}

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.asked[key] = value
        super().add_session_config_entry(key, value)


@pytest.mark.parametrize("guard", [False, True])
def test_the_guard_is_asked_for_where_products_saturate(
    guard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort_session, "products_saturate", lambda: guard)
    options = Recorded()
    ort_session.start_session(ort_session.MODEL, options)
    assert (options.asked.get(GUARD) == "1") == guard


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("graph", ["edge", "portable"])
def test_the_guard_is_asked_for_only_by_graphs_with_integer_products(
    graph: str, scheme: str, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort_session, "products_saturate", lambda: True)
    options = Recorded()
    ort_session.start_session(export("gpt2", graph, scheme)[0].model_path, options)
    has_products = scheme == "int8-dynamic" or (graph, scheme) == ("edge", "int8")
    assert (GUARD in options.asked) == has_products


def plain_logits(path: Path, n_tokens: int) -> np.ndarray:
    """All logits of a portable graph in an InferenceSession that sets nothing."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    ids = np.arange(n_tokens)[None]
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": ids}
    for value in session.get_inputs():
        if value.name.startswith("past"):
            inputs[value.name] = np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32)
    logits: np.ndarray = session.run(["logits"], inputs)[0]
    return logits


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_session_that_sets_nothing_computes_a_portable_bundle_as_ours_does(
    scheme: str, export: Export
) -> None:
    bundle = export("gpt2", "portable", scheme)[0]
    session = Session(bundle)
    ours = session.forward(np.arange(40)[None], session.new_cache(), "all")
    assert np.abs(plain_logits(bundle.model_path, 40) - ours).max() <= 1e-5


def test_the_head_of_a_quantized_portable_bundle_is_fused(export: Export, tmp_path: Path) -> None:
    """onnxruntime dequantizes the whole table for every token where it cannot fuse the product."""
    bundle = export("gpt2", "portable", "int8")[0]
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = ort_session.SILENT
    ort.InferenceSession(str(bundle.model_path), options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in ir.load(tmp_path / "optimized.onnx").graph]
    assert "DequantizeLinear" not in operators
    assert operators.count("MatMulNBits") == 4 * bundle.config.n_layer + 1
    # one table, which two initializers share
    weights = bundle.config.n_parameters
    assert (bundle.path / "model.onnx_data").stat().st_size < 1.5 * weights


def test_one_function_starts_every_session() -> None:
    starters = {
        name
        for name, path in sources().items()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("InferenceSession")
    }
    assert starters == {"gpt_edge.runtime.ort_session"}


def test_the_verifier_reads_inner_values_as_the_runtime_computes_them(
    export: Export, checkpoints: dict[str, Path]
) -> None:
    """Where it opened a session of its own, it accused good int8 bundles on CPUs that saturate."""
    from gpt_edge.export.pipeline.verify import verify_bundle

    bundle = export("gpt2", "edge", "int8")[0]
    report = verify_bundle(bundle, checkpoints["gpt2"])
    assert isinstance(report, Verification)
    assert report.faults == []


@pytest.mark.slow
@pytest.mark.skipif(
    EMULATOR is None, reason="qemu-x86_64 of the package qemu-user is not installed"
)
@pytest.mark.parametrize("graph", ["edge", "portable"])
def test_an_emulated_cpu_without_vnni_gives_the_same_tokens(
    graph: str, export: Export, tmp_path: Path
) -> None:
    child = """
import sys
import numpy as np
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.runtime.ort_session import products_saturate
from gpt_edge.runtime.session import Session
session = Session(Bundle.open(sys.argv[1]), threads=1)
np.save(sys.argv[2], session.forward(np.arange(40)[None], session.new_cache(), "all")[0])
print(products_saturate())
"""
    bundle = export("gpt2", graph, "int8")[0]
    out = tmp_path / "logits.npy"
    done = subprocess.run(
        [
            str(EMULATOR),
            "-cpu",
            "Haswell",
            *python_command("-c", child, str(bundle.path), str(out)),
        ],
        env=python_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["True"]
    session = Session(bundle)
    here = session.forward(np.arange(40)[None], session.new_cache(), "all")[0]
    there = np.load(out)
    assert np.abs(here - there).max() <= 1e-2 * (here.max() - here.min())
    assert (here.argmax(-1) == there.argmax(-1)).mean() >= 0.95
