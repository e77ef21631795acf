"""native/rewrite.py: which activations and heads the library's operators take over, on small graphs
that are built here.
"""

from __future__ import annotations

import pytest

from gpt_edge.native.onnx_model import Constant, Model, Node, node_field, read_model
from gpt_edge.native.rewrite import DOMAIN, _Rewriter

FLOAT32, UINT8 = 1, 2
BLOCKS: dict[str, int | float | str] = {
    "K": 64,
    "N": 32,
    "block_size": 32,
    "bits": 8,
    "accuracy_level": 4,
}
CONSTANTS = {
    "w": Constant((32, 2, 32), UINT8, b""),
    "s": Constant((32, 2), FLOAT32, b""),
    "floats": Constant((64, 32), FLOAT32, b""),
    "bias": Constant((32,), FLOAT32, b""),
    "one": Constant((1,), FLOAT32, b""),
}


def rewritten(*nodes: Node, outputs: tuple[str, ...] = ("y",)) -> list[Node]:
    """The nodes of the graph with the library's operators in it; none if it stays as it was."""
    model = Model([(node, node_field(node)) for node in nodes], dict(CONSTANTS))
    model.values = dict.fromkeys(outputs, (12, b""))
    found = _Rewriter(model, 1, 64, half_cache=False).run()
    return [] if found is None else [node for node, _ in read_model(found.model).nodes]


def block_product(out: str) -> Node:
    return Node("MatMulNBits", ["x", "w", "s"], [out], dict(BLOCKS), "com.microsoft")


GELUS = [
    ("FastGelu", {}, 1),
    ("Gelu", {}, 2),
    ("Gelu", {"approximate": "none"}, 2),
    ("Gelu", {"approximate": "tanh"}, 1),
]


@pytest.mark.parametrize(("op", "attributes", "activation"), GELUS)
def test_a_product_applies_the_gelu_behind_it(
    op: str, attributes: dict[str, int | float | str], activation: int
) -> None:
    (product,) = rewritten(block_product("h"), Node(op, ["h"], ["y"], attributes))
    assert (product.op, product.outputs, product.domain) == ("BlockProduct", ["y"], DOMAIN)
    assert product.attributes["activation"] == activation


@pytest.mark.parametrize(("op", "attributes", "activation"), GELUS)
def test_a_gelu_behind_a_float_product_takes_its_bias(
    op: str, attributes: dict[str, int | float | str], activation: int
) -> None:
    nodes = rewritten(
        Node("MatMul", ["x", "floats"], ["h"], {}),
        Node("Add", ["h", "bias"], ["b"], {}),
        Node(op, ["b"], ["y"], attributes),
    )
    assert [node.op for node in nodes] == ["MatMul", "Gelu"]
    assert nodes[1].inputs == ["h", "bias"]
    assert (nodes[1].attributes["has_bias"], nodes[1].attributes["activation"]) == (1, activation)


def test_a_gelu_with_a_bias_of_its_own() -> None:
    (gelu,) = rewritten(Node("FastGelu", ["x", "bias"], ["y"], {}))
    assert (gelu.op, gelu.inputs, gelu.domain) == ("Gelu", ["x", "bias"], DOMAIN)


@pytest.mark.parametrize(
    "gelu",
    [
        Node("Gelu", ["h"], ["y"], {"approximate": "sigmoid"}),
        Node("FastGelu", ["h", "unknown"], ["y"], {}),
        Node("QuickGelu", ["h"], ["y"], {}),
    ],
)
def test_an_unknown_activation_stays(gelu: Node) -> None:
    found = rewritten(block_product("h"), gelu)
    assert [node.op for node in found] == ["BlockProduct", gelu.op]
    assert found[0].attributes["activation"] == 0
    assert found[1].domain != DOMAIN
    assert found[1].attributes == gelu.attributes


def test_what_others_read_is_still_made() -> None:
    """Behind a product whose output somebody else reads, the GELU is an operator of its own."""
    gelu = Node("FastGelu", ["h"], ["y"], {})
    other = Node("Relu", ["h"], ["z"], {})
    assert [node.op for node in rewritten(block_product("h"), gelu, other)] == [
        "BlockProduct",
        "Gelu",
        "Relu",
    ]
    ops = [node.op for node in rewritten(block_product("h"), gelu, outputs=("h", "y"))]
    assert ops == ["BlockProduct", "Gelu"]


def test_a_bias_that_is_repeated_stays_an_add() -> None:
    nodes = rewritten(
        Node("MatMul", ["x", "floats"], ["h"], {}),
        Node("Add", ["h", "one"], ["b"], {}),
        Node("FastGelu", ["b"], ["y"], {}),
    )
    assert [node.op for node in nodes] == ["MatMul", "Add", "Gelu"]
    assert nodes[2].inputs == ["b"]


def test_only_a_float_product_at_the_end_is_a_head() -> None:
    product = Node("MatMul", ["x", "floats"], ["h"], {})
    add = Node("Add", ["h", "bias"], ["y"], {})
    (head,) = rewritten(product, add)
    assert (head.op, head.inputs, head.outputs) == ("FloatProduct", ["x", "floats", "bias"], ["y"])
    assert rewritten(product, add, outputs=("z",)) == []
    assert rewritten(product, Node("Add", ["h", "one"], ["y"], {})) == []
    assert rewritten(product, add, outputs=("h", "y")) == []


def test_a_node_is_read_as_it_was_written() -> None:
    attributes: dict[str, int | float | str] = {"approximate": "tanh", "a": -3, "b": 0.5}
    node = Node("Gelu", ["x"], ["y"], attributes, "d", "n")
    data = node_field(node)
    model = read_model(b"\x3a" + bytes([len(data)]) + data)  # field 7 of a model is its graph
    assert model.nodes == [(node, data)]
