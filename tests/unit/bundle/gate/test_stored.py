"""Stored tensors of a graph: in it or beside it, and nowhere else."""

from __future__ import annotations

import struct

import pytest

from gpt_edge.bundle.gate.limits import (
    BOOL,
    FLOAT16,
    FLOAT32,
    INT8,
    INT32,
    INT64,
    LARGEST_SCALE,
    MAX_DIMENSION,
    MAX_ELEMENTS,
    MAX_NAME,
    MAX_RANK,
    UINT4,
    UINT8,
    GateError,
)
from gpt_edge.bundle.gate.records import Names, Tensor, data_of, signed, single, text, whole
from gpt_edge.bundle.gate.stored import MAX_NUMBERS, MOST_DIGITS, TensorReader, read_tensor
from gpt_edge.bundle.gate.tensors import (
    SMALL,
    check_floats,
    check_length,
    check_scales,
    check_tensors,
    is_small_float,
)
from tests.unit.bundle.gate.wire import field, varint

DIMS, TYPE, FLOATS, INTS, LONGS, NAME, RAW, EXTERNAL, LOCATION = 1, 2, 4, 5, 7, 8, 9, 13, 14


def place(location: str = "model.data", offset: object = 64, length: object = 24) -> bytes:
    """Where a tensor lies, as exports write it."""
    entries = (("location", location), ("offset", offset), ("length", length))
    return field(EXTERNAL, *(field(1, key) + field(2, str(value)) for key, value in entries))


def beside(name: str = "w", *dims: int, kind: int = FLOAT32, at: bytes | None = None) -> bytes:
    parts = field(DIMS, *dims) + field(TYPE, kind) + field(NAME, name)
    return parts + (place() if at is None else at) + field(LOCATION, 1)


def inside(*dims: int, kind: int = INT64, data: bytes = b"") -> bytes:
    return field(DIMS, *dims) + field(TYPE, kind) + field(NAME, "w") + data


def refused(data: bytes, words: str) -> None:
    with pytest.raises(GateError, match=words):
        read_tensor(data)


LONG = struct.pack("<2q", 7, -2)
MADE = [
    (inside(2, data=field(RAW, LONG)), Tensor("w", INT64, (2,), LONG)),
    (inside(2, data=field(LONGS, varint(7) + varint(-2))), Tensor("w", INT64, (2,), LONG)),
    (inside(2, kind=INT32, data=field(INTS, varint(7) + varint(-2))),
     Tensor("w", INT32, (2,), struct.pack("<2i", 7, -2))),
    (inside(2, kind=INT8, data=field(INTS, varint(7) + varint(-2))),
     Tensor("w", INT8, (2,), bytes((7, 254)))),
    (inside(2, kind=UINT8, data=field(INTS, varint(7) + varint(255))),
     Tensor("w", UINT8, (2,), bytes((7, 255)))),
    (inside(1, kind=BOOL, data=field(INTS, varint(1))), Tensor("w", BOOL, (1,), b"\x01")),
    (inside(1, kind=FLOAT32, data=field(FLOATS, struct.pack("<f", 0.5))),
     Tensor("w", FLOAT32, (1,), struct.pack("<f", 0.5))),
    (inside(0), Tensor("w", INT64, (0,), b"")),
    (field(DIMS, varint(2) + varint(3)) + field(TYPE, FLOAT32), Tensor("", FLOAT32, (2, 3), b"")),
    (inside(*[1] * MAX_RANK, data=field(RAW, bytes(8))),
     Tensor("w", INT64, (1,) * MAX_RANK, bytes(8))),
    (inside(MAX_DIMENSION - 1, kind=UINT8), Tensor("w", UINT8, (MAX_DIMENSION - 1,), b"")),
    (beside("w", 2, 3), Tensor("w", FLOAT32, (2, 3), None, "model.data", 64, 24)),
    (beside("w", 6, at=place(offset=0, length=1)),
     Tensor("w", FLOAT32, (6,), None, "model.data", 0, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("data", "tensor"), MADE)
def test_a_tensor_is_what_its_fields_say(data: bytes, tensor: Tensor) -> None:
    assert read_tensor(data) == tensor
    found = read_tensor(memoryview(data))
    assert found.data is None or bytes(found.data) == tensor.data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (inside(2, data=field(RAW, LONG, LONG)), "a field twice"),
        (inside(*[1] * (MAX_RANK + 1)), "too many dimensions"),
        (field(DIMS, bytes(MAX_RANK + 1)) + field(TYPE, 1), "too many dimensions"),
        (inside(2, kind=8), "a type or a size"),
        (inside(2, kind=0), "a type or a size"),
        (inside(MAX_DIMENSION), "a type or a size"),
        (inside(-1), "a type or a size"),
        (inside(2, data=field(RAW, LONG) + field(LONGS, varint(7))), "of another kind"),
        (inside(2, kind=INT64, data=field(INTS, varint(7))), "of another kind"),
        (inside(2, kind=INT64, data=field(FLOATS, bytes(4))), "of another kind"),
        (inside(2, kind=INT32, data=field(LONGS, varint(7))), "of another kind"),
        (inside(2, kind=FLOAT16, data=field(INTS, varint(7))), "of another kind"),
        (inside(2, data=field(LONGS, bytes(MAX_NUMBERS + 1))), "too many numbers"),
        (beside("w", 6, at=place() + field(EXTERNAL, field(1, "offset") + field(2, "1"))),
         "too many dimensions or places"),
        (beside("w", 6, at=field(EXTERNAL, field(1, "offset") + field(2, "1"))), "no place"),
        (beside("w", 6, at=place()[: -len(field(EXTERNAL, field(1, "length") + field(2, "24")))]
         + field(EXTERNAL, field(1, "offset") + field(2, "1"))), "no place, or one twice"),
        (beside("w", 6, at=b""), "no place"),
        (inside(6, kind=FLOAT32, data=place()), "in two places"),
        (inside(6, kind=FLOAT32, data=place() + field(LOCATION, 0)), "in two places"),
        (inside(6, kind=FLOAT32, data=place() + field(LOCATION, 2)), "in two places"),
        (beside("w", 6) + field(RAW, bytes(24)), "in two places"),
        (beside("w", 6) + field(FLOATS, bytes(24)), "in two places"),
        (beside("w", 6, at=place("a\x07")), "no printable text"),
        (beside("w", 6, at=place(offset="x")), "lies at b'x'"),
        (beside("w", 6, at=place(offset="-1")), "lies at b'-1'"),
        (beside("w", 6, at=place(offset="")), "lies at b''"),
        (beside("w", 6, at=place(length="1" * (MOST_DIGITS + 1))), "lies at"),
        (beside("w", 6, at=field(EXTERNAL, field(1, "sha") + field(2, "1"))), "has a place that"),
        (beside("w", 6, at=field(EXTERNAL, field(1, "location") + field(2, "x" * 128))),
         "has a place that"),
        (beside("w", 6, at=field(EXTERNAL, field(1, "offset") + b"\x12\x05123")),
         "has a place that"),
        (beside("w", 6, at=field(EXTERNAL, field(1, "location") + b"\x12\x00" + b"x" * 128)),
         "has a place that"),
        (field(NAME, "w") + field(RAW, bytes(4)), "has a type"),
        (beside("\x07", 6), "no printable text"),
    ],
)  # fmt: skip
def test_a_tensor_that_no_export_writes_is_refused(data: bytes, words: str) -> None:
    refused(data, words)


def test_numbers_up_to_a_limit_may_stand_in_the_graph() -> None:
    found = read_tensor(inside(MAX_NUMBERS, kind=UINT8, data=field(INTS, bytes(MAX_NUMBERS))))
    assert found.data == bytes(MAX_NUMBERS)
    longest = "9" * MOST_DIGITS
    assert read_tensor(beside("w", 6, at=place(length=longest))).length == int(longest)
    named = read_tensor(beside("w", 6, at=place("x" * 127)))
    assert named.location == "x" * 127


@pytest.mark.parametrize("location", ["model.data", "x" * 79, "x" * 80, "x" * 81, "x" * 127])
def test_tensors_of_one_file_are_read_alike(location: str) -> None:
    """The second and later ones are cut where the file's name stands."""
    for name in ("v", "B", "layer.B.weight", "x" * 126, "x" * 127, "x" * 128, "x" * 300):
        for offset, length in ((0, 1), (64, 24), (10**9, 10**6), (10 ** (MOST_DIGITS - 1), 7)):
            for dims in ((), (6,), (66, 3), (5, 128, 1 << 20)):
                names = Names()
                reader = TensorReader(names)
                reader.read(beside("first", 6, at=place(location)))
                data = beside(name, *dims, kind=UINT8, at=place(location, offset, length))
                wanted = Tensor(name, UINT8, dims, None, location, offset, length)
                assert reader.read(data) == wanted == read_tensor(data)
                assert names == ["first", name]
                elsewhere = beside(name, *dims, at=place("other", offset, length))
                assert reader.read(elsewhere) == read_tensor(elsewhere)
                stored = inside(2, data=field(RAW, LONG))
                assert reader.read(stored) == read_tensor(stored)


def test_a_tensor_of_the_same_file_is_read_the_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_quick(*arguments: object) -> None:
        raise AssertionError("read field by field")

    for location in ("d", "model.data", "x" * 114, "x" * 115, "é" * 57):
        reader = TensorReader(Names())
        reader.read(beside("first", 6, at=place(location)))
        reader.read(inside(2, data=field(RAW, LONG)))  # the file is the same behind it
        with monkeypatch.context() as patched:
            patched.setattr(reader, "_by_fields", not_quick)
            for name in ("", "w", "é", "x" * 126, "x" * 127):
                for number in (0, 9, 10, 4096, 10**MOST_DIGITS - 1):
                    data = beside(name, 3, 2, kind=UINT8, at=place(location, number, number))
                    wanted = Tensor(name, UINT8, (3, 2), None, location, number, number)
                    assert reader.read(data) == wanted
    long = TensorReader(Names())
    long.read(beside("first", 6, at=place("x" * 116)))
    # what would be the field of a file of 116 bytes, if its size had one byte
    cut = field(TYPE, UINT8) + field(NAME, "w") + b"j\x80\n\x08location\x12t" + b"x" * 116
    with pytest.raises(ValueError, match=r"reaches beyond|cut off|no place"):
        long.read(cut + place("")[16:] + field(LOCATION, 1))


@pytest.mark.parametrize("n_bytes", [126, 127, 128])
def test_a_long_name_is_not_taken_for_a_short_one(n_bytes: int) -> None:
    reader = TensorReader(Names())
    reader.read(beside("first", 6))
    kind = field(DIMS, 6) + field(TYPE, FLOAT32)
    for named in (b"B\x80 " + b"x" * n_bytes, b"", b"B", b"B\x01"):
        data = kind + named + place() + field(LOCATION, 1)
        if not named:
            assert reader.read(data).name == ""
            continue
        with pytest.raises(ValueError, match=r"cut off|reaches beyond|kind|twice"):
            reader.read(data)


def test_packed_dimensions_are_all_counted() -> None:
    for size in (b"\x07", b"\x87" + b"\x80" * 8 + b"\x00", varint((1 << 30) + 7)):
        most = read_tensor(field(DIMS, size * MAX_RANK) + field(TYPE, UINT8))
        assert len(most.dims) == MAX_RANK
        assert {dim % (1 << 30) for dim in most.dims} == {7}
        with pytest.raises(ValueError, match=r"too many dimensions|does not end"):
            read_tensor(field(DIMS, size * (MAX_RANK + 1)) + field(TYPE, UINT8))


def test_what_is_refused_field_by_field_is_refused_behind_another_tensor() -> None:
    for data in (
        beside("w", *[1] * (MAX_RANK + 1)),
        beside("w", MAX_DIMENSION),
        beside("w", 6, kind=8),
        beside("w", 6) + field(RAW, bytes(24)),
        beside("w", 6) + field(LOCATION, 1),
        beside("w", 6, at=place(length="1" * (MOST_DIGITS + 1))),
        beside("w", 6, at=place(length="x1")),
        beside("w", 6)[:-1] + b"\x02",
        field(DIMS, 6) + field(NAME, "w") + place() + field(LOCATION, 1),
    ):
        reader = TensorReader(Names())
        reader.read(beside("first", 6))
        for read in (reader.read, read_tensor):
            with pytest.raises(GateError):
                read(data)
    right = TensorReader(Names())
    right.read(beside("first", 6))
    with pytest.raises(ValueError, match="number 3 and the kind 0"):
        right.read(field(3, 1) + beside("w", 6))
    most = beside("w", *[1] * MAX_RANK, at=place(length=4))
    assert right.read(most).dims == (1,) * MAX_RANK


def tensor(name: str, offset: int, length: int, location: str = "d") -> Tensor:
    return Tensor(name, UINT8, (length,), None, location, offset, length)


def check(*tensors: Tensor) -> None:
    check_tensors(tensors, {"d": 100, "e": 10}, {"d", "e", "f"})


def test_tensors_lie_apart_or_are_the_same_bytes() -> None:
    check(tensor("a", 0, 40), tensor("b", 40, 60), tensor("c", 40, 60), tensor("e", 0, 10, "e"))
    check(tensor("a", 90, 10), tensor("b", 0, 90))
    check(tensor("a", 0, 0), Tensor("b", UINT8, (2,), bytes(2)))
    for first, second in (((0, 41), (40, 10)), ((40, 10), (49, 1)), ((0, 10), (0, 11))):
        with pytest.raises(GateError, match="overlap"):
            check(tensor("a", *first), tensor("b", *second))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([tensor("", 0, 1)], "comes twice, or has no name"),
        ([tensor("a", 0, 1), tensor("a", 1, 1)], "comes twice"),
        ([tensor("a", 0, 101)], "ends at byte 101"),
        ([tensor("a", 100, 1)], "ends at byte 101"),
        ([tensor("a", 0, 11, "e")], "ends at byte 11"),
        ([tensor("a", 0, 1, "f")], "no file of the bundle"),
        ([tensor("a", 0, 1, "g")], "no file of the bundle"),
        ([Tensor("a", UINT8, (3,), None, "d", 0, 2)], "takes 3"),
        ([Tensor("a", UINT8, (3,), bytes(4))], "takes 3"),
    ],
)
def test_a_tensor_lies_in_a_file_of_the_bundle(bad: list[Tensor], words: str) -> None:
    with pytest.raises(GateError, match=words):
        check(*bad)
    with pytest.raises(GateError, match="no file of the bundle"):
        check_tensors([tensor("a", 0, 1, "d")], {"d": 100}, {"e"})


def test_a_tensor_is_as_long_as_its_shape() -> None:
    for dims, kind, size in (
        ((3,), UINT4, 2),
        ((4,), UINT4, 2),
        ((5, 3), FLOAT32, 60),
        ((), INT64, 8),
        ((0,), INT64, 0),
        ((2,), FLOAT16, 4),
    ):
        check_length(Tensor("a", kind, dims, bytes(size)))
        for other in {size - 1, size + 1} - {-1}:
            with pytest.raises(GateError, match=f"takes {size}"):
                check_length(Tensor("a", kind, dims, bytes(other)))
            with pytest.raises(GateError, match=f"takes {size}"):
                check_length(Tensor("a", kind, dims, None, "d", 0, other))
    check_length(Tensor("a", UINT8, (MAX_ELEMENTS,), None, "d", 0, MAX_ELEMENTS))
    with pytest.raises(GateError, match="takes"):
        check_length(Tensor("a", UINT8, (MAX_ELEMENTS + 1,), None, "d", 0, MAX_ELEMENTS + 1))


def test_scales_and_floats_are_looked_at_by_their_last_bytes() -> None:
    for last in range(256):
        for at in range(3):
            data = bytes(8 * at + 3) + bytes((last,)) + bytes(8 - 4)
            if last & 0x7F > LARGEST_SCALE:
                with pytest.raises(GateError, match="too large"):
                    check_scales("s", data)
            else:
                check_scales("s", data)
            if last & 0x7F == 0x7F:
                with pytest.raises(GateError, match="infinite"):
                    check_floats("s", data)
            else:
                check_floats("s", data)
    check_scales("s", b"\xff\xff\xff\x00" * 3)
    check_floats("s", b"\xff\xff\xff\x00" * 3)


def test_small_tables_of_floats_are_looked_at() -> None:
    assert is_small_float(Tensor("a", FLOAT32, (SMALL,), None))
    assert not is_small_float(Tensor("a", FLOAT32, (SMALL + 1,), None))
    assert not is_small_float(Tensor("a", FLOAT16, (2,), None))


def test_names_are_printable_and_short() -> None:
    for good in (b"", b"x" * MAX_NAME, "é\u4e2d".encode(), memoryview(b"ab")):
        assert text(good) == bytes(good).decode()
    for bad, words in (
        (7, "a name is a number"),
        (b"x" * (MAX_NAME + 1), "has 513 bytes"),
        (b"\x1b[2J", "no printable text"),
        (b"\xff", "no printable text"),
        ("\u202e".encode(), "no printable text"),
        ("\ufffd\u4e2d".encode(), "no printable text"),
    ):
        with pytest.raises(GateError, match=words):
            text(bad)
        if isinstance(bad, bytes) and bad != b"\xff":
            with pytest.raises(GateError, match=words):
                Names(["fine", bad.decode()]).check()
    Names(["fine", "x" * MAX_NAME, "é"]).check()
    Names().check()


def test_fields_are_of_one_kind_and_come_once() -> None:
    assert single([(1, "a"), (2, "b"), (3, "c"), (2, "d")], {2}) == {1: "a", 2: ["b", "d"], 3: "c"}
    with pytest.raises(GateError, match="comes twice"):
        single([(1, "a"), (1, "a")], {2})
    assert (whole(7), data_of(b"x"), data_of(memoryview(b"x"))) == (7, b"x", b"x")
    with pytest.raises(GateError, match="is no number"):
        whole(b"7")
    with pytest.raises(GateError, match="expected text"):
        data_of(7)
    values = (0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
    assert [signed(value) for value in values] == [0, 1, (1 << 63) - 1, -(1 << 63), -1]
