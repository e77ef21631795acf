"""generation_config.json: from a Hugging Face folder into a bundle, through quantize, and back."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

import gpt_edge
from gpt_edge.bundle.bundle import Bundle
from gpt_edge.config import GPTConfig
from gpt_edge.errors import CheckpointError
from gpt_edge.export.pipeline.export import export_bundle
from gpt_edge.export.pipeline.quantize import quantize_bundle
from gpt_edge.export.transformers.folder import export_transformers
from gpt_edge.reference.checkpoint import save_checkpoint
from gpt_edge.tokenizer import source_from_ranks
from gpt_edge.tokenizer.formats.hf_files import hf_files
from tests.support.models import random_model
from tests.support.runner import run

TOKENS = [*(bytes([byte]) for byte in range(256)), b"th", b"the"]
RANKS = b"".join(base64.b64encode(token) + f" {id}\n".encode() for id, token in enumerate(TOKENS))
END_TOKEN = 258
CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=32, n_ctx=64, vocab_size=259)
Folder = Callable[[dict[str, Any] | None], Path]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers folder, with its tokenizer, and without generation_config.json."""
    root = tmp_path_factory.mktemp("weights")
    save_checkpoint(root / "own", CONFIG, random_model(CONFIG).state_dict(), None, {})
    export_transformers(root / "own", root / "hf", tokenizer="none")
    for name, content in hf_files(source_from_ranks(RANKS), CONFIG.n_ctx).items():
        (root / "hf" / name).write_bytes(content)
    return root / "hf"


@pytest.fixture
def folder(weights: Path) -> Folder:
    """folder(values): the same folder with such a generation_config.json, or with none."""

    def write(values: dict[str, Any] | None) -> Path:
        path = weights / "generation_config.json"
        path.unlink(missing_ok=True)
        if values is not None:
            path.write_text(json.dumps(values))
        return weights

    return write


def test_defaults_reach_the_bundle_its_quantization_and_transformers_again(
    folder: Folder, tmp_path: Path
) -> None:
    values = {
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 9,
        "top_p": 0.9,
        "eos_token_id": [7, 5],
    }
    source = folder({**values, "transformers_version": "5.0", "max_length": 20, "pad_token_id": 0})
    bundle, _ = export_bundle(source, tmp_path / "fp32", scheme="fp32")
    smaller, _ = quantize_bundle(bundle, tmp_path / "int8", scheme="int8")
    for made in (bundle, smaller):
        defaults = Bundle.open(made.path).manifest.generation_defaults
        assert defaults is not None
        assert defaults.to_dict() == values
    generator = gpt_edge.load(tmp_path / "int8")
    assert generator.generation_defaults == gpt_edge.SamplingParams(
        temperature=0.7, top_k=9, top_p=0.9
    )
    assert generator.end_tokens == {7, 5, END_TOKEN}
    export_transformers(source, tmp_path / "hf")
    written = json.loads((tmp_path / "hf" / "generation_config.json").read_text())
    assert written == values
    theirs = transformers.GenerationConfig.from_pretrained(tmp_path / "hf")
    assert {name: getattr(theirs, name) for name in values} == values
    export_transformers(source, tmp_path / "hf", force=True)  # it knows its own folder


def test_without_the_file_a_bundle_has_no_defaults(folder: Folder, tmp_path: Path) -> None:
    bundle, _ = export_bundle(folder(None), tmp_path / "none", scheme="fp32")
    assert bundle.manifest.generation_defaults is None
    export_transformers(folder(None), tmp_path / "hf")
    assert not (tmp_path / "hf" / "generation_config.json").exists()
    folder({"do_sample": False})
    export_transformers(folder({"do_sample": False}), tmp_path / "ends")
    written = json.loads((tmp_path / "ends" / "generation_config.json").read_text())
    assert written == {"do_sample": False, "eos_token_id": END_TOKEN}


@pytest.mark.parametrize("is_list", [False, True])
def test_generation_ends_where_transformers_ends(
    is_list: bool, folder: Folder, tmp_path: Path
) -> None:
    source = folder(None)
    model = transformers.GPT2LMHeadModel.from_pretrained(source)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(source / "tokenizer.json"))
    ids = tokenizer("the end", return_tensors="pt").input_ids
    ask = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
    n_prompt = ids.shape[1]
    free = model.generate(ids, **ask)[0, n_prompt:].tolist()
    last = free[4]
    source = folder({"eos_token_id": [0, last] if is_list else last})
    model = transformers.GPT2LMHeadModel.from_pretrained(source)
    expected = model.generate(ids, **ask)[0, n_prompt:].tolist()
    assert len(expected) < 20
    out = tmp_path / "bundle"
    assert run("export", source, out, "--scheme", "fp32").code == 0
    done = run("generate", "-m", out, "the end", "-n", "20", "--json").json
    assert done["finish_reason"] == "stop"
    assert done["completion_tokens"] == len(expected) - 1  # theirs holds the end token


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": "hot"}, "temperature must be a finite number of 0 or more, got 'hot'"),
        ({"top_k": 1.5}, "top_k must be a whole number"),
        ({"eos_token_id": "<|endoftext|>"}, "eos_token_id must be a token id or a list"),
    ],
)
def test_a_wrong_value_is_one_clear_line(
    values: dict[str, Any], message: str, folder: Folder, tmp_path: Path
) -> None:
    source = folder(values)
    with pytest.raises(CheckpointError, match=message) as caught:
        export_bundle(source, tmp_path / "out", scheme="fp32")
    assert str(source / "generation_config.json") in caught.value.message
    result = run("export", source, tmp_path / "out")
    assert (result.code, len(result.errors)) == (1, 1)
    assert not (tmp_path / "out").exists()
