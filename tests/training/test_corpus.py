from __future__ import annotations

import gzip
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_edge.errors import TrainingError
from gpt_edge.training import corpus
from gpt_edge.training.corpus import IGNORED, Batches, IntArray, pack_rows, read_documents

END = 0


def documents(lengths: list[int]) -> list[IntArray]:
    """Document i is `END, (i * 1000 + 1), (i * 1000 + 2), …, END`: every token tells where it comes from."""
    return [np.array([END, *range(i * 1000 + 1, i * 1000 + 1 + n), END]) for i, n in enumerate(lengths)]


def targets_of(some: list[IntArray]) -> Counter[int]:
    return Counter(int(token) for document in some for token in document[1:])


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40), n_tokens=st.integers(1, 50), seed=st.integers(0, 9)
)
def test_packing_makes_every_token_a_target_once_after_its_own_past(
    lengths: list[int], n_tokens: int, seed: int
) -> None:
    some = documents(lengths)
    inputs, targets = pack_rows(some, n_tokens, (seed, 1))
    assert Counter(targets[targets != IGNORED].tolist()) == targets_of(some)
    for token, before in zip(targets.ravel(), inputs.ravel(), strict=True):
        if token > 0 and token % 1000 > 1:
            assert before == token - 1
        elif token > 0:
            assert before == END


def test_documents_that_fit_are_never_cut() -> None:
    some = documents([5, 9, 3, 7, 2, 12, 4])
    inputs, _ = pack_rows(some, 16, (3, 1))
    rows = ["," + ",".join(map(str, row)) + "," for row in inputs.tolist()]
    for document in some:
        piece = "," + ",".join(map(str, document[:-1].tolist())) + ","
        assert sum(piece in row for row in rows) == 1


def test_packing_leaves_little_room() -> None:
    lengths = np.random.default_rng(0).integers(20, 300, size=400).tolist()
    _, targets = pack_rows(documents(lengths), 512, (1, 1))
    assert (targets == IGNORED).mean() < 0.05


def test_epochs_differ_and_the_same_seed_repeats_them() -> None:
    some = documents(list(range(5, 40)))
    one, two = Batches(some, 128, seed=1), Batches(some, 128, seed=1)
    first = [one.next(64)[0].numpy().copy() for _ in range(20)]
    assert all(np.array_equal(batch, two.next(64)[0]) for batch in first)
    assert one.epoch > 1
    assert not np.array_equal(first[0], Batches(some, 128, seed=2).next(64)[0])


def test_seek_goes_on_where_the_other_stood() -> None:
    some = documents(list(range(5, 40)))
    one, two = Batches(some, 128, seed=1), Batches(some, 128, seed=1)
    for _ in range(7):
        one.next(64)
    two.seek(one.epoch, one.cursor, one.row_tokens)
    for row_tokens in (64, 64, 32, 32, 64):
        assert np.array_equal(one.next(row_tokens)[1], two.next(row_tokens)[1])


def test_seek_can_go_to_before_the_first_batch() -> None:
    some = documents(list(range(5, 40)))
    one, two = Batches(some, 128, seed=1), Batches(some, 128, seed=1)
    two.seek(one.epoch, one.cursor, one.row_tokens)
    assert np.array_equal(one.next(64)[0], two.next(64)[0])


def test_too_little_text_for_a_batch_is_said() -> None:
    with pytest.raises(TrainingError, match="fills 1 rows of 64 tokens, a batch wants 4"):
        Batches(documents([5]), 256, seed=1).next(64)


def test_plain_and_gzip_give_the_same_documents(tmp_path: Path) -> None:
    text = "One.\nTwo.\n<|endoftext|>\n\n<|endoftext|>\r\n  Three é.\r\n<|endoftext|>\n"
    (tmp_path / "a.txt").write_bytes(text.encode())
    (tmp_path / "a.gz").write_bytes(gzip.compress(text.encode()))
    assert read_documents(tmp_path / "a.txt", "<|endoftext|>") == ["One.\nTwo.", "  Three é."]
    assert read_documents(tmp_path / "a.gz", "<|endoftext|>") == ["One.\nTwo.", "  Three é."]


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "holds no text"),
        (b"\n<|endoftext|>\n", "holds no text"),
        (b"abc \xff", "is not UTF-8"),
        (gzip.compress(b"abc" * 100)[:-9], "damaged gzip"),
        (b"\x1f\x8b" + b"\0" * 30, "damaged gzip"),
    ],
)
def test_a_text_that_is_none_is_refused(tmp_path: Path, content: bytes, wanted: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(TrainingError, match=wanted):
        read_documents(tmp_path / "a.txt", "<|endoftext|>")


def test_a_missing_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"cannot read the text .*No such file"):
        read_documents(tmp_path / "none.txt", "<|endoftext|>")


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(TrainingError, match="is not a regular file"):
            read_documents(path, "<|endoftext|>")


def test_a_text_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "MAX_TEXT_BYTES", 1 << 20)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"a" * (2 << 20)))
    with pytest.raises(TrainingError, match="holds more than 1 MiB"):
        read_documents(tmp_path / "bomb.gz", "<|endoftext|>")
