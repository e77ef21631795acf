"""A graph taken apart, strictly: a field that gpt-edge's exports never have, one that comes twice,
a name that is not plain text and a number out of range are refused.

Numbers of fields: onnx.proto3 of the ONNX specification; a key is 8 times the number of the field
plus the kind of its value.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from gpt_edge.bundle.gate.limits import (
    BITS_OF,
    MAX_CONTENT,
    MAX_DIMENSION,
    MAX_RANK,
    GateError,
    shown,
)
from gpt_edge.bundle.gate.records import (
    Attribute,
    Declared,
    Dims,
    Graph,
    Names,
    Node,
    all_of,
    data_of,
    signed,
    single,
    text,
    whole,
)
from gpt_edge.bundle.gate.stored import TensorReader, read_tensor
from gpt_edge.bundle.onnx_wire import leading_texts, sort_texts, split, varint, varints

# keys of fields; those of a set may come many times
IR_VERSION, PRODUCER, PRODUCER_VERSION, GRAPH, OPSET, MODEL_NOTES = 8, 18, 26, 58, 66, 114
MODEL_FIELDS = {IR_VERSION, PRODUCER, PRODUCER_VERSION, GRAPH, OPSET, MODEL_NOTES}
NODE, GRAPH_NAME, INITIALIZER, INPUT, OUTPUT, VALUE_INFO = 10, 18, 42, 90, 98, 106
GRAPH_FIELDS = {NODE, GRAPH_NAME, INITIALIZER, INPUT, OUTPUT, VALUE_INFO}
NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_OP, ATTRIBUTE, NODE_DOMAIN = 10, 18, 26, 34, 42, 58
NODE_FIELDS = {NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_OP, ATTRIBUTE, NODE_DOMAIN}
A_NAME, A_FLOAT, A_INT, A_TEXT, A_TENSOR, A_INTS, A_INTS_APART, A_TYPE = (
    10,
    21,
    24,
    34,
    42,
    66,
    64,
    160,
)
ATTRIBUTE_FIELDS = {A_NAME, A_FLOAT, A_INT, A_TEXT, A_TENSOR, A_INTS, A_INTS_APART, A_TYPE}
A_GRAPH = 50
# what onnx.AttributeProto.AttributeType calls the kinds, and the field that each has
FIELD_OF_TYPE = {1: A_FLOAT, 2: A_INT, 3: A_TEXT, 4: A_TENSOR, 7: A_INTS}


ORT_MARK = b"ORTM"  # behind the first four bytes of an .ort file
AN_INT, OF_INT = b"\x18", b"\xa0\x01\x02"  # the key of an attribute's int, the field of its type
FIRST, SECOND = 10, 18  # a name, a text or a message in the first fields of a message
MORE_PARTS = 16  # inputs, outputs and declared types for each node of a graph
NUMBER, SECOND_NUMBER = 8, 16


def read_graph(data: bytes, max_parts: int) -> Graph:
    """Take a model apart. Raises GateError for what no export of gpt-edge holds.

    max_parts: how many nodes, and how many initializers, it may have.
    """
    # onnxruntime takes bytes that begin so for its own format, and would not read what is read here
    if data[4:8] == ORT_MARK:
        raise GateError("it has the mark of an .ort file")
    graph = Graph()
    model = single(split(data, MODEL_FIELDS), {OPSET, MODEL_NOTES})
    if not 3 <= whole(model.get(IR_VERSION, 0)) <= 13:
        raise GateError(f"its IR version is {model.get(IR_VERSION)!r:.40}, expected 3 to 13")
    for key in (PRODUCER, PRODUCER_VERSION):
        text(model.get(key, b""))
    for entry in all_of(model, OPSET):
        opset = single(split(entry, {FIRST, SECOND_NUMBER}), set())
        domain = text(opset.get(FIRST, b""))
        if domain in graph.opsets:
            raise GateError(f"the operator set {shown(domain)} comes twice")
        graph.opsets[domain] = whole(opset.get(SECOND_NUMBER, 0))
    for entry in all_of(model, MODEL_NOTES):
        for _, note in split(entry, {FIRST, SECOND}):
            text(note)
    content = model.get(GRAPH)
    if not isinstance(content, bytes):
        raise GateError("it has no graph")
    _read_graph(content, graph, max_parts)
    return graph


def _read_graph(content: bytes, graph: Graph, max_parts: int) -> None:
    reader = Reader()
    declared = {INPUT: graph.inputs, OUTPUT: graph.outputs, VALUE_INFO: graph.hints}
    for key, value in split(content, GRAPH_FIELDS, MORE_PARTS * max_parts):
        if key == NODE:
            graph.nodes.append(reader.node(value))
        elif key == INITIALIZER:
            graph.initializers.append(reader.tensors.read(value))
        elif key == GRAPH_NAME:
            text(value)
        else:
            name, kind = reader.declared(value)
            values = declared[key]
            if name in values:
                raise GateError(f"the value {shown(name)} is declared twice")
            values[name] = kind
    reader.names.check()
    if max(len(graph.nodes), len(graph.initializers)) > max_parts:
        raise GateError(f"it has more than {max_parts} nodes or initializers")


class Reader:
    """Reads the parts of a graph. Layers repeat, so names, types and attributes are read once for
    all that have the same bytes.
    """

    def __init__(self) -> None:
        self.names = Names()  # to be checked when all is read
        self._types = Types()
        self._kinds = Kinds()
        self.tensors = TensorReader(self.names)

    def node(self, data: bytes) -> Node:
        """A node: most begin with what is theirs alone, their inputs, outputs and name, and go on
        with what they share with those of other layers.
        """
        inputs: list[bytes] = []
        outputs: list[bytes] = []
        titles: list[bytes] = []
        at = leading_texts(data, {NODE_INPUT: inputs, NODE_OUTPUT: outputs, NODE_NAME: titles})
        rest = data[at:]
        kind = self._kinds[rest]
        if kind.more:
            inputs += kind.more[NODE_INPUT]
            outputs += kind.more[NODE_OUTPUT]
            titles += kind.more[NODE_NAME]
        if len(titles) > 1:
            raise GateError("a node has two names")
        names = tuple(map(bytes.decode, (*inputs, *outputs, *titles)))
        self.names += names
        n_inputs, n_outputs = len(inputs), len(outputs)
        return Node(
            kind.op,
            kind.domain,
            names[:n_inputs],
            names[n_inputs : n_inputs + n_outputs],
            kind.attributes,
            names[-1] if titles else "",
            rest,
        )

    def declared(self, data: bytes) -> tuple[str, Declared]:
        """A value's name and its type."""
        try:
            end = 2 + data[1]
            is_short = (  # most have a name and a type, both of fewer than 128 bytes
                data[0] == FIRST
                and data[1] < 128
                and data[end] == SECOND
                and data[end + 1] == len(data) - end - 2 < 128
            )
        except IndexError:
            is_short = False
        if not is_short:
            return self._declared_by_fields(data)
        name = data[2:end].decode()
        self.names.append(name)
        return name, self._types[data[end + 2 :]]

    def _declared_by_fields(self, data: bytes) -> tuple[str, Declared]:
        names: list[bytes] = []
        types: list[bytes] = []
        sort_texts(data, {FIRST: names.append, SECOND: types.append})
        if len(names) != 1 or len(types) > 1:
            raise GateError("a value is declared in another way than exports do")
        name = names[0].decode()
        self.names.append(name)
        return name, self._types[types[0] if types else b""]


@dataclass(frozen=True, slots=True)
class Kind:
    """What nodes share. more: inputs, outputs and names that stand behind it, by their keys."""

    op: str
    domain: str
    attributes: Mapping[str, Attribute]
    more: Mapping[int, list[bytes]] | None


class Kinds(dict[bytes, Kind]):
    """Nodes by their bytes from where an operator, a domain or an attribute stands."""

    def __init__(self) -> None:
        self._attributes = Attributes()

    def __missing__(self, data: bytes) -> Kind:
        texts: dict[int, list[bytes]] = {key: [] for key in NODE_FIELDS}
        sort_texts(data, {key: found.append for key, found in texts.items()})
        ops, domains, found = texts.pop(NODE_OP), texts.pop(NODE_DOMAIN), texts.pop(ATTRIBUTE)
        if len(ops) > 1 or len(domains) > 1:
            raise GateError("a node has two operators or domains")
        op, domain = (text(part[0]) if part else "" for part in (ops, domains))
        attributes = dict(self._attributes[part] for part in found)
        if len(attributes) < len(found):
            raise GateError(f"a node of {shown(op)} has an attribute twice")
        self[data] = kind = Kind(op, domain, attributes, texts if any(texts.values()) else None)
        return kind


class Types(dict[bytes, Declared]):
    """Declared types by their bytes: that of a tensor, with a shape or without."""

    def __init__(self) -> None:
        super().__init__({b"": Declared(0, None)})
        self._sizes = Sizes()

    def __missing__(self, data: bytes) -> Declared:
        outer = single(split(data, {FIRST}), set())
        inner = single(split(data_of(outer.get(FIRST, b"")), {NUMBER, SECOND}), set())
        kind = whole(inner.get(NUMBER, 0))
        if kind not in BITS_OF:
            raise GateError(f"a value is declared with the type {kind}")
        dims: Dims | None = None
        if SECOND in inner:
            parts = split(data_of(inner[SECOND]), {FIRST})
            dims = tuple(self._sizes[part] for _, part in parts)
            if len(dims) > MAX_RANK or (dims and max(dims) >= MAX_DIMENSION):
                raise GateError("a value is declared with a shape that exports do not have")
        self[data] = found = Declared(kind, dims)
        return found


class Sizes(dict[bytes, int]):
    """Dimensions of declared shapes by their bytes; -1 for one that has a name or nothing."""

    def __missing__(self, data: bytes) -> int:
        size = single(split(data, {NUMBER, SECOND}), set())
        if SECOND in size:
            text(size[SECOND])
        is_known = NUMBER in size and SECOND not in size
        self[data] = found = whole(size[NUMBER]) if is_known else -1
        return found


class Attributes(dict[bytes, tuple[str, Attribute]]):
    """Names and values of attributes by their bytes."""

    def __missing__(self, data: bytes) -> tuple[str, Attribute]:
        self[data] = found = _attribute(data)
        return found


def _attribute(data: bytes) -> tuple[str, Attribute]:
    end = 2 + int.from_bytes(data[1:2], "big")
    # most have a short name, then an int
    if end > 2 and data[end : end + 1] == AN_INT and data[1] < 128 and data[0] == A_NAME:
        number, last = varint(data, end + 1)
        if data[last:] == OF_INT:
            return text(data[2:end]), signed(number)
    return _attribute_by_fields(data)


def _attribute_by_fields(data: bytes) -> tuple[str, Attribute]:
    parts = single(split(data, ATTRIBUTE_FIELDS), {A_INTS_APART})
    name = text(parts.pop(A_NAME, b""))
    wanted = FIELD_OF_TYPE.get(whole(parts.pop(A_TYPE, 0)))
    if wanted is None or not set(parts) <= {wanted, A_INTS_APART} or not name:
        raise GateError(f"the attribute {shown(name)} is of a kind that exports do not have")
    if wanted != A_INTS and A_INTS_APART in parts:
        raise GateError(f"the attribute {shown(name)} has values of two kinds")
    return name, _attribute_value(parts, wanted)


def _attribute_value(parts: Mapping[int, object], wanted: int) -> Attribute:
    if wanted == A_FLOAT:
        number: float = struct.unpack("<f", data_of(parts.get(A_FLOAT, bytes(4))))[0]
        if not -1e30 < number < 1e30:
            raise GateError("an attribute is no finite number")
        return number
    if wanted == A_INT:
        return signed(whole(parts.get(A_INT, 0)))
    if wanted == A_TEXT:
        return text(parts.get(A_TEXT, b""))
    if wanted == A_TENSOR:
        return read_tensor(data_of(parts.get(A_TENSOR, b"")))
    packed = varints(data_of(parts.get(A_INTS, b"")))
    apart = parts.get(A_INTS_APART, [])
    numbers = [signed(value) for value in packed] + [signed(whole(value)) for value in apart]  # type: ignore[attr-defined]
    if len(numbers) > MAX_CONTENT:
        raise GateError("an attribute lists too many numbers")
    return tuple(numbers)
