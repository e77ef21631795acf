"""From the traced wiring to the graph that is shipped: tidy, fuse, and find the places where
weights go.

Linear layers, the embedding and the head are only located here; `schemes.py` decides what stands in
their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnxscript import optimizer

from gpt_edge.errors import ExportError

MICROSOFT = "com.microsoft"
# operators that can add a bias to what they read, and at which input
BIAS_INPUTS = {"FastGelu": 1, "SkipLayerNormalization": 4}


@dataclass(frozen=True, slots=True)
class Linear:
    """y = x W^T + b. `weight` and `bias` are names in `GPT.state_dict()`; the head has no bias."""

    x: ir.Value
    y: ir.Value
    weight: str
    bias: str | None
    nodes: tuple[ir.Node, ...]

    @property
    def is_head(self) -> bool:
        """Whether it is the language model's head."""
        return self.bias is None


@dataclass(frozen=True, slots=True)
class Embedding:
    """y = rows `ids` of the table `weight`."""

    ids: ir.Value
    y: ir.Value
    weight: str
    nodes: tuple[ir.Node, ...]


def tidy(model: ir.Model) -> ir.Model:
    """Fold constants, drop identities, duplicates and unused nodes. Weights have no values yet and
    stay untouched.
    """
    for value in model.graph.initializers.values():
        value.const_value = None
    optimizer.fold_constants(model, onnx_shape_inference=False)
    for step in (
        passes.IdentityEliminationPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.RemoveUnusedNodesPass(),
    ):
        model = step(model).model
    return model


def replace(
    graph: ir.Graph,
    old: Sequence[ir.Node],
    new: Sequence[ir.Node],
    pairs: Sequence[tuple[ir.Value, ir.Value]],
) -> None:
    """Put `new` where the last of `old` stood; each pair is an old value and what takes its place,
    name included.
    """
    for before, after in pairs:
        after.name, after.shape, after.dtype = before.name, before.shape, before.dtype
    graph.insert_after(old[-1], new)
    for before, after in pairs:
        before.replace_all_uses_with(after, replace_graph_outputs=True)
    graph.remove(list(reversed(old)), safe=True)


def fuse_skip_norms(graph: ir.Graph) -> None:
    """Add followed by LayerNormalization becomes SkipLayerNormalization; the sum stays as its
    fourth output.
    """
    for norm in [node for node in graph if node.op_type == "LayerNormalization"]:
        total = norm.inputs[0]
        add = total.producer() if total is not None else None
        if add is None or total is None or add.op_type != "Add":
            continue
        skip, branch = add.inputs
        sum_is_used = total.is_graph_output() or len(total.uses()) > 1
        fused = ir.node(
            "SkipLayerNormalization",
            [branch, skip, norm.inputs[1], norm.inputs[2]],
            attributes={"epsilon": norm.attributes["epsilon"].as_float()},
            domain=MICROSOFT,
            num_outputs=4 if sum_is_used else 1,
            name=norm.name,
        )
        pairs = [(norm.outputs[0], fused.outputs[0])]
        if sum_is_used:
            for unused in (1, 2):
                fused.outputs[unused].name = ""
            # The sum's other readers come after this node: it stands where the norm stood, directly
            # behind the sum.
            graph.insert_after(add, fused)
            _take_over(graph, norm.outputs[0], fused.outputs[0])
            _take_over(graph, total, fused.outputs[3])
            graph.remove([norm, add], safe=True)
        else:
            replace(graph, [add, norm], [fused], pairs)


def _take_over(graph: ir.Graph, before: ir.Value, after: ir.Value) -> None:
    after.name, after.shape, after.dtype = before.name, before.shape, before.dtype
    before.replace_all_uses_with(after)


def use_fast_gelu(graph: ir.Graph) -> None:
    """The tanh form of Gelu becomes FastGelu, whose kernel is vectorised."""
    for node in [node for node in graph if node.op_type == "Gelu"]:
        approximate = node.attributes.get("approximate")
        if approximate is not None and approximate.as_string() == "tanh":
            fast = ir.node("FastGelu", [node.inputs[0]], domain=MICROSOFT, name=node.name)
            replace(graph, [node], [fast], [(node.outputs[0], fast.outputs[0])])


def find_linears(graph: ir.Graph) -> list[Linear]:
    """Every Transpose(weight) -> MatMul [-> Add(bias)] of the traced graph, in order."""
    found = []
    for matmul in [node for node in graph if node.op_type == "MatMul"]:
        x, transposed = matmul.inputs
        if transposed is not None and transposed.is_graph_input():
            continue  # an adapter's matrix
        transpose = transposed.producer() if transposed is not None else None
        if x is None or transpose is None or transpose.op_type != "Transpose":
            raise ExportError(
                f"the traced graph multiplies by something that is no weight: {matmul.name}"
            )
        weight = transpose.inputs[0]
        assert weight is not None
        name = str(weight.name)
        y, bias, nodes = matmul.outputs[0], None, [transpose, matmul]
        readers = [use.node for use in y.uses()]
        if name not in ("wte.weight", "lm_head.weight"):
            if len(readers) != 1 or readers[0].op_type != "Add":
                raise ExportError(f"the traced graph adds no bias to {name}")
            bias = next(
                str(v.name)
                for v in readers[0].inputs
                if v is not None and v.name in graph.initializers
            )
            nodes.append(readers[0])
            y = readers[0].outputs[0]
        found.append(Linear(x, y, name, bias, tuple(nodes)))
    return found


def find_embedding(graph: ir.Graph) -> Embedding:
    """The Gather of token embeddings."""
    for node in graph:
        table, ids = (node.inputs[0], node.inputs[1]) if node.op_type == "Gather" else (None, None)
        if table is not None and ids is not None and table.name == "wte.weight":
            return Embedding(ids, node.outputs[0], "wte.weight", (node,))
    raise ExportError("the traced graph looks up no token embedding")


def count_operators(graph: ir.Graph) -> dict[str, int]:
    """How many nodes of each operator type the graph holds."""
    counts: dict[str, int] = {}
    for node in graph:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts
