"""`gpt-edge classify` and `embed`: arguments, lines, files, JSON lines; and everything that can be
wrong with them.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.support.runner import COMMAND, done, run
from tests.support.warm_process import PATIENCE

TEXTS = ["a good day", "so it ends, and nobody knows", "he", "the sun and the sea were in the room"]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny random classifier of each task, int8, with a byte tokenizer."""
    from gpt_edge.config import GPTConfig
    from gpt_edge.tokenizer import source_from_ranks
    from gpt_edge.tokenizer.formats.rank_file import format_ranks
    from tests.support.task_models import save_task

    root, made = tmp_path_factory.mktemp("classifiers"), {}
    words = source_from_ranks(format_ranks([bytes([value]) for value in range(256)]))
    config = GPTConfig(n_layer=1, n_head=2, n_embd=16, n_ctx=64, vocab_size=words.spec.vocab_size)
    for task in ("classification", "scores", "multiple-choice", "multi-label"):
        source = save_task(root / f"{task}-source", config, task, words)
        made[task] = root / task
        done("export", source, made[task])
    return made


def test_the_table_that_a_model_was_trained_from_is_read(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    bundle = bundles["classification"]
    wanted = done("classify", bundle, *TEXTS).out
    rows = "".join(f'"{text}";{number};good\n' for number, text in enumerate(TEXTS))
    table = tmp_path / "train.csv"
    table.write_text("text;id;label\n" + rows, encoding="utf-8")
    assert done("classify", bundle, "--file", table).out == wanted
    tsv = tmp_path / "train.tsv"
    lines = "".join(f"good\t{text}\n" for text in TEXTS if "\t" not in text)
    tsv.write_text("label\ttext\n" + lines, encoding="utf-8")
    plain = [text for text in TEXTS if "\t" not in text]
    assert done("classify", bundle, "--file", tsv).out == done("classify", bundle, *plain).out


def test_none_is_given_below_a_threshold(bundles: dict[str, Path]) -> None:
    bundle = bundles["classification"]
    every = [line.split("\t") for line in done("classify", bundle, *TEXTS).out.splitlines()]
    cut = sorted(float(share) for _, share in every)[1] + 1e-4
    found = done("classify", bundle, *TEXTS, "--threshold", f"{cut:.4f}").out.splitlines()
    wanted = [label if float(share) > cut else "-" for label, share in every]
    assert [line.split("\t")[0] for line in found] == wanted
    assert wanted.count("-") == 2
    first = done("classify", bundle, TEXTS[0], "--threshold", "1", "--json").json
    assert first["label"] is None
    assert run("classify", bundle, "a", "--threshold", "2").code == 2
    assert run("classify", bundles["scores"], "a", "b", "--threshold", "0.5").code == 2


def test_several_labels_or_none_are_given(bundles: dict[str, Path]) -> None:
    bundle = bundles["multi-label"]
    whole = done("classify", bundle, TEXTS[0], "--json").json
    assert whole["labels"] == [
        label
        for label, share in sorted(whole["probabilities"].items(), key=lambda item: -item[1])
        if share >= 0.5
    ]
    assert done("classify", bundle, TEXTS[0], "--threshold", "1").out.startswith("-\t")
    every = done("classify", bundle, TEXTS[0], "--threshold", "0").out.strip().split("\t")
    assert sorted(every[0::2]) == ["bad", "fair", "good"]
    assert "classification (multi-label), 3 labels" in done("inspect", bundle).out


def test_calibrating_several_labels_gives_each_a_threshold(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    table = tmp_path / "dev.csv"
    labels = ("bad|good", "", "fair", "bad | fair")
    rows = [f'"{text}",{given}' for text, given in zip(TEXTS, labels, strict=True)]
    table.write_text("\n".join(["text,label", *rows]) + "\n")
    copy = tmp_path / "copy"
    task = done("calibrate", bundles["multi-label"], table, "--out", copy, "--json").json["task"]
    assert len(task["thresholds"]) == 3
    found = [done("classify", copy, text, "--json").json for text in TEXTS]
    for row in found:
        reached = dict(zip(task["labels"], task["thresholds"], strict=True))
        shares = row["probabilities"]
        assert set(row["labels"]) == {name for name in reached if shares[name] >= reached[name]}
    # thresholds for the best F1 of each label find every one that is true of an example here
    assert any(set(row["labels"]) >= {"bad"} for row in found)
    wrong = run("calibrate", copy, table, "--out", tmp_path / "x", "--label-separator", "")
    assert wrong.code == 2


def test_labelled_examples_say_how_far_the_probabilities_are_from_right(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    bundle = bundles["classification"]
    found = [done("classify", bundle, text, "--json").json for text in TEXTS]
    # two are right, whatever the random model says
    labels = [row["label"] for row in found[:2]]
    labels += ["good" if row["label"] == "bad" else "bad" for row in found[2:]]
    table = tmp_path / "test.csv"
    rows = [f'"{text}",{label}' for text, label in zip(TEXTS, labels, strict=True)]
    table.write_text("\n".join(["text,opinion", *rows]) + "\n", encoding="utf-8")
    command = ("classify", bundle, "--file", table, "--label", "opinion")
    *lines, last = done(*command, "--json").out.splitlines()
    assert [json.loads(line) for line in lines] == found
    summary = json.loads(last)["summary"]
    shares = [row["probability"] for row in found]
    bins: dict[int, float] = {}
    for i, share in enumerate(shares):
        place = int(np.ceil(share * 15)) - 1
        bins[place] = bins.get(place, 0.0) + share - (i < 2)
    assert summary == {
        "n_examples": 4,
        "accuracy": 0.5,
        "mean_confidence": pytest.approx(np.mean(shares), abs=1e-5),
        "ece": pytest.approx(sum(map(abs, bins.values())) / 4, abs=1e-5),
    }
    plain = run(*command)
    assert plain.code == 0
    assert plain.out == done("classify", bundle, "--file", table).out
    assert f"4 examples: 50.0% right, mean confidence {np.mean(shares):.1%}" in plain.err
    assert run("classify", bundle, "a", "--label", "opinion").code == 2
    assert run("classify", bundles["scores"], "--file", table, "--label", "opinion").code == 2
    table.write_text("text,opinion\nfine,neither\n", encoding="utf-8")
    refused = run(*command)
    assert refused.code == 1
    assert "line 2: label 'neither'" in refused.err
    assert refused.out == ""


def test_each_of_several_labels_is_an_answer(bundles: dict[str, Path], tmp_path: Path) -> None:
    bundle = bundles["multi-label"]
    examples = tmp_path / "test.jsonl"
    rows = [{"text": text, "label": ["bad", "good"]} for text in TEXTS]
    examples.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    output = done("classify", bundle, "--file", examples, "--label", "label").out.splitlines()
    *found, summary = map(json.loads, output)
    answers = [
        (label in ("bad", "good")) == (share >= 0.5)
        for row in found
        for label, share in row["probabilities"].items()
    ]
    assert len(answers) == len(TEXTS) * len(found[0]["probabilities"])
    assert summary["summary"]["accuracy"] == pytest.approx(np.mean(answers), abs=1e-5)


def test_columns_are_joined_and_bad_rows_skipped(bundles: dict[str, Path], tmp_path: Path) -> None:
    bundle = bundles["classification"]
    table = tmp_path / "reviews.csv"
    table.write_text("title,body\nA,good one\n,\nbroken\n,body\n", encoding="utf-8")
    command = ("classify", bundle, "--file", table, "--text", "title", "--text", "body")
    refused = run(*command)
    assert refused.code == 1
    assert "line 3: title and body are empty" in refused.err
    skipped = run(*command, "--skip-bad-rows")
    assert skipped.out == done("classify", bundle, "A good one", "body").out
    assert "skipped 2 bad rows: line 3: title and body are empty; line 4: 1 fields" in skipped.err
    wrong = run("classify", bundle, "--skip-bad-rows", "x")
    assert wrong.code == 2


def test_the_same_labels_come_by_every_way(bundles: dict[str, Path], tmp_path: Path) -> None:
    bundle = bundles["classification"]
    wanted = done("classify", bundle, *TEXTS).out
    assert [line.split("\t")[0] in ("bad", "fair", "good") for line in wanted.splitlines()] == [
        True
    ] * 4
    lines = "".join(f"{text}\n" for text in TEXTS).encode()
    (tmp_path / "texts.txt").write_bytes(b"\xef\xbb\xbf" + lines.replace(b"\n", b"\r\n"))
    assert done("classify", bundle, stdin=lines).out == wanted
    assert (
        done("classify", bundle, "-", "--batch", "1", "--threads", "1", stdin=lines).out == wanted
    )
    assert done("classify", bundle, "--file", tmp_path / "texts.txt", "--batch", "3").out == wanted
    objects = "".join(json.dumps({"review": text, "x": 1}) + "\n" for text in TEXTS)
    (tmp_path / "texts.jsonl").write_text(objects)
    found = done(
        "classify", bundle, "--file", tmp_path / "texts.jsonl", "--text", "review"
    ).out.splitlines()
    assert [json.loads(line)["label"] for line in found] == [
        line.split("\t")[0] for line in wanted.splitlines()
    ]
    assert sum(json.loads(found[0])["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_pairs_and_choices(bundles: dict[str, Path]) -> None:
    score = done("classify", bundles["scores"], "a cat", "a dog", "--json").json
    assert 0 <= score["score"] <= 5
    assert float(done("classify", bundles["scores"], stdin=b"a dog\ta cat\n").out) == pytest.approx(
        score["score"], abs=1e-4
    )
    chosen = done(
        "classify", bundles["multiple-choice"], "why?", "so", "because", "no", "--json"
    ).json
    assert chosen["text"] == ("so", "because", "no")[chosen["answer"]]
    assert len(chosen["probabilities"]) == 3
    line = json.dumps({"question": "why?", "choices": ["so", "because", "no"]}).encode()
    assert done("classify", bundles["multiple-choice"], "--jsonl", stdin=line).json == chosen
    assert done(
        "classify", bundles["multiple-choice"], stdin=b"why?\tso\tbecause\tno"
    ).out.startswith(f"{chosen['answer']}\t")


def test_blank_lines_between_json_lines_are_nothing_and_few_texts_get_a_hint(
    bundles: dict[str, Path],
) -> None:
    lines = b'\n{"text": "fine"}\n\n{"text": "bad"}\n'
    assert (
        len(done("classify", bundles["classification"], "--jsonl", stdin=lines).out.splitlines())
        == 2
    )
    short = run("classify", bundles["multiple-choice"], stdin=b"why?\tso\n")
    assert "2 texts, multiple-choice expects a question and at least two answers" in short.errors[0]
    assert "hint: separate them with a tab" in short.err


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        ((), b"fine\n\nfine\n", "standard input, line 2: a text is empty"),
        ((), b"fine\n\xff\n", "line 2: not UTF-8"),
        (
            (),
            b"x" * 99,
            "line 1: a text of 99 bytes is more than the context of 64 tokens can hold",
        ),
        (("--jsonl",), b'{"text": "a"}\n{"texts": "b"}', "line 2: there is no 'text'"),
        (("--jsonl",), b'{"text": 1}', "line 1: text is 1, expected a string"),
        (("--jsonl",), b"[", "line 1: not JSON"),
        (("--jsonl",), b"3", "line 1: expected an object"),
        (("--file", "nowhere.txt"), b"", "nowhere.txt: No such file"),
        (("--file", "."), b"", "is not a regular file"),
    ],
)
def test_a_wrong_line_is_named(
    bundles: dict[str, Path], arguments: tuple[str, ...], stdin: bytes, message: str
) -> None:
    result = run("classify", bundles["classification"], *arguments, stdin=stdin)
    assert result.code == 1
    assert len(result.errors) == 1
    assert message in result.errors[0]
    assert len(result.out.splitlines()) == max(
        0, stdin.count(b"\n") and stdin[:4] in (b"fine", b'{"te')
    )


@pytest.mark.parametrize(
    ("task", "arguments", "message"),
    [
        ("classification", ("a", "--file", "x"), "TEXT or --file"),
        ("classification", ("a", "--jsonl"), "--jsonl is for"),
        (
            "classification",
            ("a", "--premise", "p"),
            "--premise and --hypothesis are for entailment",
        ),
        ("classification", ("a", "--choice", "p"), "--choice is for multiple-choice"),
        ("classification", ("a", "--batch", "0"), "--batch"),
        ("classification", ("a", "--threads", "0"), "threads must be"),
        ("scores", ("a",), "1 text, similarity expects two texts"),
        (
            "multiple-choice",
            ("a", "b"),
            "2 texts, multiple-choice expects a question and at least two answers",
        ),
        ("scores", ("a", ""), "a text is empty"),
    ],
)
def test_wrong_usage_is_told(
    bundles: dict[str, Path], task: str, arguments: tuple[str, ...], message: str
) -> None:
    result = run("classify", bundles[task], *arguments)
    assert result.code == 2, result
    assert len(result.errors) == 1
    assert message in result.errors[0]


def test_a_long_text_is_cut_where_that_was_asked_for(bundles: dict[str, Path]) -> None:
    for side in ("left", "right"):
        found = done(
            "classify", bundles["classification"], "x" * 99, "--truncate", side, "--json"
        ).json
        assert (found["n_tokens"], found["n_truncated"]) == (64, 37)


def test_other_commands_know_what_a_classifier_is(
    bundles: dict[str, Path], tiny_edge: Path, tmp_path: Path
) -> None:
    bundle = bundles["classification"]
    for command in (
        ("generate", "x", "-m", bundle),
        ("bench", bundle),
        ("eval", bundle, bundle / "manifest.json"),
    ):
        result = run(*command)
        assert result.code == 1, result
        assert "is a classifier (classification)" in result.errors[0]
        # which tells of its child's error
        assert "gpt-edge classify" in result.err or command[0] == "bench"
    assert "classification, 3 labels: bad, fair, good" in done("inspect", bundle).out
    assert done("inspect", bundle, "--json").json["task"]["labels"] == ["bad", "fair", "good"]
    assert "same label" in done("verify", bundle).out
    assert "is a language model, not a classifier" in run("classify", tiny_edge, "x").err
    rounded = run("quantize", bundle, tmp_path / "out", "--scheme", "int8", "--max-kl", "1")
    assert (rounded.code, "--scheme alone" in rounded.err) == (2, True)


def test_embeddings_as_json_lines_and_as_numpy(
    bundles: dict[str, Path], exported: tuple[Path, object], tmp_path: Path
) -> None:
    for bundle in (bundles["classification"], exported[0]):
        lines = done("embed", bundle, *TEXTS, "--pooling", "last").out.splitlines()
        stdin = "".join(f"{text}\n" for text in TEXTS).encode()
        said = done(
            "embed", bundle, "--pooling", "last", "--out", tmp_path / "x.npy", "--json", stdin=stdin
        ).json
        array = np.load(tmp_path / "x.npy")
        assert (array.dtype, array.shape) == (np.float32, (4, 16))
        assert (said["texts"], said["width"]) == (4, 16)
        np.testing.assert_allclose(
            array, [json.loads(line)["embedding"] for line in lines], atol=1e-6
        )
        np.testing.assert_allclose(np.linalg.norm(array, axis=1), 1, atol=1e-5)


def test_embeddings_that_cannot_be(
    tiny_edge: Path, bundles: dict[str, Path], tmp_path: Path
) -> None:
    """The golden bundle is of the time before hidden states were an output."""
    old = run("embed", tiny_edge, "x")
    assert (old.code, "gives no hidden states" in old.err) == (1, True)
    wrong = run("embed", bundles["classification"], "x", "--out", tmp_path / "x.csv")
    assert (wrong.code, ".npy" in wrong.err) == (2, True)
    empty = run("embed", bundles["classification"], "--out", tmp_path / "x.npy", stdin=b"a\n\n")
    assert (empty.code, "line 2: a text is empty" in empty.err) == (1, True)
    assert not (tmp_path / "x.npy").exists()


def test_a_reader_that_goes_away_ends_the_command(bundles: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "many.txt").write_text("a good day\n" * 20_000)
    command = [
        *COMMAND,
        "classify",
        str(bundles["classification"]),
        "--file",
        str(tmp_path / "many.txt"),
        "--batch",
        "8",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""
