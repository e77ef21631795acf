"""`gpt-edge finetune`: flags to files and figures, and wrong usage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.runner import Result, run

CSV = "question,category,note\n" + "".join(
    f'"{word}, {thing}",{"good" if word in "fine nice" else "bad"},x\n'
    for word in ("fine", "nice", "poor", "ugly")
    for thing in ("cat", "dog", "sea", "tea", "sun")
)
QUICK = ("--epochs", "2", "--lr", "3e-3", "--batch", "8", "--threads", "1")


def finetune(checkpoint: Path, folder: Path, *more: str | Path) -> Result:
    (folder / "train.csv").write_text(CSV)
    return run(
        "finetune",
        "--task",
        "classification",
        "--data",
        folder / "train.csv",
        "--text",
        "question",
        "--label",
        "category",
        "--checkpoint",
        checkpoint,
        "--out",
        folder / "out",
        *QUICK,
        *more,
    )


def test_it_says_what_it_made_of_a_csv(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("one fine day<|endoftext|>a cat")
    result = finetune(
        checkpoint,
        tmp_path,
        "--hold-out",
        "0.3",
        "--lambda",
        "0",
        "--forgetting-text",
        tmp_path / "text.txt",
    )
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0].startswith(
        f"{tmp_path / 'out' / 'checkpoint'}: classification, 2 classes, 4 steps in "
    )
    assert "train  14 examples" in lines[1]
    assert "dev    6 examples" in lines[2]
    assert lines[3].startswith("labels 2 in train, 7 to 7 examples each; the most frequent, ")
    assert [line.split()[:2] for line in lines[4:7]] == [
        ["dev", "accuracy"],
        ["dev", "macro"],
        ["dev", "matthews"],
    ]
    assert lines[4].endswith("(wilson)")
    assert lines[7].startswith("dev    temperature ")
    assert lines[8].startswith("text   perplexity ")
    assert [line.split()[:2] for line in result.err.splitlines()] == [
        ["epoch", "1"],
        ["epoch", "2"],
    ]


def test_json_holds_every_figure(checkpoint: Path, tmp_path: Path) -> None:
    values = finetune(
        checkpoint, tmp_path, "--dev", tmp_path / "train.csv", "--lora-rank", "2", "--json"
    ).json
    assert values["task"]["labels"] == ["bad", "good"]
    assert values["data"]["balance"] == {"good": 10, "bad": 10}
    assert values["dev"]["accuracy"].keys() == {"value", "low", "high", "interval"}
    assert (
        json.loads((tmp_path / "out" / "results.json").read_text())["dev"]["accuracy"]
        == values["dev"]["accuracy"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--premise", "question"), "--premise and --hypothesis are for entailment"),
        (("--task", "similarity"), "expects --text 2 time(s), got 1"),
        (("--choice", "note"), "--choice is for multiple-choice"),
        (("--score-range", "0", "5"), "is for similarity"),
        (("--lr", "-1"), "learning_rate must be"),
        (("--dev", "x.csv", "--hold-out", "0.1"), "either dev or hold_out"),
        (("--epochs", "0"), "--epochs"),
        (("--threads", "100000"), "threads must be a whole number from 1 to 256"),
        (("--plot",), "a plot shows the confusion on dev or test"),
        (("--lora-rank", "1000"), "the LoRA rank must be from 0 to"),
        (("--precision", "int8"), "--precision"),
    ],
)
def test_wrong_usage_is_told_and_nothing_is_written(
    checkpoint: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = finetune(checkpoint, tmp_path, *arguments)
    assert result.code == 2
    assert len(result.errors) == 1
    assert message in result.errors[0]
    assert {path.name for path in tmp_path.iterdir()} == {"train.csv"}


def test_entailment_has_its_own_columns(checkpoint: Path, tmp_path: Path) -> None:
    result = run(
        "finetune",
        "--task",
        "entailment",
        "--data",
        tmp_path / "a.tsv",
        "--text",
        "x",
        "--checkpoint",
        checkpoint,
        "--out",
        tmp_path / "out",
    )
    assert result.code == 2
    assert "--premise and --hypothesis, not --text" in result.errors[0]


def test_a_fault_in_the_examples_is_one_line_with_its_place(
    checkpoint: Path, tmp_path: Path
) -> None:
    result = finetune(checkpoint, tmp_path, "--label", "none")
    assert (result.code, result.out) == (1, "")
    assert result.errors == [f"error: {tmp_path / 'train.csv'}, line 1: there is no column 'none'"]
    assert "hint: its columns: question, category, note" in result.err
    assert not (tmp_path / "out").exists()


def test_a_runs_folder_in_place_of_its_checkpoint_is_told(checkpoint: Path, tmp_path: Path) -> None:
    assert finetune(checkpoint, tmp_path).code == 0
    inside = tmp_path / "out" / "checkpoint"
    for arguments, hint in (
        (("classify", tmp_path / "out", "a"), f"gpt-edge export {inside} OUT, then use OUT"),
        (("export", tmp_path / "out", tmp_path / "b"), f"take {inside}"),
    ):
        result = run(*arguments)
        assert result.code == 1
        assert "is the folder of a run" in result.err
        assert result.err.splitlines()[1] == f"hint: {hint}"
