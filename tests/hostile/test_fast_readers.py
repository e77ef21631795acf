"""The gate's quick readers say of every damaged message what reading field by field says."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.gate import proto
from gpt_edge.bundle.gate.records import Names, text
from gpt_edge.bundle.gate.stored import TensorReader
from gpt_edge.bundle.onnx_wire import MOST_FIELDS, sort_texts, split

KINDS = {"tensors": proto.INITIALIZER, "nodes": proto.NODE, "declared values": proto.VALUE_INFO}


def messages(kind: str) -> list[bytes]:
    """The first messages of a kind in the built-in story model, of different lengths."""
    content = dict(split(Bundle.open().model_path.read_bytes(), proto.MODEL_FIELDS))[proto.GRAPH]
    found = [value for key, value in split(content, proto.GRAPH_FIELDS, 9999) if key == KINDS[kind]]
    return list({len(message): message for message in found}.values())[:6]


def damaged(message: bytes) -> Iterator[bytes]:
    """Every byte changed by a little, by a lot, left out, doubled; every cut."""
    for at, byte in enumerate(message):
        for other in (byte ^ 1, byte ^ 0x80, (byte + 2) & 255, 0x6A):
            yield message[:at] + bytes((other,)) + message[at + 1 :]
        yield message[:at] + message[at + 1 :]
        yield message[: at + 1] + message[at:]
        yield message[:at]


def outcome(read: Callable[[bytes], object], message: bytes) -> object:
    try:
        return read(message)
    except ValueError:
        return "refused"


def compare(
    quickly: Callable[[bytes], object], by_fields: Callable[[bytes], object], found: list[bytes]
) -> tuple[int, int]:
    """Every damaged message; returns how many were read, and how many refused."""
    counts = [0, 0]
    for message in found:
        for changed in (message, *damaged(message)):
            expected = outcome(by_fields, changed)
            assert outcome(quickly, changed) == expected, changed
            counts[expected == "refused"] += 1
    return counts[0], counts[1]


def test_a_tensor_is_what_its_fields_say() -> None:
    found = messages("tensors")

    def read(message: bytes, how: str) -> object:
        names = Names()
        reader = TensorReader(names)
        reader.read(found[0])  # of the same file, as one that stands before it
        tensor = getattr(reader, how)(message)
        names.check()
        return tensor

    n_read, n_refused = compare(
        lambda message: read(message, "read"), lambda message: read(message, "_by_fields"), found
    )
    assert min(n_read, n_refused) > 500


def test_a_node_is_what_its_fields_say() -> None:
    def quickly(message: bytes) -> object:
        reader = proto.Reader()
        node = reader.node(message)
        reader.names.check()
        return node.op, node.domain, node.inputs, node.outputs, node.attributes, node.name

    def by_fields(message: bytes) -> object:
        parts = split(message, proto.NODE_FIELDS)
        texts = {
            key: [part for number, part in parts if number == key] for key in proto.NODE_FIELDS
        }
        attributes = [proto._attribute_by_fields(part) for part in texts[proto.ATTRIBUTE]]
        single = [texts[key] for key in (proto.NODE_OP, proto.NODE_DOMAIN, proto.NODE_NAME)]
        if max(map(len, single)) > 1 or len(dict(attributes)) < len(attributes):
            raise ValueError("twice")
        op, domain, name = (text(part[0]) if part else "" for part in single)
        inputs, outputs = (
            tuple(map(text, texts[key])) for key in (proto.NODE_INPUT, proto.NODE_OUTPUT)
        )
        return op, domain, inputs, outputs, dict(attributes), name

    n_read, n_refused = compare(quickly, by_fields, messages("nodes"))
    assert min(n_read, n_refused) > 500


def test_an_attribute_is_what_its_fields_say() -> None:
    parts = [split(message, proto.NODE_FIELDS) for message in messages("nodes")]
    found = {part for fields in parts for key, part in fields if key == proto.ATTRIBUTE}
    n_read, n_refused = compare(proto._attribute, proto._attribute_by_fields, sorted(found))
    assert min(n_read, n_refused) > 100


def test_a_declared_value_is_what_its_fields_say() -> None:
    def read(message: bytes, how: str) -> object:
        reader = proto.Reader()
        declared = getattr(reader, how)(message)
        reader.names.check()
        return declared

    n_read, n_refused = compare(
        lambda message: read(message, "declared"),
        lambda message: read(message, "_declared_by_fields"),
        messages("declared values"),
    )
    assert min(n_read, n_refused) > 100


def sorted_texts(message: bytes) -> list[tuple[int, bytes]]:
    found: dict[int, list[bytes]] = {key: [] for key in proto.NODE_FIELDS}
    sort_texts(message, {key: texts.append for key, texts in found.items()})
    return sorted((key, text) for key, texts in found.items() for text in texts)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_those_of_the_fields(kind: str) -> None:
    def by_fields(message: bytes) -> list[tuple[int, bytes]]:
        return sorted(split(message, proto.NODE_FIELDS))

    for message in messages(kind):
        for changed in (message, *damaged(message), message * 40):
            assert outcome(sorted_texts, changed) == outcome(by_fields, changed), changed


def test_a_message_of_too_many_fields_is_refused_by_both() -> None:
    message = b"\n\x01a" * MOST_FIELDS
    assert len(sorted_texts(message)) == len(split(message, {10})) == MOST_FIELDS
    assert outcome(sorted_texts, message + b"\n\x01a") == "refused"
    assert outcome(lambda data: split(data, {10}), message + b"\n\x01a") == "refused"
