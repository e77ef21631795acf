from __future__ import annotations

import gzip
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_edge.arrays import IntArray
from gpt_edge.errors import TrainingError
from gpt_edge.training.corpus import batches as corpus
from gpt_edge.training.corpus.batches import IGNORED, Batches, join_documents, pack, read_documents
from gpt_edge.training.corpus.shards import documents_of

END = 0


def documents(lengths: list[int]) -> list[IntArray]:
    """Document i is `END, (i * 1000 + 1), (i * 1000 + 2), …, END`: every token tells where it comes
    from.
    """
    return [
        np.array([END, *range(i * 1000 + 1, i * 1000 + 1 + n), END]) for i, n in enumerate(lengths)
    ]


def shard(lengths: list[int]) -> IntArray:
    return join_documents(documents(lengths))


def all_rows(
    stream: IntArray, n_tokens: int, seed: tuple[int, ...] = (1, 1, 0)
) -> tuple[IntArray, IntArray]:
    packing = pack(stream, END, n_tokens, seed)
    return packing.rows(range(len(packing)))


def batches(lengths: list[int], batch_tokens: int = 128, seed: int = 1) -> Batches:
    return Batches([shard(lengths)], END, batch_tokens, seed)


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    n_tokens=st.integers(1, 50),
    seed=st.integers(0, 9),
)
def test_packing_makes_every_token_a_target_once_after_its_own_past(
    lengths: list[int], n_tokens: int, seed: int
) -> None:
    inputs, targets = all_rows(shard(lengths), n_tokens, (seed, 1, 0))
    assert Counter(targets[targets != IGNORED].tolist()) == Counter(shard(lengths)[1:].tolist())
    for token, before in zip(targets.ravel(), inputs.ravel(), strict=True):
        if token > 0 and token % 1000 > 1:
            assert before == token - 1
        elif token > 0:
            assert before == END


def test_packing_counts_its_targets() -> None:
    packing = pack(shard([5, 9, 30, 7, 2]), END, 16, (3, 1, 0))
    for which in (range(2), range(1, 3), range(len(packing))):
        assert packing.n_targets(which) == (packing.rows(which)[1] != IGNORED).sum()


def test_documents_that_fit_are_never_cut() -> None:
    some = documents([5, 9, 3, 7, 2, 12, 4])
    inputs, _ = all_rows(join_documents(some), 16)
    rows = ["," + ",".join(map(str, row)) + "," for row in inputs.tolist()]
    for document in some:
        piece = "," + ",".join(map(str, document[:-1].tolist())) + ","
        assert sum(piece in row for row in rows) == 1


def test_packing_is_best_fit_decreasing() -> None:
    """Against the slow way: look at every row for the one with the least room."""
    lengths = np.random.default_rng(5).integers(1, 90, size=150).tolist()
    _, targets = all_rows(shard(lengths), 64)
    found = sorted((targets != IGNORED).sum(axis=1).tolist())
    sizes = sorted(
        (min(64, n + 1 - at) for n in lengths for at in range(0, n + 1, 64)), reverse=True
    )
    rooms: list[int] = []
    for size in sizes:
        fitting = [i for i, room in enumerate(rooms) if room >= size]
        if not fitting:
            rooms.append(64)
            fitting = [len(rooms) - 1]
        rooms[min(fitting, key=lambda i: rooms[i])] -= size
    assert found == sorted(64 - room for room in rooms)


def test_packing_leaves_little_room() -> None:
    lengths = np.random.default_rng(0).integers(20, 300, size=400).tolist()
    _, targets = all_rows(shard(lengths), 512)
    assert (targets == IGNORED).mean() < 0.05


def test_a_long_document_is_cut_at_other_places_in_each_epoch() -> None:
    stream = shard([900])
    starts = [
        {int(row[0]) for row in all_rows(stream, 16, (1, epoch, 0))[0]} for epoch in (1, 2, 3)
    ]
    assert starts[0] != starts[1] != starts[2]
    for epoch in (1, 2, 3):
        _, targets = all_rows(stream, 16, (1, epoch, 0))
        assert Counter(targets[targets != IGNORED].tolist()) == Counter(stream[1:].tolist())


def test_epochs_differ_and_the_same_seed_repeats_them() -> None:
    lengths = list(range(5, 40))
    one, two = batches(lengths), batches(lengths)
    first = [one.next(64).inputs.numpy().copy() for _ in range(20)]
    assert all(np.array_equal(batch, two.next(64).inputs) for batch in first)
    assert one.epoch > 1
    assert not np.array_equal(first[0], batches(lengths, seed=2).next(64).inputs)


def test_an_epoch_reads_every_shard_once_in_another_order() -> None:
    parts = [shard([20] * 6) + 10_000 * i for i in range(4)]
    for part in parts:
        part[part % 10_000 == 0] = END
    some = Batches(parts, END, 21, seed=1)
    orders = []
    for epoch in (1, 2, 3):
        seen = [int(some.next(21).inputs[0, 1]) // 10_000 for _ in range(24)]
        assert some.epoch == epoch
        assert Counter(seen) == {0: 6, 1: 6, 2: 6, 3: 6}
        orders.append(seen[::6])
    assert len({tuple(order) for order in orders}) > 1


def test_a_shard_too_short_for_a_batch_is_passed_over() -> None:
    some = Batches([shard([3]), shard([20] * 8), shard([4])], END, 84, seed=1)  # 2 batches an epoch
    for _ in range(6):
        assert some.next(21).inputs.shape == (4, 21)


def test_seek_goes_on_where_the_other_stood() -> None:
    parts = [shard(list(range(5, 40))), shard(list(range(9, 50))), shard([30] * 20)]
    one, two = Batches(parts, END, 128, seed=1), Batches(parts, END, 128, seed=1)
    for n in range(24):
        one.next(64)
        two.seek(one.epoch, one.cursor, one.row_tokens, one.shard)
        if n % 5 == 0:
            for row_tokens in (64, 64, 32, 32, 64):
                assert np.array_equal(one.next(row_tokens).targets, two.next(row_tokens).targets)


def test_seek_can_go_to_before_the_first_batch() -> None:
    one, two = batches(list(range(5, 40))), batches(list(range(5, 40)))
    two.seek(one.epoch, one.cursor, one.row_tokens, one.shard)
    assert np.array_equal(one.next(64).inputs, two.next(64).inputs)


def test_processes_share_the_rows_of_a_batch() -> None:
    parts = [shard(list(range(5, 40))), shard(list(range(9, 50)))]
    alone = Batches(parts, END, 256, seed=1)
    shares = [Batches(parts, END, 256, 1, rank, 4) for rank in range(4)]
    for _ in range(9):
        whole = alone.next(64)
        mine = [share.next(64) for share in shares]
        assert np.array_equal(whole.inputs, np.concatenate([batch.inputs for batch in mine]))
        assert np.array_equal(whole.targets, np.concatenate([batch.targets for batch in mine]))
        assert (
            {batch.n_targets for batch in mine}
            == {whole.n_targets}
            == {int((whole.targets != IGNORED).sum())}
        )


def test_too_little_text_for_a_batch_is_said() -> None:
    with pytest.raises(TrainingError, match="fills 1 rows of 64 tokens, a batch needs 4"):
        batches([5], 256).next(64)


def test_documents_come_back_from_a_shard() -> None:
    some = documents([5, 1, 30])
    found = list(documents_of(join_documents(some).astype(np.uint16), END))
    assert all(np.array_equal(a, b) for a, b in zip(found, some, strict=True))
    assert found[0].dtype == np.int64


def test_plain_and_gzip_give_the_same_documents(tmp_path: Path) -> None:
    text = "One.\nTwo.\n<|endoftext|>\n\n<|endoftext|>\r\n  Three é.\r\n<|endoftext|>\n"
    (tmp_path / "a.txt").write_bytes(text.encode())
    (tmp_path / "a.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    assert read_documents(tmp_path / "a.txt", "<|endoftext|>") == ["One.\nTwo.", "  Three é."]
    assert read_documents(tmp_path / "a.gz", "<|endoftext|>") == ["One.\nTwo.", "  Three é."]


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "holds no text"),
        (b"\n<|endoftext|>\n", "holds no text"),
        (b"abc \xff", "is not UTF-8: byte 4 is 0xff"),
        (b"abc \xc3", "is not UTF-8: byte 4 is 0xc3"),
        (gzip.compress(b"abc" * 100, mtime=0)[:-9], "corrupt gzip"),
        (b"\x1f\x8b" + b"\0" * 30, "corrupt gzip"),
    ],
)
def test_an_unreadable_text_is_refused(tmp_path: Path, content: bytes, wanted: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(TrainingError, match=wanted):
        read_documents(tmp_path / "a.txt", "<|endoftext|>")


def test_a_missing_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"cannot read the text .*no such file"):
        read_documents(tmp_path / "none.txt", "<|endoftext|>")


def test_a_path_that_is_not_a_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(TrainingError, match="is not a regular file"):
            read_documents(path, "<|endoftext|>")


def test_a_text_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "MAX_TEXT_BYTES", 1 << 20)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"a" * (2 << 20), mtime=0))
    with pytest.raises(TrainingError, match="holds more than 1 MiB"):
        read_documents(tmp_path / "bomb.gz", "<|endoftext|>")
