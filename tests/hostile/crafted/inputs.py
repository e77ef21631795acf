"""Attacks by attributes, inputs, names and declared types."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from tests.hostile.crafted.attack import (
    FLOAT,
    INT64,
    after_logits,
    attribute,
    constant,
    find,
    of_graph,
)


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


@of_graph("an input that is stored as well")
def stored_input(model: onnx.ModelProto) -> None:
    constant(model, "input_ids", [[1]])


@of_graph("a graph that names no version of its operators", "tiny-edge", "tiny-portable")
def no_version(model: onnx.ModelProto) -> None:
    del model.opset_import[:]


@of_graph("attention with a window that the config does not have")
def own_window(model: onnx.ModelProto) -> None:
    attribute(find(model, "GroupQueryAttention"), "local_window_size").i = 4


@of_graph("an output that nothing makes")
def unmade_output(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if "present.1.key" in node.output:
            node.output[list(node.output).index("present.1.key")] = "elsewhere"


@of_graph("logits of another shape", "tiny-portable")
def turned_logits(model: onnx.ModelProto) -> None:
    after_logits(model, helper.make_node("Transpose", ["all_logits"], ["logits"], perm=[0, 2, 1]))


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
