"""A graph taken apart: what each field says, and each field that no export writes is refused."""

from __future__ import annotations

import pytest

from gpt_edge.bundle.gate import proto
from gpt_edge.bundle.gate.limits import FLOAT32, INT64, MAX_CONTENT, MAX_NAME, MAX_RANK, GateError
from gpt_edge.bundle.gate.proto import MORE_PARTS, Reader, read_graph
from gpt_edge.bundle.gate.records import Declared, Graph, Node, Tensor
from tests.unit.bundle.gate.messages import (
    GRAPH,
    HINT,
    INITIALIZER,
    INPUT,
    IR,
    NODE,
    NOTES,
    OPSET,
    OUTPUT,
    PRODUCER,
    TITLE,
    VERSION,
    attribute,
    declared,
    model,
    node,
    opset,
    shape,
)
from tests.unit.bundle.gate.wire import field, varint


def refused(data: bytes, words: str, max_parts: int = 10) -> None:
    with pytest.raises(GateError, match=words):
        read_graph(data, max_parts)


def one(data: bytes) -> Node:
    (found,) = read_graph(model(field(NODE, data)), 10).nodes
    return found


def test_a_whole_model_is_read() -> None:
    stored = field(1, 2) + field(2, INT64) + field(8, "t") + field(9, bytes(16))
    graph = (
        field(NODE, node(), node("Mul", domain=field(7, "com.microsoft")))
        + field(INITIALIZER, stored)
        + field(INPUT, declared("x", INT64, shape("batch", 3)))
        + field(OUTPUT, declared("y"))
        + field(HINT, declared("z", dims=b""))
    )
    found = read_graph(model(graph, opsets=opset("", 23) + opset("com.microsoft", 1)), 10)
    first = Node("Add", "", ("a", "b"), ("c",), {}, "n", field(4, "Add"))
    kind = field(4, "Mul") + field(7, "com.microsoft")
    second = Node("Mul", "com.microsoft", ("a", "b"), ("c",), {}, "n", kind)
    assert found == Graph(
        [first, second],
        [Tensor("t", INT64, (2,), bytes(16))],
        {"x": Declared(INT64, (-1, 3))},
        {"y": Declared(FLOAT32, None)},
        {"z": Declared(FLOAT32, ())},
        {"": 23, "com.microsoft": 1},
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (model(ir=field(IR, 2)), "IR version is 2"),
        (model(ir=field(IR, 14)), "IR version is 14"),
        (model(ir=b""), "IR version is None"),
        (model(ir=field(IR, 10, 10)), "comes twice"),
        (model(producer=field(PRODUCER, "a\x1b")), "no printable text"),
        (model(producer=field(VERSION, "a\x1b")), "no printable text"),
        (model(opsets=opset("", 23) + opset("", 23)), "the operator set '' comes twice"),
        (model(opsets=field(OPSET, field(1, "\x07"))), "no printable text"),
        (model(opsets=field(OPSET, field(2, 1, 2))), "comes twice"),
        (model(notes=field(NOTES, field(1, "\x07"))), "no printable text"),
        (model(notes=field(NOTES, field(2, "\x07"))), "no printable text"),
        (model(producer=field(PRODUCER, "ORTM")), "the mark of an .ort file"),
        (model(field(HINT, declared("x" * (MAX_NAME + 1)))), "513 bytes"),
        (model(graph=b""), "it has no graph"),
        (model(graph=field(GRAPH, b"", b"")), "comes twice"),
        (model(field(TITLE, "\x07")), "no printable text"),
        (model(field(INPUT, declared("x"), declared("x"))), "'x' is declared twice"),
        (model(field(NODE, node(name=field(3, "n", "m")))), "two names"),
        (model(field(NODE, node(ops=field(4, "Add", "Mul")))), "two operators"),
        (model(field(NODE, node(domain=field(7, "a", "b")))), "two operators or domains"),
        (model(field(NODE, node(name=field(3, "\x07")))), "no printable text"),
        (model(field(NODE, node(ops=field(4, "\x07")))), "no printable text"),
        (model(field(NODE, node(inputs=field(1, "\x07")))), "no printable text"),
        (model(field(NODE, node(outputs=field(2, "x" * (MAX_NAME + 1))))), "513 bytes"),
        (model(field(INPUT, field(1, "x", "y"))), "in another way"),
        (model(field(INPUT, field(2, b""))), "in another way"),
        (model(field(INPUT, declared("x") + field(2, b""))), "in another way"),
        (model(field(HINT, declared("x", 8))), "with the type 8"),
        (model(field(HINT, declared("x", 0))), "with the type 0"),
        (model(field(HINT, field(1, "x") + field(2, field(1, b"")))), "with the type 0"),
        (model(field(HINT, declared("x", 1, shape(*[1] * (MAX_RANK + 1))))), "with a shape"),
        (model(field(HINT, declared("x", 1, shape(1 << 31)))), "with a shape"),
        (model(field(HINT, declared("x", 1, shape("\x07")))), "no printable text"),
    ],
)
def test_a_model_that_no_export_writes_is_refused(data: bytes, words: str) -> None:
    refused(data, words)


@pytest.mark.parametrize("producer", ["ORT", "ORTm", "oORTM", "xORTM", "RTMORTM"])
def test_the_mark_of_another_format_stands_behind_four_bytes(producer: str) -> None:
    assert read_graph(model(producer=field(PRODUCER, producer)), 10).opsets == {"": 23}
    notes = field(NOTES, field(1, "k"))
    assert read_graph(notes + model(notes=field(NOTES, field(1, "ORTM"))), 10).opsets == {"": 23}


@pytest.mark.parametrize("version", [3, 13])
def test_versions_within_bounds_are_read(version: int) -> None:
    assert read_graph(model(ir=field(IR, version)), 10).opsets == {"": 23}


def test_an_operator_set_without_a_version_has_none() -> None:
    """The version 0, which the gate refuses; MICROSOFT's 1 would pass."""
    opsets = opset("", 23) + field(OPSET, field(1, "com.microsoft"))
    assert read_graph(model(opsets=opsets), 10).opsets == {"": 23, "com.microsoft": 0}


def test_a_value_may_be_an_input_an_output_and_hinted_at() -> None:
    graph = field(INPUT, declared("x")) + field(OUTPUT, declared("x")) + field(HINT, declared("x"))
    found = read_graph(model(graph), 10)
    assert set(found.inputs) == set(found.outputs) == set(found.hints) == {"x"}


@pytest.mark.parametrize(
    ("dims", "sizes"),
    [
        (shape(), ()),
        (shape(0, 1, (1 << 31) - 1), (0, 1, (1 << 31) - 1)),
        (shape("batch", None, 5), (-1, -1, 5)),
        (field(1, field(1, 7) + field(2, "named")), (-1,)),
        (shape(*range(MAX_RANK)), tuple(range(MAX_RANK))),
    ],
)
def test_a_declared_shape_has_known_and_open_sizes(dims: bytes, sizes: tuple[int, ...]) -> None:
    for title in ("x", "x" * 200):  # read quickly, and field by field
        data = declared(title, INT64, dims)
        assert Reader().declared(data) == (title, Declared(INT64, sizes))


def test_a_value_may_be_declared_without_a_type() -> None:
    assert Reader().declared(field(1, "x")) == ("x", Declared(0, None))
    assert Reader().declared(field(2, b"") + field(1, "x")) == ("x", Declared(0, None))


@pytest.mark.parametrize("length", [1, 2, 124, 125, 126, 127, 128, 129, 300])
def test_a_value_of_any_length_is_declared(length: int) -> None:
    title = "x" * length
    assert Reader().declared(declared(title)) == (title, Declared(FLOAT32, None))
    dims = shape("y" * length)
    assert Reader().declared(declared("x", dims=dims)) == ("x", Declared(FLOAT32, (-1,)))


def not_quick(*arguments: object) -> None:
    raise AssertionError("read field by field")


def test_short_declarations_are_read_the_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = shape("y" * 117), shape("y" * 118)
    assert [len(declared("", dims=dims)) - 2 for dims in (short, long)] == [2 + 127, 3 + 128]
    assert Reader().declared(declared("x", dims=long)) == ("x", Declared(FLOAT32, (-1,)))
    monkeypatch.setattr(Reader, "_declared_by_fields", not_quick)
    for title in ("", "x", "é", "x" * 9, "x" * 126, "x" * 127):
        for dims, sizes in ((None, None), (shape(3), (3,)), (short, (-1,))):
            found = Reader().declared(declared(title, dims=dims))
            assert found == (title, Declared(FLOAT32, sizes))
        assert Reader().declared(field(1, title) + field(2, b"")) == (title, Declared(0, None))


def test_short_attributes_are_read_the_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proto, "_attribute_by_fields", not_quick)
    for title in ("x", "é", "x" * 9, "x" * 126, "x" * 127):
        for value in (0, 5, 127, 128, 300, -1, (1 << 63) - 1):
            assert one(
                node(attributes=field(5, attribute(title, 2, field(3, value))))
            ).attributes == {title: value}


@pytest.mark.parametrize("n_bytes", [126, 127, 128])
def test_a_size_of_two_bytes_is_not_taken_for_one(n_bytes: int) -> None:
    """Each begins as a name or a type of 128 bytes and more, and is cut off."""
    name = b"\n\x80 " + b"x" * n_bytes
    for message in (
        name + declared("")[2:],
        b"\n\x01x\x12\x80" + field(1, field(1, FLOAT32) + field(2, shape("y" * (n_bytes - 9)))),
    ):
        with pytest.raises(ValueError, match=r"cut off|reaches beyond|number"):
            Reader().declared(message)
    with pytest.raises(ValueError, match=r"cut off|reaches beyond"):
        one(field(5, name + attribute("", 2, field(3, 7))[2:]))


@pytest.mark.parametrize("data", [b"\n", b"\n\x00", b"\n\x01", b"\n\x01x", b"\n\x01x\x12"])
def test_what_ends_early_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"cut off|reaches beyond|of a kind"):
        one(field(5, data))
    if data == b"\n\x01x":  # a name alone
        assert Reader().declared(data) == ("x", Declared(0, None))
    elif data != b"\n\x00":
        with pytest.raises(ValueError, match=r"cut off|reaches beyond"):
            Reader().declared(data)


def test_a_graph_has_a_largest_number_of_parts() -> None:
    assert len(read_graph(model(field(NODE, *[node()] * 3)), 3).nodes) == 3
    refused(model(field(NODE, *[node()] * 4)), "more than 3 nodes or initializers", 3)
    stored = [
        field(1, 1) + field(2, INT64) + field(8, f"t{i}") + field(9, bytes(8)) for i in "abcd"
    ]
    assert len(read_graph(model(field(INITIALIZER, *stored[:3])), 3).initializers) == 3
    refused(model(field(INITIALIZER, *stored)), "more than 3 nodes or initializers", 3)
    hints = [declared(f"v{number}") for number in range(MORE_PARTS)]
    assert len(read_graph(model(field(HINT, *hints[1:])), 1).hints) == MORE_PARTS - 1
    with pytest.raises(ValueError, match=f"more than {MORE_PARTS} fields"):
        read_graph(model(field(HINT, *hints)), 1)


def test_fields_of_a_node_may_stand_in_any_order() -> None:
    parts = [field(1, "a"), field(2, "c"), field(3, "n"), field(4, "Add"), field(7, "d"), b""]
    for by in range(len(parts)):
        turned = b"".join(parts[by:] + parts[:by])
        found = one(turned + field(1, "b"))
        assert (found.op, found.domain, found.name) == ("Add", "d", "n")
        assert (found.inputs, found.outputs) == (("a", "b"), ("c",))
    bare = one(field(4, "Add"))
    assert (bare.inputs, bare.outputs, bare.name, bare.domain) == ((), (), "", "")
    assert one(b"").op == ""


VALUES = [
    (attribute("f", 1, field(2, 0.5)), 0.5),
    (attribute("f", 1, b""), 0.0),
    (attribute("i", 2, field(3, 7)), 7),
    (attribute("i", 2, field(3, -1)), -1),
    (attribute("i" * 126, 2, field(3, 300)), 300),
    (attribute("i" * 127, 2, field(3, 300)), 300),
    (attribute("i" * 128, 2, field(3, 300)), 300),
    (attribute("i", 2, b""), 0),
    (attribute("s", 3, field(4, "tanh")), "tanh"),
    (attribute("s", 3, b""), ""),
    (attribute("l", 7, field(8, varint(1) + varint(-2) + varint(300))), (1, -2, 300)),
    (attribute("l", 7, field(8, 1, -2)), (1, -2)),
    (attribute("l", 7, field(8, varint(5)) + field(8, 6)), (5, 6)),
    (attribute("l", 7, b""), ()),
    (attribute("l", 7, field(8, bytes(MAX_CONTENT))), (0,) * MAX_CONTENT),
    (
        attribute("t", 4, field(5, field(2, INT64) + field(9, bytes(8)))),
        Tensor("", INT64, (), bytes(8)),
    ),
]


@pytest.mark.parametrize(("data", "value"), VALUES)
def test_an_attribute_has_one_value(data: bytes, value: object) -> None:
    found = one(node(attributes=field(5, data))).attributes
    assert list(found.values()) == [value]
    assert type(*found.values()) is type(value)
    (name,) = found
    assert len(set(name)) == 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (attribute("", 2, field(3, 7)), "of a kind that exports"),
        (attribute("i", 0, field(3, 7)), "of a kind that exports"),
        (attribute("i", 5, field(3, 7)), "of a kind that exports"),
        (attribute("i", 1, field(3, 7)), "of a kind that exports"),
        (attribute("i", 2, field(3, 7) + field(2, 0.5)), "of a kind that exports"),
        (field(1, "i") + field(3, 7), "of a kind that exports"),
        (field(1, "f") + field(2, 0.5), "of a kind that exports"),
        (attribute("i", 2, field(3, 7, 8)), "comes twice"),
        (attribute("i\x07", 2, field(3, 7)), "no printable text"),
        (attribute("i", 2, field(8, 7)), "values of two kinds"),
        (attribute("i", 2, field(3, 7) + field(8, 7)), "values of two kinds"),
        (attribute("f", 1, field(2, float("inf"))), "no finite number"),
        (attribute("f", 1, field(2, float("-inf"))), "no finite number"),
        (attribute("f", 1, field(2, float("nan"))), "no finite number"),
        (attribute("s", 3, field(4, "\x07")), "no printable text"),
        (attribute("l", 7, field(8, bytes(MAX_CONTENT + 1))), "too many numbers"),
        (attribute("l", 7, field(8, bytes(MAX_CONTENT)) + field(8, 1)), "too many numbers"),
    ],
)
def test_an_attribute_that_no_export_writes_is_refused(data: bytes, words: str) -> None:
    refused(model(field(NODE, node(attributes=field(5, data)))), words)


def test_an_attribute_comes_once() -> None:
    same = attribute("i", 2, field(3, 7))
    refused(model(field(NODE, node(attributes=field(5, same, same)))), "an attribute twice")
    other = attribute("j", 2, field(3, 8))
    assert one(node(attributes=field(5, same, other))).attributes == {"i": 7, "j": 8}
