"""Encoding examples, splitting them, and putting them into batches."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gpt_edge.data.examples import Columns, Example, default_columns, read_examples
from gpt_edge.data.labels import balance
from gpt_edge.errors import TrainingError
from gpt_edge.tasks import new_task
from gpt_edge.tokenizer.load import build_tokenizer
from gpt_edge.training.finetune.batches import encode, epoch_batches, split_examples
from tests.support.finetune_factory import byte_tokenizer, write_examples

TEXT = Columns(("text",), "label")
CHOICE = default_columns("multiple-choice")


def test_each_epoch_sees_every_example_once_in_another_order(tmp_path: Path) -> None:
    spec = new_task("classification", 257, ("no", "yes"))
    examples = read_examples(write_examples(tmp_path / "a.tsv", "classification", 100), TEXT)
    data = encode(spec, build_tokenizer(byte_tokenizer()), examples, [0] * 100, 48)
    first, second = epoch_batches(data, 8, seed=3, epoch=0), epoch_batches(data, 8, seed=3, epoch=1)
    for epoch in (first, second):
        assert Counter(int(row) for rows in epoch for row in rows) == Counter(range(100))
        assert sorted(map(len, epoch)) == [4] + [8] * 12
    assert [rows.tolist() for rows in first] != [rows.tolist() for rows in second]
    assert [rows.tolist() for rows in first] == [
        rows.tolist() for rows in epoch_batches(data, 8, seed=3, epoch=0)
    ]


def test_little_is_padding_when_lengths_differ_much() -> None:
    spec = new_task("classification", 257, ("no", "yes"))
    lengths = np.random.default_rng(0).integers(1, 45, 2000)
    examples = [Example(i, ("a" * int(n),), "no") for i, n in enumerate(lengths)]
    data = encode(spec, build_tokenizer(byte_tokenizer()), examples, [0] * 2000, 48)
    computed = sum(
        part.ids.numel()
        for rows in epoch_batches(data, 32, 0, 0)
        for part in data.parts(rows, 4096)
    )
    assert data.n_tokens / computed > 0.95
    random_order = sum(
        part.ids.numel()
        for at in range(0, 2000, 32)
        for part in data.parts(range(at, min(2000, at + 32)), 4096)
    )
    assert data.n_tokens / random_order < 0.7  # what the pools save


def test_parts_respect_the_limit_and_hold_every_row(tmp_path: Path) -> None:
    spec = new_task("multiple-choice", 257)
    examples = read_examples(write_examples(tmp_path / "a.jsonl", "multiple-choice", 30), CHOICE)
    data = encode(
        spec, build_tokenizer(byte_tokenizer()), examples, [int(e.label) for e in examples], 48
    )
    parts = list(data.parts(range(30), 200))
    assert sorted(row for part in parts for row in part.rows) == list(range(30))
    assert len(parts) > 3
    for part in parts:
        assert part.ids.numel() <= 200 or len(part.rows) == 1
        assert part.n_sequences == [len(data.sequences[row]) for row in part.rows]
        flat = [ids for row in part.rows for ids in data.sequences[row]]
        for row, ids in enumerate(flat):
            assert part.ids[row, : len(ids)].tolist() == list(ids)
            assert int(part.extract_at[row]) == len(ids) - 1
        assert part.labels.tolist() == [data.labels[row] for row in part.rows]


def test_cut_examples_are_counted() -> None:
    spec = new_task("classification", 257, ("no", "yes"))
    examples = [
        Example(2, ("abc",), "no"),
        Example(3, ("a" * 20,), "no"),
        Example(4, ("a" * 12,), "no"),
    ]
    data = encode(spec, build_tokenizer(byte_tokenizer()), examples, [0, 0, 0], 10)
    assert (data.n_truncated_examples, data.n_truncated_tokens) == (2, 12 + 4)
    assert data.n_tokens == 5 + 10 + 10


def test_a_context_too_short_for_a_task_names_the_line() -> None:
    with pytest.raises(TrainingError, match="line 9: classification wants n_ctx"):
        encode(
            new_task("classification", 257, "ab"),
            build_tokenizer(byte_tokenizer()),
            [Example(9, ("a",), "a")],
            [0],
            2,
        )


@pytest.mark.parametrize(
    ("per_class", "share", "n_taken"), [(5, 0.1, 50), (4, 0.1, 40), (2, 0.75, 100), (1, 0.6, 0)]
)
def test_a_split_of_small_classes_takes_its_share_and_leaves_one_of_each(
    per_class: int, share: float, n_taken: int
) -> None:
    examples = [Example(i, ("a",), f"class {i % 100}") for i in range(100 * per_class)]
    if not n_taken:
        with pytest.raises(TrainingError, match="leaves nothing to hold out") as caught:
            split_examples(examples, share, seed=1, by_label=True)
        assert "--dev" in (caught.value.hint or "")
        return
    rest, taken = split_examples(examples, share, seed=1, by_label=True)
    assert len(taken) == n_taken
    assert len(rest) == len(examples) - n_taken
    assert len(balance(rest)) == 100
    assert max(balance(taken).values()) == 1


def test_a_split_takes_the_same_share_of_each_class() -> None:
    examples = [Example(i, ("a",), "x" if i % 5 else "y") for i in range(100)]
    rest, taken = split_examples(examples, 0.25, seed=1, by_label=True)
    assert balance(taken) == {"x": 20, "y": 5}
    assert sorted([*rest, *taken], key=lambda example: example.line) == examples
    assert split_examples(examples, 0.25, seed=1, by_label=True) == (rest, taken)
    with pytest.raises(TrainingError, match="leaves nothing"):
        split_examples(examples[:2], 0.1, seed=1, by_label=False)
