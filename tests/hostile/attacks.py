"""Crafted attacks on a bundle: each edits a copy of a good one, whose manifest is then signed anew.

Graphs are edited with onnx, weights and files by hand. An attack that a graph must not pass is
`refused`; what onnxruntime would do with most of them stands in docs/security.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.hostile.signing import copy_of, read_values, sign

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


# Tools


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


# What runs: subgraphs, functions, operators


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


# Attributes and inputs


@of_graph("GatherND with batch_dims -2 ** 31")
def gather_nd(model: onnx.ModelProto) -> None:
    attribute(find(model, "GatherND"), "batch_dims").i = -(1 << 31)


@of_graph("Max with an empty input", "native-relu-int8")
def empty_max(model: onnx.ModelProto) -> None:
    find(model, "Max", "ReduceMax").input[0] = ""


@of_graph("LayerNormalization with an empty input", "tiny-portable")
def empty_norm(model: onnx.ModelProto) -> None:
    find(model, "LayerNormalization").input[1] = ""


@of_graph("Reshape to a shape that lies outside its file", "tiny-portable")
def reshape_outside(model: onnx.ModelProto) -> None:
    node = find(model, "Reshape")
    tensor = model.graph.initializer.add(name="outside", data_type=INT64, dims=[3])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "model.onnx.data"), ("offset", "999999"), ("length", "24")):
        tensor.external_data.add(key=key, value=value)
    node.input[1] = "outside"


@of_graph("MatMulNBits with a K beyond its weights", "native-int4")
def huge_depth(model: onnx.ModelProto) -> None:
    attribute(find(model, "MatMulNBits"), "K").i = 1 << 30


@of_graph("MatMulNBits with an N beyond its weights", "native-int8-block")
def huge_width(model: onnx.ModelProto) -> None:
    attribute(find(model, "MatMulNBits"), "N").i = 1 << 30


@of_graph("MatMulNBits with blocks of 0", "native-int4")
def no_block(model: onnx.ModelProto) -> None:
    attribute(find(model, "MatMulNBits"), "block_size").i = 0


@of_graph("MatMulNBits with 3 bits", "native-int4")
def odd_bits(model: onnx.ModelProto) -> None:
    attribute(find(model, "MatMulNBits"), "bits").i = 3


@of_graph("GatherBlockQuantized along axis 7", "native-int8")
def wrong_axis(model: onnx.ModelProto) -> None:
    attribute(find(model, "GatherBlockQuantized"), "gather_axis").i = 7


@of_graph("attention with 0 heads")
def no_heads(model: onnx.ModelProto) -> None:
    attribute(find(model, "GroupQueryAttention"), "num_heads").i = 0


@of_graph("attention with 2 ** 40 heads")
def many_heads(model: onnx.ModelProto) -> None:
    attribute(find(model, "GroupQueryAttention"), "kv_num_heads").i = 1 << 40


@of_graph("attention with one past for two layers")
def shared_past(model: onnx.ModelProto) -> None:
    nodes = [node for node in model.graph.node if node.op_type == "GroupQueryAttention"]
    nodes[1].input[3] = nodes[0].input[3]


@of_graph("an epsilon that is no number")
def no_epsilon(model: onnx.ModelProto) -> None:
    attribute(find(model, "SkipLayerNormalization"), "epsilon").f = float("nan")


@of_graph("an attribute twice")
def attribute_twice(model: onnx.ModelProto) -> None:
    node = find(model, "GroupQueryAttention")
    node.attribute.append(attribute(node, "num_heads"))


@of_graph("an attribute that no operator has")
def unknown_attribute(model: onnx.ModelProto) -> None:
    find(model, "MatMul").attribute.append(helper.make_attribute("evil", 1))


@of_graph("Transpose by axes that it does not have", "tiny-portable")
def wrong_order_of_axes(model: onnx.ModelProto) -> None:
    item = attribute(find(model, "Transpose"), "perm")
    item.ints[:] = [0, 1, 2, 3, 1 << 40]


@of_graph("a node's name that is not UTF-8")
def name_of_a_node(model: onnx.ModelProto) -> bytes:
    data = model.SerializeToString()
    name = find(model, "FastGelu").name.encode()
    return data.replace(name, b"\xff\xfe" + name[2:], 1)


@of_graph("an operator's name that is not UTF-8")
def name_of_an_operator(model: onnx.ModelProto) -> bytes:
    return model.SerializeToString().replace(b"FusedMatMul", b"\xc3\x28sedMatMul")


@of_graph("a value's name with an escape sequence")
def name_with_escape(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Abs", ["logits"], ["\x1b]0;evil\x07"]))


@of_graph("a name of a megabyte")
def long_name(model: onnx.ModelProto) -> None:
    find(model, "FastGelu").name = "n" * (1 << 20)


@of_graph("an input that the contract does not have")
def unknown_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("evil", FLOAT, [1]))


@of_graph("an input of strings")
def input_of_strings(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING


@of_graph("an input that is a sequence")
def sequence_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.Clear()
    model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = INT64


@of_graph("keys of another width")
def other_keys(model: onnx.ModelProto) -> None:
    value = next(value for value in model.graph.input if value.name == "past_key_values.0.key")
    value.type.tensor_type.shape.dim[3].dim_value = 4096


@of_graph("a value declared as what it is not")
def wrong_hint(model: onnx.ModelProto) -> None:
    kept = [value for value in model.graph.value_info if value.name != "layer_norm"]
    del model.graph.value_info[:]
    wrong = helper.make_tensor_value_info("layer_norm", FLOAT, [9, 9, 9])
    model.graph.value_info.extend([*kept, wrong])


@of_graph("logits that a layer never reaches")
def skipped_logits(model: onnx.ModelProto) -> None:
    nodes = [n for n in model.graph.node if n.op_type != "GroupQueryAttention"]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


# Where tensors lie


def _moved(part: str, **changes: str) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        tensor = stored(model, part)
        for key, value in changes.items():
            entry(tensor, key).value = value

    return edit


for _title, _changes in {
    "weights at /etc/passwd": {"location": "/etc/passwd"},
    "weights at ../tiny-portable/model.onnx.data": {"location": "../tiny-portable/model.onnx.data"},
    "weights at a/../../x": {"location": "a/../../x"},
    "weights at C:\\x": {"location": "C:\\x"},
    "weights at \\\\server\\share": {"location": "\\\\server\\share"},
    "weights at /proc/self/mem": {"location": "/proc/self/mem"},
    "weights in a file that is not there": {"location": "missing.data"},
    "weights in the manifest": {"location": "manifest.json"},
    "weights in the graph's own file": {"location": "model.onnx"},
    "weights at an empty place": {"location": ""},
    "weights at onnxruntime's mark of memory": {"location": "*/_ORT_MEM_ADDR_/*"},
    "weights beyond the end of the file": {"offset": "999999"},
    "weights that reach beyond the end": {"length": "999999"},
    "weights at a negative offset": {"offset": "-4096"},
    "weights at an offset of 2 ** 63": {"offset": str(1 << 63)},
    "weights of 2 ** 63 bytes": {"length": str(1 << 63)},
    "weights over others": {"offset": "64"},
}.items():
    of_graph(_title)(_moved("wte.weight", **_changes))


@of_graph("weights with a checksum's entry of 2 MB")
def long_entry(model: onnx.ModelProto) -> None:
    stored(model, "wte").external_data.add(key="checksum", value="0" * (2 << 20))


@of_graph("weights in two places")
def two_places(model: onnx.ModelProto) -> None:
    stored(model, "wte").raw_data = bytes(16)


@of_graph("a shape whose product overflows")
def overflow(model: onnx.ModelProto) -> None:
    stored(model, "wte").dims[:] = [1 << 30, 1 << 30, 1 << 30]


@of_graph("a negative dimension")
def negative(model: onnx.ModelProto) -> None:
    stored(model, "wte").dims[0] = -277


@of_graph("a tensor of strings")
def strings(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer.add(name="s", data_type=TensorProto.STRING, dims=[1])
    tensor.string_data.append(b"x")


@of_graph("a sparse initializer")
def sparse(model: onnx.ModelProto) -> None:
    values = helper.make_tensor("s", FLOAT, [1], [1.0])
    indices = helper.make_tensor("s_idx", INT64, [1], [1 << 40])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))


@of_graph("a Constant with a sparse value")
def sparse_constant(model: onnx.ModelProto) -> None:
    values = helper.make_tensor("s", FLOAT, [1], [1.0])
    indices = helper.make_tensor("s_idx", INT64, [1], [3])
    value = helper.make_sparse_tensor(values, indices, [4])
    before(model, helper.make_node("Constant", [], ["c"], sparse_value=value))


@of_graph("a Constant whose value lies in a file")
def constant_in_a_file(model: onnx.ModelProto) -> None:
    node = find(model, "Constant")
    tensor = node.attribute[0].t
    tensor.raw_data = b""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "/etc/passwd"), ("offset", "0"), ("length", "8")):
        tensor.external_data.add(key=key, value=value)


@of_graph("an initializer twice")
def initializer_twice(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(stored(model, "wte"))


@of_graph("data shorter than its shape")
def short_data(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer.add(name="short", data_type=FLOAT, dims=[1000])
    tensor.raw_data = bytes(4)


@of_graph("training information")
def training(model: onnx.ModelProto) -> None:
    model.training_info.add().algorithm.name = "evil"


@of_graph("a field that ONNX does not have")
def unknown_field(model: onnx.ModelProto) -> bytes:
    return model.SerializeToString() + bytes([0xFA, 0x07, 2, 1, 2])


@of_graph("a second graph")
def second_graph(model: onnx.ModelProto) -> bytes:
    other = onnx.ModelProto(graph=onnx.GraphProto(name="other"))
    return model.SerializeToString() + other.SerializeToString()


@of_graph("a graph that is cut off")
def cut(model: onnx.ModelProto) -> bytes:
    return model.SerializeToString()[:-100]


@of_graph("a length of 2 ** 62 in the graph")
def huge_length(model: onnx.ModelProto) -> bytes:
    return b"\x08\x0a\x3a" + b"\xff" * 8 + b"\x3f"


@of_graph("a graph that begins as an .ort file does")
def ort_mark(model: onnx.ModelProto) -> bytes:
    """onnxruntime takes bytes with this mark for its own format: the first four say where in them
    another model begins, which no reader of .onnx files sees.
    """
    model.ClearField("ir_version")
    model.ClearField("producer_name")
    return b"\x08\x0a\x12\x04ORTM" + model.SerializeToString()


# Numbers and the config


def _number_at(part: str, value: float) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        model = onnx.load(folder / "model.onnx", load_external_data=False)
        tensor = stored(model, part)
        path = folder / "model.onnx.data"
        data = bytearray(path.read_bytes())
        at = int(entry(tensor, "offset").value)
        data[at : at + 4] = np.float32(value).tobytes()
        path.write_bytes(data)
        sign(folder)

    return spoil


of_folder("a scale that is no number", "native-int8", "native-int4")(
    _number_at("c_attn.weight_scales", float("nan"))
)
of_folder("an infinite scale", "native-int8-block")(_number_at("c_fc.weight_scales", float("inf")))
of_folder("a scale of 1e30", "native-int8")(_number_at("wte.weight_scales", 1e30))
of_folder("a norm that is no number")(_number_at("ln_1.weight", float("nan")))


def _config(**changes: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        values = read_values(folder)
        values["config"].update(changes)
        sign(folder, values)

    return spoil


for _title, _values in {
    "a config with a million layers": {"n_layer": 1 << 20},
    "a config with three layers": {"n_layer": 3},
    "a config with one layer": {"n_layer": 1},
    "a config with another number of heads": {"n_head": 4},
    "a config with a larger vocabulary": {"vocab_size": 300},
    "a config with a smaller vocabulary": {"vocab_size": 200},
    "a config with a longer context": {"n_ctx": 4096},
    "a config with a shorter context": {"n_ctx": 16},
    "a config with a larger width": {"n_embd": 1 << 20},
    "a config with another activation": {"activation": "relu"},
    "a config with another epsilon": {"layer_norm_epsilon": 1.0},
    "a config of a classifier": {"n_label": 3},
}.items():
    of_folder(_title, "tiny-edge", "tiny-portable")(_config(**_values))


@of_folder("a vocabulary that graph and config lie about")
def lie_about_the_vocabulary(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 5000
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    values = read_values(folder)
    values["config"]["vocab_size"] = 5000
    sign(folder, values)


# Files


@of_folder("weights behind a link")
def linked(folder: Path) -> None:
    path = folder / "model.onnx.data"
    data = folder.parent / "elsewhere.data"
    data.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(data)


@of_folder("a graph behind a link")
def linked_graph(folder: Path) -> None:
    path = folder / "model.onnx"
    other = folder.parent / "elsewhere.onnx"
    other.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(other)


@of_folder("weights that are a pipe")
def pipe(folder: Path) -> None:
    (folder / "model.onnx.data").unlink()
    os.mkfifo(folder / "model.onnx.data")


@of_folder("weights that are a folder")
def weights_folder(folder: Path) -> None:
    (folder / "model.onnx.data").unlink()
    (folder / "model.onnx.data").mkdir()


@of_folder("weights that the manifest does not list")
def unlisted(folder: Path) -> None:
    values = read_values(folder)
    del values["files"]["model.onnx.data"]
    sign(folder, values)


@of_folder("weights cut off")
def short_weights(folder: Path) -> None:
    path = folder / "model.onnx.data"
    path.write_bytes(path.read_bytes()[:1000])
    sign(folder)


@of_folder("a graph of zeros")
def zeros(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(bytes(5000))
    sign(folder)


@of_folder("an empty graph")
def empty(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"")
    sign(folder)
