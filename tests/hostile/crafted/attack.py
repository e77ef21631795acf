"""What a crafted attack is, and tools that edit graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.hostile.signing import copy_of, sign

Edit = Callable[[onnx.ModelProto], object]
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


@dataclass(frozen=True)
class Attack:
    """name: of the trick. bundle: the good one that `spoil` makes bad; it signs what it leaves."""

    name: str
    bundle: str
    spoil: Callable[[Path], None]

    def __str__(self) -> str:
        return f"{self.name} ({self.bundle})"


ATTACKS: list[Attack] = []


def of_graph(name: str, *bundles: str) -> Callable[[Edit], Edit]:
    """An attack that edits the graph."""

    def add(edit: Edit) -> Edit:
        def spoil(folder: Path) -> None:
            path = folder / "model.onnx"
            model = onnx.load(path, load_external_data=False)
            edited = edit(model)
            data = edited if isinstance(edited, bytes) else model.SerializeToString()
            path.write_bytes(data)
            sign(folder)

        for bundle in bundles or ("tiny-edge",):
            ATTACKS.append(Attack(name, bundle, spoil))
        return edit

    return add


def of_folder(name: str, *bundles: str) -> Callable[[Any], Any]:
    """An attack on files, or on the manifest's values."""

    def add(spoil: Callable[[Path], None]) -> Callable[[Path], None]:
        for bundle in bundles or ("tiny-edge",):
            ATTACKS.append(Attack(name, bundle, spoil))
        return spoil

    return add


def spoiled(attack: Attack, out: Path) -> Path:
    """The bundle of an attack at `out`."""
    keep = ("model.onnx", "manifest.json", "model.onnx.data")
    attack.spoil(copy_of(attack.bundle, out, keep))
    return out


def find(model: onnx.ModelProto, *operators: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type in operators)


def stored(model: onnx.ModelProto, part: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if part in tensor.name)


def entry(tensor: onnx.TensorProto, key: str) -> onnx.StringStringEntryProto:
    return next(item for item in tensor.external_data if item.key == key)


def attribute(node: onnx.NodeProto, name: str) -> onnx.AttributeProto:
    return next(item for item in node.attribute if item.name == name)


def constant(model: onnx.ModelProto, name: str, values: object, dtype: type = np.int64) -> str:
    array = np.array(values, dtype)
    model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return name


def before(model: onnx.ModelProto, *nodes: onnx.NodeProto) -> None:
    """Put nodes at the beginning."""
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])


def after_logits(model: onnx.ModelProto, *nodes: onnx.NodeProto) -> None:
    """Put nodes between the logits and the graph's output; the last makes `logits`, the first reads
    `all_logits`.
    """
    for node in model.graph.node:
        for at, name in enumerate(node.output):
            if name == "logits":
                node.output[at] = "all_logits"
    model.graph.node.extend(nodes)


def identity_graph(name: str, op: str = "Identity") -> onnx.GraphProto:
    out = helper.make_tensor_value_info(f"{name}_out", FLOAT, None)
    return helper.make_graph(
        [helper.make_node(op, ["all_logits"], [f"{name}_out"])], name, [], [out]
    )
