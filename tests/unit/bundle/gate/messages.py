"""Messages of ONNX files, made by hand."""

from __future__ import annotations

from gpt_edge.bundle.gate.limits import FLOAT32
from tests.unit.bundle.gate.wire import field

# fields of onnx.proto3
IR, PRODUCER, VERSION, GRAPH, OPSET, NOTES = 1, 2, 3, 7, 8, 14
NODE, TITLE, INITIALIZER, INPUT, OUTPUT, HINT = 1, 2, 5, 11, 12, 13


def opset(domain: str, version: int) -> bytes:
    return field(OPSET, field(1, domain) + field(2, version))


def shape(*dims: int | str | None) -> bytes:
    """Of a declared value: known sizes, named ones and open ones."""
    parts = (b"" if dim is None else field(1 if isinstance(dim, int) else 2, dim) for dim in dims)
    return field(1, *parts)


def declared(name: str, kind: int = FLOAT32, dims: bytes | None = None) -> bytes:
    """A value's name and type."""
    inner = field(1, kind) + (b"" if dims is None else field(2, dims))
    return field(1, name) + field(2, field(1, inner))


def node(op: str = "Add", **parts: bytes) -> bytes:
    """A node of two inputs, an output and a name, which parts may replace."""
    given = {
        "inputs": field(1, "a", "b"),
        "outputs": field(2, "c"),
        "name": field(3, "n"),
        "ops": field(4, op),
        "attributes": b"",
        "domain": b"",
    }
    return b"".join({**given, **parts}.values())


def attribute(name: str, kind: int, content: bytes) -> bytes:
    return field(1, name) + content + field(20, kind)


def model(content: bytes = b"", **parts: bytes) -> bytes:
    given = {
        "ir": field(IR, 10),
        "producer": field(PRODUCER, "me") + field(VERSION, "1"),
        "graph": field(GRAPH, field(TITLE, "g") + content),
        "opsets": opset("", 23),
        "notes": field(NOTES, field(1, "k") + field(2, "v")),
    }
    return b"".join({**given, **parts}.values())
