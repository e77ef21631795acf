"""The reference through torch.onnx.export(dynamo=True), without weights: the model lives in fake
tensors.

The result is the wiring alone, its initializers named as in `GPT.state_dict()`. Weights are
streamed in later, one tensor at a time, so that tracing GPT-2 XL costs megabytes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import onnx_ir as ir
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from gpt_edge import onnx_contract
from gpt_edge.config import GPTConfig
from gpt_edge.errors import ExportError
from gpt_edge.export.graph.graph_modules import GraphModule, graph_module

OPSET = 23  # the first with Attention
PREFIX = "gpt."  # where a GraphModule holds the reference


def trace(config: GPTConfig, graph: str, task_kind: str | None = None) -> ir.Model:
    """Return the traced wiring of `config`: inputs and outputs named as in `onnx_contract.py`,
    initializers without values. An adapter's matrices, which are parameters while a base is traced,
    become inputs.

    graph: "edge" or "portable". task_kind: of a fine-tuned model, whose config has n_label. Raises
    ExportError when torch cannot trace the model.
    """
    # without gradients torch traces the same graph in four fifths of the time
    with FakeTensorMode(), torch.no_grad():
        module = graph_module(config, graph, task_kind)
        model = _export(module, graph)
    _take_adapters_in(model, config, graph)
    return _with_contract_names(model, config, graph)


def _export(module: GraphModule, graph: str) -> ir.Model:
    arguments, axes = module.example_inputs()
    try:
        with _quiet():
            program = torch.onnx.export(
                module.eval(),
                arguments,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=axes,
                optimize=False,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise ExportError(
            f"torch could not trace the {graph} graph: {str(error).splitlines()[0]}"
        ) from error
    if program is None:
        raise ExportError(f"torch returned no {graph} graph")
    return program.model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's exporter: it warns about packages that a GPT never needs."""
    root = logging.getLogger()
    root_level = root.level
    logger = logging.getLogger("torch.onnx")
    logger_level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(logger_level)
        root.setLevel(root_level)


def _with_contract_names(model: ir.Model, config: GPTConfig, graph: str) -> ir.Model:
    """Give inputs, outputs and initializers the names of the contract, and the axes too."""
    for values, specs in (
        (model.graph.inputs, onnx_contract.inputs(config, graph)),
        (model.graph.outputs, onnx_contract.outputs(config, graph)),
    ):
        if len(values) != len(specs):
            raise ExportError(
                f"the {graph} graph has {len(values)} inputs or outputs, the contract has "
                f"{len(specs)}"
            )
        for value, spec in zip(values, specs, strict=True):
            value.name = spec.name
            value.shape = ir.Shape(spec.axes)
    for name in list(model.graph.initializers):
        value = model.graph.initializers.pop(name)
        value.name = "wte.weight" if _is_tied_head(name, config) else name.removeprefix(PREFIX)
        model.graph.initializers[value.name] = value
    return model


def _take_adapters_in(model: ir.Model, config: GPTConfig, graph: str) -> None:
    """Turn the parameters of a base that an adapter brings into inputs of the graph."""
    for spec in onnx_contract.adapter_inputs(config, graph) if config.takes_adapters else ():
        value = model.graph.initializers.pop(PREFIX + spec.name)
        value.const_value = None
        model.graph.inputs.append(value)


def _is_tied_head(name: str, config: GPTConfig) -> bool:
    return config.tied_embeddings and name == PREFIX + "lm_head.weight"
