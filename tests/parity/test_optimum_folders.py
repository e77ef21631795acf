"""Folders that Optimum exports and transformers.js expects: each runs here with the tokens, or the
logits, of transformers, or the message says which export runs.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from gpt_edge.bundle.bundle import Bundle
from gpt_edge.cli import main
from gpt_edge.errors import BundleError
from gpt_edge.runtime.encoder import Encoder
from gpt_edge.runtime.session import Session
from gpt_edge.task_inputs import transform
from gpt_edge.verify import parity
from tests.support.transformers_models import random_transformers, save_vocabulary

exporters = pytest.importorskip("optimum.exporters.onnx")
model_configs = pytest.importorskip("optimum.exporters.onnx.model_configs")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

PROMPT = torch.tensor([[5, 77, 200, 12, 9]])
N_NEW = 40


def exported(folder: Path, name: str, head: str, task: str, **config: Any) -> PreTrainedModel:
    """Export a random model into folder/"optimum", and return it."""
    model = random_transformers(name, head, **config)
    model.save_pretrained(folder / "hf")
    save_vocabulary(folder / "hf")
    exporters.main_export(str(folder / "hf"), folder / "optimum", task=task, do_validation=False)
    return model


def greedy(model: PreTrainedModel) -> list[int]:
    tokens = model.generate(PROMPT, max_new_tokens=N_NEW, do_sample=False, pad_token_id=0)
    return tokens[0, PROMPT.shape[1] :].tolist()


def our_greedy(folder: Path) -> list[int]:
    session = Session(Bundle.open(folder))
    return parity.greedy_tokens(session, PROMPT[0].numpy(), N_NEW)


def test_gpt_neo_runs_beyond_its_window_also_below_onnx(tmp_path: Path) -> None:
    theirs = exported(tmp_path, "GPTNeo", "ForCausalLM", "text-generation-with-past")
    wanted = greedy(theirs)
    assert our_greedy(tmp_path / "optimum") == wanted
    below = tmp_path / "optimum" / "onnx"
    below.mkdir()
    for path in (tmp_path / "optimum").glob("model.onnx*"):
        shutil.move(path, below / path.name)
    bundle = Bundle.open(tmp_path / "optimum")
    assert bundle.model_path == below / "model.onnx"
    assert our_greedy(tmp_path / "optimum") == wanted
    assert main(["generate", "hear me", "-m", str(tmp_path / "optimum"), "-n", "4"]) == 0
    assert main(["eval", str(tmp_path / "optimum"), __file__, "--limit", "1"]) == 0


def test_a_merged_decoder_runs(tmp_path: Path) -> None:
    theirs = random_transformers("GPT2", "LMHeadModel")
    theirs.config.save_pretrained(tmp_path)
    parts = []
    for name, has_past in (("first.onnx", False), ("later.onnx", True)):
        settings = model_configs.GPT2OnnxConfig(
            theirs.config, task="text-generation", use_past=True, use_past_in_inputs=has_past
        )
        exporters.export(theirs, settings, tmp_path / name, opset=14)
        parts.append(tmp_path / name)
    merge = pytest.importorskip("optimum.onnx").merge_decoders
    merge(*parts, save_path=tmp_path / "decoder_model_merged.onnx")
    assert our_greedy(tmp_path) == greedy(theirs)


def test_a_split_decoder_says_which_export_runs(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    for name in ("decoder_model.onnx", "decoder_with_past_model.onnx"):
        (tmp_path / name).write_bytes(b"onnx")
    with pytest.raises(BundleError, match=r"holds decoder_model\.onnx") as caught:
        Bundle.open(tmp_path)
    assert "text-generation-with-past" in str(caught.value.hint)


def test_a_decoder_without_past_says_which_export_runs(tmp_path: Path) -> None:
    exported(tmp_path, "GPT2", "LMHeadModel", "text-generation")
    with pytest.raises(BundleError, match="was exported without past keys and values") as caught:
        Session(Bundle.open(tmp_path / "optimum"))
    assert "text-generation-with-past" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["GPT2", "GPTNeo"])
def test_a_classifier_runs_in_classify(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {0: "neg", 1: "neu", 2: "pos"}
    theirs = exported(
        tmp_path,
        name,
        "ForSequenceClassification",
        "text-classification",
        id2label=labels,
        pad_token_id=0,
    )
    bundle = Bundle.open(tmp_path / "optimum")
    assert bundle.task is not None
    ids = [[5, 17, 3, 44, 90], [1], [5, 7, 9, 0, 0], [2, 2, 61, 8, 33, 7], [7, 0, 3]]
    read = [transform(bundle.task, [row], 64).sequences[0] for row in ids]
    with torch.no_grad():
        wanted = torch.cat([theirs(torch.tensor([row])).logits for row in ids]).numpy()
    np.testing.assert_allclose(Encoder(bundle).logits(read), wanted, atol=1e-4)
    assert main(["classify", str(tmp_path / "optimum"), "hear me speak", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] in labels.values()


def test_a_token_classifier_runs_in_classify(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported(tmp_path, "GPT2", "ForTokenClassification", "token-classification", num_labels=3)
    assert main(["classify", str(tmp_path / "optimum"), "hear me speak", "--json"]) == 0
    tokens = json.loads(capsys.readouterr().out)["tokens"]
    assert "".join(token["text"] for token in tokens) == "hear me speak"
