"""Parses an ONNX model and serializes it again, as far as replacing nodes needs it.

What is not looked at is copied byte for byte. Numbers of fields: onnx.proto3 of the ONNX
specification.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from gpt_edge.bundle.onnx_wire import BYTES, FIXED32, VARINT, fields, varints

MODEL_GRAPH, MODEL_OPSET = 7, 8
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT = 1, 5, 11, 12
VALUE_NAME, VALUE_TYPE, TYPE_TENSOR, TENSOR_TYPE_ELEMENT = 1, 2, 1, 1
NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_OP, NODE_ATTRIBUTE, NODE_DOMAIN = 1, 2, 3, 4, 5, 7
ATTRIBUTE_NAME, ATTRIBUTE_FLOAT, ATTRIBUTE_INT, ATTRIBUTE_STRING, ATTRIBUTE_TYPE = 1, 2, 3, 4, 20
TYPE_FLOAT, TYPE_INT, TYPE_STRING = 1, 2, 3
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME, TENSOR_RAW = 1, 2, 8, 9


@dataclass(slots=True)
class Node:
    """A node's names and attributes; an attribute that is no whole number, float or string is left
    out.
    """

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, int | float | str]
    domain: str = ""
    name: str = ""


@dataclass(slots=True)
class Constant:
    """An initializer: shape, ONNX's number of its type, and its bytes where they are in the file
    itself.
    """

    dims: tuple[int, ...]
    type: int
    raw: bytes


@dataclass(slots=True)
class Model:
    """A parsed model: its nodes and its inputs and outputs with their bytes, its initializers,
    and the rest as it was.
    """

    nodes: list[tuple[Node, bytes]]
    constants: dict[str, Constant]
    # by name: the graph's field, and its content
    values: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    graph_rest: list[bytes] = field(default_factory=list)
    rest: list[bytes] = field(default_factory=list)


def read_model(data: bytes) -> Model:
    """Take a ModelProto apart. Raises ValueError for what is none."""
    model = Model([], {})
    for number, value, whole in fields(data):
        if number != MODEL_GRAPH or not isinstance(value, bytes):
            model.rest.append(whole)
            continue
        for inner, part, bytes_of in fields(value):
            if inner == GRAPH_NODE and isinstance(part, bytes):
                model.nodes.append((_node(part), bytes_of))
                continue
            if inner in (GRAPH_INPUT, GRAPH_OUTPUT) and isinstance(part, bytes):
                model.values[_name(part)] = inner, part
                continue
            if inner == GRAPH_INITIALIZER and isinstance(part, bytes):
                name, constant = _constant(part)
                model.constants[name] = constant
            model.graph_rest.append(bytes_of)
    return model


def _name(data: bytes) -> str:
    return next(
        (
            value.decode()
            for number, value, _ in fields(data)
            if number == VALUE_NAME and isinstance(value, bytes)
        ),
        "",
    )


def retype(model: Model, name: str, kind: int) -> None:
    """Let an input or output hold numbers of another type, by its number in
    onnx.TensorProto.DataType.
    """
    number, data = model.values[name]
    model.values[name] = (
        number,
        _replaced(data, (VALUE_TYPE, TYPE_TENSOR, TENSOR_TYPE_ELEMENT), kind),
    )


def _replaced(data: bytes, path: tuple[int, ...], value: int) -> bytes:
    parts = []
    for number, inner, whole in fields(data):
        if number != path[0]:
            parts.append(whole)
        elif isinstance(inner, bytes):
            parts.append(_field(number, _replaced(inner, path[1:], value)))
        else:
            parts.append(_key(number, VARINT) + _number(value))
    return b"".join(parts)


def _node(data: bytes) -> Node:
    node = Node("", [], [], {})
    for number, value, _ in fields(data):
        if not isinstance(value, bytes):
            continue
        if number == NODE_ATTRIBUTE:
            name, content = _attribute(value)
            if content is not None:
                node.attributes[name] = content
        elif number == NODE_INPUT:
            node.inputs.append(value.decode())
        elif number == NODE_OUTPUT:
            node.outputs.append(value.decode())
        elif number == NODE_NAME:
            node.name = value.decode()
        elif number == NODE_OP:
            node.op = value.decode()
        elif number == NODE_DOMAIN:
            node.domain = value.decode()
    return node


def _attribute(data: bytes) -> tuple[str, int | float | str | None]:
    found = {number: value for number, value, _ in fields(data)}
    name, kind = found.get(ATTRIBUTE_NAME, b""), found.get(ATTRIBUTE_TYPE)
    assert isinstance(name, bytes)
    if kind == TYPE_INT:
        whole = found.get(ATTRIBUTE_INT, 0)
        assert isinstance(whole, int)
        return name.decode(), whole - (1 << 64) if whole >> 63 else whole
    if kind == TYPE_FLOAT:
        single = found.get(ATTRIBUTE_FLOAT, bytes(4))
        assert isinstance(single, bytes)
        return name.decode(), struct.unpack("<f", single)[0]
    if kind == TYPE_STRING:
        text = found.get(ATTRIBUTE_STRING, b"")
        assert isinstance(text, bytes)
        return name.decode(), text.decode()
    return name.decode(), None


def _constant(data: bytes) -> tuple[str, Constant]:
    dims: list[int] = []
    name, kind, raw = "", 0, b""
    for number, value, _ in fields(data):
        if number == TENSOR_DIMS:
            dims += [value] if isinstance(value, int) else list(varints(value))
        elif number == TENSOR_TYPE and isinstance(value, int):
            kind = value
        elif number == TENSOR_NAME and isinstance(value, bytes):
            name = value.decode()
        elif number == TENSOR_RAW and isinstance(value, bytes):
            raw = value
    return name, Constant(tuple(dims), kind, raw)


def write_model(model: Model, nodes: list[bytes], domain: str | None) -> bytes:
    """The model with these nodes, as `node_field` makes them, and an operator set of version 1 of
    `domain`, where it needs one that it did not have.
    """
    values = [_field(number, data) for number, data in model.values.values()]
    graph = _field(MODEL_GRAPH, b"".join([*nodes, *model.graph_rest, *values]))
    if domain is None:
        return b"".join([*model.rest, graph])
    opset = _field(MODEL_OPSET, _field(1, domain.encode()) + _key(2, VARINT) + _number(1))
    return b"".join([*model.rest, opset, graph])


def constant_field(name: str, constant: Constant) -> bytes:
    """An initializer whose bytes lie in the file itself, as a field of its graph."""
    parts = [_key(TENSOR_DIMS, VARINT) + _number(dim) for dim in constant.dims]
    parts.append(_key(TENSOR_TYPE, VARINT) + _number(constant.type))
    parts += [_field(TENSOR_NAME, name.encode()), _field(TENSOR_RAW, constant.raw)]
    return _field(GRAPH_INITIALIZER, b"".join(parts))


def node_field(node: Node) -> bytes:
    """A node as a field of its graph."""
    parts = [_field(NODE_INPUT, name.encode()) for name in node.inputs]
    parts += [_field(NODE_OUTPUT, name.encode()) for name in node.outputs]
    parts += [_field(NODE_NAME, node.name.encode()), _field(NODE_OP, node.op.encode())]
    for name, value in node.attributes.items():
        content = _field(ATTRIBUTE_NAME, name.encode()) + _attribute_value(value)
        parts.append(_field(NODE_ATTRIBUTE, content))
    parts.append(_field(NODE_DOMAIN, node.domain.encode()))
    return _field(GRAPH_NODE, b"".join(parts))


def _attribute_value(value: int | float | str) -> bytes:
    if isinstance(value, int):
        kind, data = TYPE_INT, _key(ATTRIBUTE_INT, VARINT) + _number(value & (1 << 64) - 1)
    elif isinstance(value, float):
        kind, data = TYPE_FLOAT, _key(ATTRIBUTE_FLOAT, FIXED32) + struct.pack("<f", value)
    else:
        kind, data = TYPE_STRING, _field(ATTRIBUTE_STRING, value.encode())
    return data + _key(ATTRIBUTE_TYPE, VARINT) + _number(kind)


def _field(number: int, data: bytes) -> bytes:
    return _key(number, BYTES) + _number(len(data)) + data


def _key(number: int, kind: int) -> bytes:
    return _number(number << 3 | kind)


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
