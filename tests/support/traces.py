"""One trace per wiring and graph in a run of the tests.

`torch.onnx.export` takes 5 to 12 seconds for a model of two layers, whatever its width; the rest of
an export takes one. `share_traces` keeps what torch returned in a folder that all processes of a
run share, so that the second export of a wiring reads it. Two models have one wiring when they
differ only in what a trace holds as shapes or as attributes of attention, like the vocabulary;
`tests/parity/test_shared_traces.py` compares the files. The first export of every wiring is still
torch's own, in every run: nothing is kept from one run to the next. It takes a quarter less time
here, since a process reads torch's table of operators once, and collects no garbage in between.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx_ir as ir
import torch
from torch.onnx._internal.exporter._registration import ONNXRegistry

from gpt_edge.config import GPTConfig
from gpt_edge.export.graph.graph_modules import EdgeGraph, EdgeTaskGraph, attention_attributes

if sys.platform != "win32":
    import fcntl

FOLDER = "GPT_EDGE_TEST_TRACES"  # the environment's variable, which commands inherit
EDGE = EdgeGraph, EdgeTaskGraph
WEIGHTS = "traced_weights"  # how many of the stored graph's last inputs are initializers


def share_traces() -> None:
    """Let `torch.onnx.export` of this process reuse the traces in the folder that FOLDER names."""
    if not hasattr(torch.onnx.export, "__wrapped__") and FOLDER in os.environ:
        torch.onnx.export = sharing(torch.onnx.export, Path(os.environ[FOLDER]))
        read_operators_once()
        look_up_operators_once()


@functools.cache
def read_operators_once() -> None:
    """Keep torch's table of 500 ONNX functions, parsed at every export, which only reads it."""
    from_torchlib = ONNXRegistry.from_torchlib.__func__  # type: ignore[attr-defined]
    ONNXRegistry.from_torchlib = classmethod(functools.cache(from_torchlib))  # type: ignore


@functools.cache
def look_up_operators_once() -> None:
    """Let torch look up its 1,000 composite operators at the first decomposition alone."""
    look_up = torch._export.utils._materialize_cpp_cia_ops
    torch._export.utils._materialize_cpp_cia_ops = functools.cache(look_up)


def sharing(export: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    """`export`, whose traces are kept in `folder`, and taken from there."""

    @functools.wraps(export)
    def shared(model: torch.nn.Module, arguments: tuple[Any, ...], **options: Any) -> Any:
        if not hasattr(model, "gpt"):  # Optimum exports its own models, by the older exporter
            return export(model, arguments, **options)
        path = folder / f"{_digest(model, arguments, options)}.onnx"
        with only_one(path.with_suffix(".lock")):
            if not path.exists():
                with _no_collections():
                    program = export(model, arguments, **options)
                if program is None:
                    return None
                _save(program.model, path)
            return SimpleNamespace(model=_load(path, model))

    return shared


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """An export creates objects by the million and drops next to none of them in a circle."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _digest(model: torch.nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> str:
    """Of all that the trace depends on: the wrapper and its settings, the model's modules and
    weights, the arguments.
    """
    settings = {key: value for key, value in vars(model).items() if isinstance(value, (str, int))}
    modules = [(name, type(module).__qualname__) for name, module in model.named_modules()]
    inputs = torch.utils._pytree.tree_map(lambda tensor: (tensor.dtype, tensor.dim()), arguments)
    wiring = _wiring(model.gpt.config, is_edge=isinstance(model, EDGE))
    parts = type(model).__qualname__, settings, wiring, modules, list(model.state_dict()), inputs
    return hashlib.sha256(f"{parts}\n{options}".encode()).hexdigest()[:32]


def _wiring(config: GPTConfig, *, is_edge: bool) -> GPTConfig:
    """The same for all models of one wiring. A dimension of 1 is a wiring of its own: torch might
    take it for a constant.

    The portable graph holds constants of the width and the heads; the edge graph has them, the
    window and the scale in attributes of its attention, which `_load` sets.
    """
    n_label = config.n_label and 1
    sizes = {"vocab_size": config.vocab_size, "n_ctx": config.n_ctx, "n_inner": config.inner_size}
    changes: dict[str, Any] = {name: min(size, 2) for name, size in sizes.items()}
    if is_edge:
        n_head = min(config.n_head, 2)
        changes |= {"n_head": n_head, "n_embd": n_head * min(config.head_size, 2)}
        changes |= {"window": config.window and 1, "scale_attention": True}
    if config.takes_adapters:  # a constant of the graph: where its adapters' tokens begin
        changes["vocab_size"] = config.vocab_size
    return dataclasses.replace(config, n_label=n_label, **changes)


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Hold a lock among processes; it ends with the process that holds it."""
    with open(path, "w") as lock:
        if sys.platform != "win32":
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _save(model: ir.Model, path: Path) -> None:
    """Weights have no values in a trace, and an initializer of a file must: they are stored as
    inputs.
    """
    graph = model.graph
    for value in list(graph.initializers.values()):
        value.const_value = None
        del graph.initializers[value.name]
        graph.inputs.append(value)
        graph.metadata_props[WEIGHTS] = str(int(graph.metadata_props.get(WEIGHTS, 0)) + 1)
    unfinished = path.with_suffix(f".{os.getpid()}")
    ir.save(model, unfinished, format="protobuf")
    unfinished.replace(path)


def _load(path: Path, traced: torch.nn.Module) -> ir.Model:
    """The stored trace as that of `traced`: with the shapes of its weights and, in an edge graph,
    the attributes of its attention.
    """
    model = ir.load(path, format="protobuf")
    graph = model.graph
    n_weights = int(graph.metadata_props.pop(WEIGHTS))
    weights = traced.state_dict()
    for value in list(graph.inputs)[-n_weights:]:
        graph.inputs.remove(value)
        value.shape = ir.Shape(weights[value.name].shape)
        graph.initializers[value.name] = value
    attention = [node for node in graph if node.op_type == "GroupQueryAttention"]
    for layer, node in enumerate(attention):
        for name, number in attention_attributes(traced.gpt.config, layer).items():
            node.attributes[name] = ir.convenience.convert_attribute(name, number)
    return model
