"""The gate's quick readers say of every damaged message what reading field by field says."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.bundle.gate import proto
from gpt_edge.bundle.gate.records import Names
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


def test_a_tensor_is_what_its_fields_say() -> None:
    n_right = n_refused = 0
    for message in messages("tensors"):
        for changed in (message, *damaged(message)):
            reader = TensorReader(Names())
            found = outcome(reader.read, changed)
            assert found == outcome(reader._by_fields, changed), changed
            n_refused += found == "refused"
            n_right += found != "refused"
    assert n_right > 500
    assert n_refused > 500


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
