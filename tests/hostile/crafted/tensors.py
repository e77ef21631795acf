"""Attacks by where tensors lie, by their shapes, and by the bytes of a graph."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from tests.hostile.crafted.attack import (
    FLOAT,
    INT64,
    Edit,
    before,
    entry,
    find,
    of_graph,
    stored,
)


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
