"""One graph file and one data file from a config and a source of weights: trace, rewrite, lower,
check, save.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx_ir as ir

from gpt_edge import onnx_contract
from gpt_edge.config import GPTConfig
from gpt_edge.errors import ExportError
from gpt_edge.export.formats.plan import operator_counts, scheme_plan
from gpt_edge.export.formats.rounding import WeightQuantizer
from gpt_edge.export.formats.tensor_format import FLOAT32, Plan
from gpt_edge.export.graph import fuse
from gpt_edge.export.graph.lower_edge import Lowering
from gpt_edge.export.graph.lower_portable import PortableLowering
from gpt_edge.export.graph.trace import OPSET, trace
from gpt_edge.export.weights.data_file import WeightsFile
from gpt_edge.export.weights.source import WeightSource
from gpt_edge.schemes import SCHEMES

MODEL_FILE = "model.onnx"
IR_VERSION = 10
TASK_HEAD = "task_head.weight"  # tiny, and as precise as it is in every scheme


@functools.lru_cache(maxsize=16)  # small: no weights
def _wiring(config: GPTConfig, graph: str, task_kind: str | None) -> ir.Model:
    """The fused graph without weights; an export needs it twice, for fp32 and for its scheme."""
    model = fuse.tidy(trace(config, graph, task_kind))
    if graph == "edge":
        fuse.use_fast_gelu(model.graph)
        fuse.fuse_skip_norms(model.graph)
    return model


def build_graph(
    source: WeightSource,
    folder: Path,
    *,
    graph: str,
    scheme: str,
    progress: Callable[[str], None] = lambda name: None,
    plan: Plan | None = None,
    rounder: WeightQuantizer | None = None,
) -> None:
    """Write `model.onnx` and its data file (see DATA_FILES) into `folder`.

    graph: "edge" or "portable". scheme: a name in `schemes.SCHEMES`; of a scheme of Optimum's this
    builds what Optimum then quantizes. plan: each weight's format instead of the scheme's; rounder:
    quantizes them. Peak memory is that of the largest tensor, not of the model. Raises ExportError
    when the graph does not hold the operators that the contract names.
    """
    config, task = source.config, source.task
    formats = plan if plan is not None else scheme_plan(config, graph, scheme)
    if task is not None:
        formats = {**formats, TASK_HEAD: FLOAT32}
    task_kind = None if task is None else task.kind
    model = _wiring(config, graph, task_kind).clone()
    linears = fuse.find_linears(model.graph)
    embedding = fuse.find_embedding(model.graph)
    with WeightsFile(folder, graph) as weights:
        lowering_class = PortableLowering if graph == "portable" else Lowering
        lowering = lowering_class(model.graph, graph, formats, source, weights, progress, rounder)
        lowering.embedding(embedding)
        for linear in linears:
            lowering.linear(linear)
        for name, value in list(model.graph.initializers.items()):
            if not value.uses():
                model.graph.initializers.pop(name)
            elif value.const_value is None:
                value.const_value = weights.add(name, lowering.tensor(name))
    _finish(model, config, graph)
    if not SCHEMES[scheme].by_optimum:
        check_structure(model.graph, config, graph, scheme, plan)
    ir.save(model, folder / MODEL_FILE)


def _finish(model: ir.Model, config: GPTConfig, graph: str) -> None:
    """Drop what the tracer left behind: metadata with paths of this machine, shapes of padded
    tensors, old versions.
    """
    model.graph.name = f"gpt-{graph}"
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "gpt-edge", None
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    keep = {*model.graph.inputs, *model.graph.outputs}
    for index, node in enumerate(model.graph):
        node.name = f"{index}.{node.op_type}"
        node.doc_string = None
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
            if value not in keep:
                value.shape = None
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.opset_imports.clear()
    model.opset_imports.update({"": OPSET, **({fuse.MICROSOFT: 1} if graph == "edge" else {})})


def check_structure(
    ir_graph: ir.Graph, config: GPTConfig, graph: str, scheme: str, plan: Plan | None = None
) -> None:
    """Check a graph's operators, inputs and outputs against `onnx_contract.py`, or its operators
    against a plan. Raises ExportError naming what is missing or too many.

    graph: its name, "edge" or "portable".
    """
    if plan is None:
        expected = onnx_contract.operators(config, graph, scheme)
    else:
        expected = operator_counts(config, graph, plan)
    counts = fuse.count_operators(ir_graph)
    for operator, count in expected.items():
        if counts.get(operator, 0) != count:
            raise ExportError(
                f"the {graph} {scheme} graph has {counts.get(operator, 0)} {operator} nodes, "
                f"expected {count}"
            )
    if graph == "portable":
        custom = sorted({node.op_type for node in ir_graph if node.domain not in ("", "ai.onnx")})
        if custom:
            raise ExportError(
                f"the portable graph holds operators that are not standard: {', '.join(custom)}"
            )
    _check_signature(ir_graph.inputs, onnx_contract.inputs(config, graph), graph)
    _check_signature(ir_graph.outputs, onnx_contract.outputs(config, graph), graph)


def _check_signature(
    values: Sequence[ir.Value], specs: Sequence[onnx_contract.TensorSpec], graph: str
) -> None:
    """Raise ExportError unless inputs or outputs have the names and dtypes of the contract."""
    names = [value.name for value in values]
    if names != [spec.name for spec in specs]:
        raise ExportError(f"the {graph} graph's inputs or outputs are {', '.join(map(str, names))}")
    for value, spec in zip(values, specs, strict=True):
        if value.dtype is None or value.dtype.numpy() != spec.dtype:
            raise ExportError(f"{spec.name} is {value.dtype}, expected {spec.dtype}")
