"""Classifiers that transformers made: its logits, its labels and its offsets, in torch and in every
graph.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2TokenizerFast, PreTrainedModel

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.classify.classifier import Classifier
from gpt_edge.cli import main
from gpt_edge.errors import CheckpointError
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.export.pipeline.quantize import quantize_bundle
from gpt_edge.export.pipeline.verify import verify_bundle
from gpt_edge.reference.checkpoint import task_model_of
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.runtime.encoder import Encoder
from gpt_edge.serve.api_error import ApiError
from gpt_edge.serve.encoders import classify
from gpt_edge.serve.fields import Fields
from gpt_edge.serve.served_models import open_models
from gpt_edge.task_inputs import transform
from gpt_edge.verify.subject import verify_alone
from tests.support.transformers_models import random_transformers, save_vocabulary

TOLERANCE = 1e-4  # of logits, as test_task_export's
SEQUENCE, TOKEN = "ForSequenceClassification", "ForTokenClassification"
LABELS = {0: "neg", 1: "neu", 2: "pos"}
# the last two end with the padding's id, and are nothing but it
IDS = [[5, 17, 3, 44, 90, 2, 2, 61, 8], [1], [5, 7, 9, 0, 0], [0, 0]]


def saved(folder: Path, name: str, head: str, **config: Any) -> PreTrainedModel:
    model = random_transformers(name, head, **config)
    model.save_pretrained(folder)
    return model


@torch.no_grad()
def their_logits(model: PreTrainedModel, ids: list[int]) -> np.ndarray:
    return model(torch.tensor([ids])).logits[0].numpy()


@torch.no_grad()
@pytest.mark.parametrize("name", ["GPT2", "OpenAIGPT", "GPTNeo"])
@pytest.mark.parametrize("pad", [0, None])
def test_the_reference_gives_the_logits_of_a_sequence_classifier(
    name: str, pad: int | None, tmp_path: Path
) -> None:
    theirs = saved(tmp_path, name, SEQUENCE, id2label=LABELS, pad_token_id=pad)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.task is not None
    assert (checkpoint.task.labels, checkpoint.task.problem) == (
        ("neg", "neu", "pos"),
        "single-label",
    )
    ours = task_model_of(checkpoint)
    for ids in IDS:
        read = transform(checkpoint.task, [ids], 64).sequences[0]
        found, _ = ours(torch.tensor([read]), torch.tensor([len(read) - 1]))
        np.testing.assert_allclose(found[0], their_logits(theirs, ids), atol=TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("name", ["GPT2", "GPTNeo"])
def test_the_reference_gives_the_logits_of_a_token_classifier(name: str, tmp_path: Path) -> None:
    theirs = saved(tmp_path, name, TOKEN, num_labels=5)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.task is not None
    assert checkpoint.task.labels == tuple(f"LABEL_{number}" for number in range(5))
    found, _ = task_model_of(checkpoint)(torch.tensor([IDS[0]]), torch.tensor([8]))
    np.testing.assert_allclose(found[0], their_logits(theirs, IDS[0]), atol=TOLERANCE)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"num_labels": 2}, "single-label"),
        ({"num_labels": 1}, "multi-label"),  # DialogRPT: its pipeline takes the sigmoid
        ({"num_labels": 1, "problem_type": "regression"}, "regression"),
        ({"num_labels": 3, "problem_type": "regression"}, "regression"),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, "multi-label"),
        ({"num_labels": 3, "problem_type": "single_label_classification"}, "single-label"),
    ],
)
def test_the_problem_is_what_the_config_says(
    config: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    saved(tmp_path, "GPT2", SEQUENCE, **config)
    task = open_checkpoint(tmp_path).task
    assert task is not None
    assert (task.problem, task.n_label) == (problem, config["num_labels"])


def test_a_negative_pad_token_is_none(tmp_path: Path) -> None:
    saved(tmp_path, "GPT2", SEQUENCE, num_labels=2)
    rewrite(tmp_path, pad_token_id=-1)
    task = open_checkpoint(tmp_path).task
    assert task is not None
    assert task.pad is None


def rewrite(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(values))


def test_a_head_is_found_without_architectures(tmp_path: Path) -> None:
    saved(tmp_path, "GPT2", SEQUENCE, num_labels=4)
    rewrite(tmp_path, architectures=None)
    task = open_checkpoint(tmp_path).task
    assert task is not None
    assert task.kind == "text-classification"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id2label": {"0": "a", "1": "b"}}, "id2label must name 0 to 2"),
        ({"id2label": {"0": "a", "1": "b", "2": "a"}}, "labels must differ"),
        ({"id2label": ["a", "b", "c"]}, "id2label must name 0 to 2"),
        ({"problem_type": "ranking"}, "problem_type is 'ranking', expected one of regression"),
        ({"architectures": ["GPT2ForTokenClassification"]}, r"hold no classifier\.weight"),
    ],
)
def test_a_config_that_does_not_fit_its_head_is_one_clear_line(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    saved(tmp_path, "GPT2", SEQUENCE, num_labels=3)
    rewrite(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(tmp_path)
    assert "\n" not in caught.value.message


def test_a_regression_gives_the_number_itself(tmp_path: Path) -> None:
    theirs = saved(
        tmp_path / "hf", "GPT2", SEQUENCE, num_labels=1, problem_type="regression", pad_token_id=0
    )
    save_vocabulary(tmp_path / "hf")
    bundle, _ = export_bundle(tmp_path / "hf", tmp_path / "b", graph="portable", scheme="fp32")
    classifier = Classifier.load(bundle.path)
    text = "hear me speak! Any further?"
    row = classifier.predict([text]).rows[0]
    wanted = their_logits(theirs, classifier.tokenizer.encode(text))
    assert row.score == pytest.approx(float(wanted[0]), abs=TOLERANCE)
    assert (row.label, row.probabilities.size) == (None, 0)


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, PreTrainedModel]]:
    """edge(head): the bundle of a GPT-2 with three labels, and transformers' model. One trace."""
    root = tmp_path_factory.mktemp("edge")
    made: dict[str, tuple[Path, PreTrainedModel]] = {}

    def make(head: str) -> tuple[Path, PreTrainedModel]:
        if head not in made:
            theirs = saved(root / head, "GPT2", head, id2label=LABELS, pad_token_id=0)
            save_vocabulary(root / head)
            bundle, _ = export_bundle(root / head, root / f"{head}-b", scheme="int8")
            made[head] = bundle.path, theirs
        return made[head]

    return make


def test_classify_says_what_transformers_says(
    edge: Callable[[str], tuple[Path, PreTrainedModel]], capsys: pytest.CaptureFixture[str]
) -> None:
    path, theirs = edge(SEQUENCE)
    tokenizer = GPT2TokenizerFast.from_pretrained(path.with_name(SEQUENCE))
    texts = ["hear me speak", "All resolved to die?", "naïve 中文!"]
    assert main(["classify", str(path), *texts, "--json"]) == 0
    for text, line in zip(texts, capsys.readouterr().out.splitlines(), strict=True):
        wanted = torch.tensor(their_logits(theirs, tokenizer(text).input_ids)).softmax(-1)
        found = json.loads(line)
        np.testing.assert_allclose(list(found["probabilities"].values()), wanted, atol=0.05)
        assert found["label"] == LABELS[int(wanted.argmax())]
    assert verify_alone(Bundle.open(path)).faults == []


def test_classify_labels_tokens_with_the_offsets_of_transformers(
    edge: Callable[[str], tuple[Path, PreTrainedModel]], capsys: pytest.CaptureFixture[str]
) -> None:
    path, theirs = edge(TOKEN)
    tokenizer = GPT2TokenizerFast.from_pretrained(path.with_name(TOKEN))
    texts = ["hear me speak", "naïve 中文 🙂 die"]
    assert main(["classify", str(path), *texts, "--json"]) == 0
    for text, line in zip(texts, capsys.readouterr().out.splitlines(), strict=True):
        wanted = tokenizer(text, return_offsets_mapping=True)
        probabilities = torch.tensor(their_logits(theirs, wanted.input_ids)).softmax(-1)
        found = json.loads(line)["tokens"]
        assert [(row["start"], row["end"]) for row in found] == wanted.offset_mapping
        for row, of_token in zip(found, probabilities, strict=True):
            assert row["probability"] == pytest.approx(float(of_token.max()), abs=0.05)
            assert row["label"] == LABELS[int(of_token.argmax())]
            assert row["text"] == text[row["start"] : row["end"]]
    assert main(["classify", str(path), "hear me"]) == 0
    first, *_, last = capsys.readouterr().out.split("\n")[:-1]
    assert first.startswith("0\t")
    assert last == ""
    assert verify_alone(Bundle.open(path)).faults == []


def test_special_tokens_of_a_text_are_read_where_asked(
    edge: Callable[[str], tuple[Path, PreTrainedModel]], capsys: pytest.CaptureFixture[str]
) -> None:
    """DialogRPT has one between a message and its answer."""
    path, theirs = edge(SEQUENCE)
    tokenizer = GPT2TokenizerFast.from_pretrained(path.with_name(SEQUENCE))
    text = "hear me speak<|endoftext|>All resolved"
    wanted = torch.tensor(their_logits(theirs, tokenizer(text).input_ids)).softmax(-1)
    found = {}
    for options in ((), ("--special",)):
        assert main(["classify", str(path), text, text, "--json", *options]) == 0
        out, err = capsys.readouterr()
        found[options] = json.loads(out.splitlines()[0])
        assert err.count("a text spells the special token '<|endoftext|>'") == (not options)
    shares = found["--special",]["probabilities"]
    np.testing.assert_allclose(list(shares.values()), wanted, atol=0.05)
    assert found["--special",]["n_tokens"] == len(tokenizer(text).input_ids)
    assert found[()]["n_tokens"] > found["--special",]["n_tokens"]
    path, theirs = edge(TOKEN)
    assert main(["classify", str(path), text, "--json", "--special"]) == 0
    rows = json.loads(capsys.readouterr().out)["tokens"]
    assert "<|endoftext|>" in [row["text"] for row in rows]


def test_the_server_gives_the_labels_that_classify_gives(
    edge: Callable[[str], tuple[Path, PreTrainedModel]],
) -> None:
    texts = ["hear me speak<|endoftext|>All resolved", "naïve 中文 🙂"]
    models = open_models([str(edge(head)[0]) for head in (SEQUENCE, TOKEN)], threads=1)

    def answer(head: str, **more: Any) -> Any:
        fields = Fields({"input": texts, **more})
        return asyncio.run(classify(fields, models.named(edge(head)[0].name)))["data"]

    for special in (False, True):
        rows = Classifier.load(edge(SEQUENCE)[0]).predict(texts, special=special).rows
        found = answer(SEQUENCE, special=special)
        for row, one in zip(rows, found, strict=True):
            assert one["label"] == row.label
            np.testing.assert_allclose(one["probs"], row.probabilities, rtol=1e-5)
        labels = Classifier.load(edge(TOKEN)[0]).tag(texts, special=special)
        for tokens, one in zip(labels, answer(TOKEN, special=special), strict=True):
            wanted = [(token.start, token.end, token.label, token.text) for token in tokens]
            keys = ("start", "end", "label", "text")
            assert [tuple(token[key] for key in keys) for token in one["tokens"]] == wanted
    for wrong in ({"input": [["a", "b"]]}, {"threshold": 0.5}, {"special": 1}):
        with pytest.raises(ApiError):
            answer(TOKEN, **wrong)
    models.close()


@pytest.mark.slow
@pytest.mark.parametrize("graph", ["edge", "portable"])
@pytest.mark.parametrize(
    ("name", "head"),
    [("GPT2", SEQUENCE), ("OpenAIGPT", SEQUENCE), ("GPTNeo", SEQUENCE), ("GPT2", TOKEN)],
)
def test_every_graph_gives_the_logits_of_transformers(
    name: str, head: str, graph: str, tmp_path: Path
) -> None:
    config = {"pad_token_id": 0} if head == SEQUENCE else {}
    theirs = saved(tmp_path / "hf", name, head, num_labels=3, **config)
    bundle, _ = export_bundle(
        tmp_path / "hf", tmp_path / "b", graph=graph, scheme="fp32", tokenizer="none"
    )
    assert bundle.task is not None
    read = [transform(bundle.task, [ids], 64).sequences[0] for ids in IDS]
    wanted = np.concatenate([their_logits(theirs, ids).reshape(-1, 3) for ids in IDS])
    np.testing.assert_allclose(Encoder(bundle).logits(read), wanted, atol=TOLERANCE)
    assert verify_bundle(bundle, tmp_path / "hf").faults == []
    quantized, _ = quantize_bundle(bundle, tmp_path / "q", scheme="int8")
    assert verify_bundle(quantized, tmp_path / "hf").faults == []
