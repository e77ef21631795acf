"""The wire format of protobuf, beside an encoder that is slow and obvious."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_edge.bundle.onnx_wire import (
    MOST_FIELDS,
    fields,
    leading_texts,
    sort_texts,
    split,
    varint,
    varints,
)
from tests.unit.bundle.gate import wire

SIZES = (0, 1, 126, 127, 128, 129, 255, 256, 300)
NUMBERS = (0, 1, 127, 128, 300, (1 << 14) - 1, 1 << 14, 1 << 63, (1 << 64) - 1)
FIELDS = (1, 2, 14, 15, 16, 17, 20, 34)
PARTS = st.lists(
    st.tuples(st.sampled_from(FIELDS), st.sampled_from(NUMBERS) | st.sampled_from(SIZES).map(bytes))
    # no field of four bytes that a graph may have has a number above 15
    | st.tuples(st.sampled_from(FIELDS[:4]), st.just(0.5)),
    max_size=5,
)
TEXTS = st.lists(st.tuples(st.sampled_from(FIELDS), st.sampled_from(SIZES).map(bytes)), max_size=5)
CUT = "cut off|reaches beyond|does not end"
KINDS = {int: 0, bytes: 2, float: 5}
Part = tuple[int, int | bytes | float]


def key_of(part: Part) -> int:
    return part[0] << 3 | KINDS[type(part[1])]


def value_of(part: Part) -> int | bytes:
    value = part[1]
    return wire.field(1, value)[1:] if isinstance(value, float) else value


def joined(parts: list[Part]) -> tuple[bytes, list[int]]:
    """The message, and where its fields end."""
    message, ends = b"", [0]
    for number, value in parts:
        message += wire.field(number, value)
        ends.append(len(message))
    return message, ends


def cuts(ends: list[int]) -> set[int]:
    """Places in a message near the ends of its fields, where it can be cut."""
    near = {end + by for end in ends for by in (-3, -2, -1, 0, 1, 2, 3, 100)}
    return {at for at in near if 0 <= at < ends[-1]}


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_is_read_from_where_it_stands(number: int) -> None:
    data = wire.varint(number)
    for kind in (bytes, memoryview):
        assert varint(kind(b"\x80" + data + b"\x07"), 1) == (number, 1 + len(data))
    for end in range(len(data)):
        with pytest.raises(ValueError, match="does not end"):
            varint(data[:end], 0)


def test_numbers_of_a_packed_list_are_all_read() -> None:
    assert list(varints(b"".join(map(wire.varint, NUMBERS)))) == list(NUMBERS)
    assert list(varints(b"")) == []


def test_a_number_has_at_most_ten_bytes() -> None:
    assert varint(b"\xff" * 9 + b"\x01", 0) == ((1 << 64) - 1, 10)
    with pytest.raises(ValueError, match="does not end"):
        varint(b"\x80" * 10 + b"\x00", 0)


@given(PARTS)
def test_fields_are_those_that_were_written(parts: list[Part]) -> None:
    message, ends = joined(parts)
    for kind in (bytes, memoryview):
        found = [(number, value, bytes(whole)) for number, value, whole in fields(kind(message))]
        wanted = [(part[0], value_of(part), wire.field(*part)) for part in parts]
        assert found == wanted
        pairs = split(kind(message), set(map(key_of, parts)))
        assert pairs == [(key_of(part), value_of(part)) for part in parts]
    for end in cuts(ends):
        if end in ends:
            assert len(list(fields(message[:end]))) == ends.index(end)
            continue
        for read in (
            lambda cut: list(fields(cut)),
            lambda cut: split(cut, set(map(key_of, parts))),
        ):
            with pytest.raises(ValueError, match=CUT):
                read(message[:end])


@given(TEXTS)
def test_texts_are_sorted_by_their_keys(parts: list[Part]) -> None:
    message, ends = joined(parts)
    found: dict[int, list[bytes]] = {key_of(part): [] for part in parts}
    sort_texts(message, {key: texts.append for key, texts in found.items()})
    for key, texts in found.items():
        assert texts == [value for number, value in parts if number << 3 | 2 == key]
    for end in cuts(ends).difference(ends):
        with pytest.raises(ValueError, match=CUT):
            sort_texts(message[:end], {key: [].append for key in found})


@given(TEXTS, st.integers(0, 2))
def test_leading_texts_end_where_a_field_is_another(parts: list[Part], n_known: int) -> None:
    message, ends = joined(parts)
    known = {number << 3 | 2 for number in FIELDS[:n_known]}
    found: dict[int, list[bytes]] = {key: [] for key in known}
    at = leading_texts(message, found)
    n_leading = 0
    for part in parts if len(message) <= 2 * MOST_FIELDS else ():
        if key_of(part) not in known or len(value_of(part)) > 127:  # type: ignore[arg-type]
            break
        n_leading += 1
    assert at == ends[n_leading]
    for key, texts in found.items():
        assert texts == [value for number, value in parts[:n_leading] if number << 3 | 2 == key]
    for end in cuts(ends) & set(range(at)):  # a field that is cut is left
        lists: dict[int, list[bytes]] = {key: [] for key in known}
        assert leading_texts(message[:end], lists) == max(stop for stop in ends if stop <= end)


def test_leading_texts_have_sizes_of_one_byte() -> None:
    for size, at in ((127, 129), (128, 0), (129, 0), (300, 0)):
        found: list[bytes] = []
        assert leading_texts(wire.field(1, bytes(size)), {10: found}) == at
        assert found == [bytes(size)] * (at > 0)


def test_fields_of_eight_bytes_are_passed_over() -> None:
    message = bytes((1 << 3 | 1, *range(8))) + wire.field(2, 7)
    assert [(number, value) for number, value, _ in fields(message)] == [
        (1, bytes(range(8))),
        (2, 7),
    ]
    for kind in (3, 4, 6, 7):
        with pytest.raises(ValueError, match=f"no kind {kind}"):
            list(fields(bytes((8 | kind, 1, 2, 3))))


def test_another_field_is_named() -> None:
    for message, words in (
        (wire.field(3, 7), "number 3 and the kind 0"),
        (wire.field(20, b"abc"), "number 20 and the kind 2"),
    ):
        with pytest.raises(ValueError, match=words):
            split(wire.field(1, b"x") + message, {10})
    with pytest.raises(ValueError, match="number 20 and the kind 2"):
        sort_texts(wire.field(1, b"x") + wire.field(20, b"abc"), {10: [].append})


def test_a_message_has_a_largest_number_of_fields() -> None:
    for most in (1, 2, 5):
        message = wire.field(1, *[7] * most)
        assert len(split(message, {8}, most)) == most
        with pytest.raises(ValueError, match=f"more than {most} fields"):
            split(message + wire.field(1, 7), {8}, most)
    # long because of one field, not of many
    assert split(wire.field(1, bytes(99)), {10}, 1) == [(10, bytes(99))]


def test_texts_of_a_long_message_are_counted() -> None:
    message = wire.field(1, *[b""] * MOST_FIELDS)
    found: list[bytes] = []
    sort_texts(message, {10: found.append})
    assert len(found) == MOST_FIELDS
    assert leading_texts(message, {10: []}) == len(message)
    assert leading_texts(message + wire.field(1, b""), {10: []}) == 0
    with pytest.raises(ValueError, match=f"more than {MOST_FIELDS} fields"):
        sort_texts(message + wire.field(1, b""), {10: found.append})
    long = wire.field(1, bytes(600), b"x")
    found.clear()
    sort_texts(long, {10: found.append})
    assert found == [bytes(600), b"x"]
