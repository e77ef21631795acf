"""The activation functions that the library applies, and where a graph has them."""

from __future__ import annotations

from gpt_edge.native.graph_view import GraphView
from gpt_edge.native.onnx_model import Node

NONE, GELU_TANH, GELU_ERF = 0, 1, 2  # as in kernels/operators/functions.h
OPERATORS = ("FastGelu", "Gelu")


def activation_of(node: Node) -> int:
    """What a node applies, NONE for anything that the library does not know."""
    if node.op == "FastGelu":
        return GELU_TANH
    if node.op != "Gelu":
        return NONE
    kinds = {"none": GELU_ERF, "tanh": GELU_TANH}
    return kinds.get(str(node.attributes.get("approximate", "none")), NONE)


def follower(view: GraphView, name: str) -> Node | None:
    """The node that alone reads a value and applies an activation to it, without a bias."""
    node = view.only_reader(name, *OPERATORS)
    if node is None or any(node.inputs[1:]) or activation_of(node) == NONE:
        return None
    return None if name in view.model.values else node
