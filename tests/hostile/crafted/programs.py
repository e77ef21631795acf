"""Attacks by what runs: graphs in graphs, functions, operators, endless work."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.hostile.crafted.attack import (
    FLOAT,
    INT64,
    Edit,
    after_logits,
    attribute,
    before,
    constant,
    find,
    identity_graph,
    of_graph,
)


@of_graph("a chain of 3,000 nested functions")
def nested_functions(model: onnx.ModelProto) -> None:
    opset = helper.make_opsetid("", 23)
    for level in range(3000):
        inner = (
            helper.make_node(f"F{level + 1}", ["x"], ["y"], domain="evil")
            if level < 2999
            else helper.make_node("Identity", ["x"], ["y"])
        )
        opsets = [opset, helper.make_opsetid("evil", 1)]
        model.functions.append(
            helper.make_function("evil", f"F{level}", ["x"], ["y"], [inner], opsets)
        )
    model.opset_import.append(helper.make_opsetid("evil", 1))
    after_logits(model, helper.make_node("F0", ["all_logits"], ["logits"], domain="evil"))


@of_graph("a function bomb: each calls the next twice")
def function_bomb(model: onnx.ModelProto) -> None:
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("evil", 1)]
    for level in range(30):
        name, domain = (f"F{level + 1}", "evil") if level < 29 else ("Identity", "")
        nodes = [
            helper.make_node(name, ["x"], ["z"], domain=domain),
            helper.make_node(name, ["z"], ["y"], domain=domain),
        ]
        model.functions.append(
            helper.make_function("evil", f"F{level}", ["x"], ["y"], nodes, opsets)
        )
    model.opset_import.append(helper.make_opsetid("evil", 1))
    after_logits(model, helper.make_node("F0", ["all_logits"], ["logits"], domain="evil"))


def _loop(grows: bool) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        body_nodes = [
            helper.make_node("Identity", ["cond"], ["cond_out"]),
            helper.make_node("Concat", ["x", "x"], ["y"], axis=0)
            if grows
            else helper.make_node("Identity", ["x"], ["y"]),
        ]
        body = helper.make_graph(
            body_nodes,
            "body",
            [
                helper.make_tensor_value_info("i", INT64, []),
                helper.make_tensor_value_info("cond", TensorProto.BOOL, []),
                helper.make_tensor_value_info("x", FLOAT, None),
            ],
            [
                helper.make_tensor_value_info("cond_out", TensorProto.BOOL, []),
                helper.make_tensor_value_info("y", FLOAT, None),
            ],
        )
        trips = constant(model, "trips", 1 << 62)
        go_on = constant(model, "go_on", True, np.bool_)
        node = helper.make_node("Loop", [trips, go_on, "all_logits"], ["logits"], body=body)
        after_logits(model, node)

    return edit


of_graph("a Loop without end", "tiny-edge", "tiny-portable")(_loop(grows=False))
of_graph("a Loop that doubles its value")(_loop(grows=True))


@of_graph("an If with two branches")
def branches(model: onnx.ModelProto) -> None:
    choice = constant(model, "choice", True, np.bool_)
    after_logits(
        model,
        helper.make_node(
            "If",
            [choice],
            ["logits"],
            then_branch=identity_graph("then"),
            else_branch=identity_graph("else"),
        ),
    )


@of_graph("a Scan over the logits")
def scan(model: onnx.ModelProto) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "body",
        [helper.make_tensor_value_info("x", FLOAT, None)],
        [helper.make_tensor_value_info("y", FLOAT, None)],
    )
    after_logits(
        model, helper.make_node("Scan", ["all_logits"], ["logits"], body=body, num_scan_inputs=1)
    )


@of_graph("a graph in an attribute of an operator that has none")
def hidden_graph(model: onnx.ModelProto) -> None:
    node = find(model, "MatMul")
    node.attribute.append(helper.make_attribute("body", identity_graph("hidden")))


@of_graph("an attribute that refers to a function's")
def reference(model: onnx.ModelProto) -> None:
    item = attribute(find(model, "SkipLayerNormalization"), "epsilon")
    item.ref_attr_name = "epsilon"


@of_graph("DepthToSpace with blocks of 2 ** 32")
def depth_to_space(model: onnx.ModelProto) -> None:
    node = helper.make_node("DepthToSpace", ["all_logits"], ["logits"], blocksize=1 << 32)
    after_logits(model, node)


@of_graph("Expand to 3,000,000,000 elements", "tiny-edge", "tiny-portable")
def expand(model: onnx.ModelProto) -> None:
    zero = constant(model, "zero", [0.0], np.float32)
    huge = constant(model, "huge", [3_000_000_000])
    nodes = [
        helper.make_node("Expand", [zero, huge], ["large"]),
        helper.make_node("ReduceMax", ["large"], ["largest"]),
        helper.make_node("Add", ["all_logits", "largest"], ["logits"]),
    ]
    after_logits(model, *nodes)


@of_graph("Expand to a size that the tokens' number makes")
def expand_by_tokens(model: onnx.ModelProto) -> None:
    zero = constant(model, "zero", [[0.0]], np.float32)
    factor = constant(model, "factor", [1 << 20, 1 << 20])
    axes = constant(model, "axes", [0, 1])
    nodes = [
        helper.make_node("Shape", ["input_ids"], ["sizes"]),
        helper.make_node("Mul", ["sizes", factor], ["huge"]),
        helper.make_node("Expand", [zero, "huge"], ["large"]),
        helper.make_node("ReduceMax", ["large", axes], ["largest"]),
        helper.make_node("Add", ["all_logits", "largest"], ["logits"]),
    ]
    after_logits(model, *nodes)


@of_graph("ConstantOfShape of 2 ** 40")
def constant_of_shape(model: onnx.ModelProto) -> None:
    huge = constant(model, "huge", [1 << 40])
    before(model, helper.make_node("ConstantOfShape", [huge], ["large"]))


@of_graph("Range to 2 ** 62")
def endless_range(model: onnx.ModelProto) -> None:
    numbers = [constant(model, f"n{at}", value) for at, value in enumerate((0, 1 << 62, 1))]
    before(model, helper.make_node("Range", numbers, ["large"]))


@of_graph("Range with a step of 0")
def still_range(model: onnx.ModelProto) -> None:
    numbers = [constant(model, f"n{at}", value) for at, value in enumerate((0, 5, 0))]
    before(model, helper.make_node("Range", numbers, ["large"]))


@of_graph("Pad by 2 ** 40")
def huge_pad(model: onnx.ModelProto) -> None:
    amounts = constant(model, "amounts", [0, 0, 0, 0, 0, 1 << 40])
    after_logits(model, helper.make_node("Pad", ["all_logits", amounts], ["logits"]))


@of_graph("Tile 2 ** 30 times")
def tile(model: onnx.ModelProto) -> None:
    times = constant(model, "times", [1, 1, 1 << 30])
    after_logits(model, helper.make_node("Tile", ["all_logits", times], ["logits"]))


@of_graph("a chain of 100,000 nodes")
def long_chain(model: onnx.ModelProto) -> None:
    names = ["all_logits", *(f"chain{at}" for at in range(99_999)), "logits"]
    after_logits(model, *(helper.make_node("Abs", [a], [b]) for a, b in pairwise(names)))


@of_graph("a chain of 1,000 nodes")
def chain(model: onnx.ModelProto) -> None:
    names = ["all_logits", *(f"chain{at}" for at in range(999)), "logits"]
    after_logits(model, *(helper.make_node("Abs", [a], [b]) for a, b in pairwise(names)))


@of_graph("100,000 initializers")
def many_initializers(model: onnx.ModelProto) -> None:
    for at in range(100_000):
        model.graph.initializer.add(name=f"i{at}", data_type=FLOAT, dims=[1], raw_data=bytes(4))


@of_graph("20,000 declared values")
def many_values(model: onnx.ModelProto) -> None:
    for at in range(20_000):
        model.graph.value_info.add().name = f"v{at}"


@of_graph("an operator of another domain")
def another_domain(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 5))
    after_logits(model, helper.make_node("Scaler", ["all_logits"], ["logits"], domain="ai.onnx.ml"))


@of_graph("an operator of gpt-edge's own library in a file")
def own_domain(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("gpt_edge", 1))
    node = helper.make_node("Gelu", ["all_logits"], ["logits"], domain="gpt_edge")
    after_logits(model, node)


@of_graph("an operator of onnxruntime's in a portable graph", "tiny-portable")
def fused_in_portable(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    after_logits(
        model, helper.make_node("FastGelu", ["all_logits"], ["logits"], domain="com.microsoft")
    )


@of_graph("a version of operators that does not exist")
def newer_operators(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 1 << 40


@of_graph("operators asked for twice")
def operators_twice(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("", 7))


@of_graph("a cycle")
def cycle(model: onnx.ModelProto) -> None:
    node = find(model, "MatMul")
    node.input[0] = node.output[0]


@of_graph("a value made twice")
def made_twice(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Abs", ["logits"], ["logits"]))


@of_graph("a node that reads what comes later")
def wrong_order(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, model.graph.node[-1])
    del model.graph.node[-1]
