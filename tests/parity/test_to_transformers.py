"""`export --to transformers`: the folder says what the checkpoint says, to transformers and to our
own importers.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpt_edge.config import GPTConfig
from gpt_edge.errors import ExportError, OutputError, ParityError
from gpt_edge.export.transformers import folder as to_transformers
from gpt_edge.export.transformers.folder import export_transformers
from gpt_edge.export.transformers.layout import hf_tensors
from gpt_edge.reference.checkpoint import save_checkpoint
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.tokenizer import build_tokenizer, find_tokenizer, source_from_ranks
from tests.cli.conftest import MERGES
from tests.support.models import random_model, save_random
from tests.support.runner import done, run
from tests.support.transformers_models import random_transformers, save_vocabulary

TOLERANCE = 1e-4  # max |difference| of logits: order of sums
TEXT = "The ship is to the south, and he: “étude” — 3,000!\n\n  then \t the end"

SIZES: dict[str, Any] = {"n_layer": 3, "n_head": 2, "n_embd": 32, "n_ctx": 64, "vocab_size": 101}
KINDS = {
    "gpt2": GPTConfig(**SIZES),
    "gpt2, untied, narrow, exact gelu": GPTConfig(
        **SIZES, n_inner=40, activation="gelu", tied_embeddings=False
    ),
    "gpt2, relu, epsilon": GPTConfig(**SIZES, activation="relu", layer_norm_epsilon=1e-3),
    "openai-gpt": GPTConfig(**SIZES, norm="post"),
    "openai-gpt, relu": GPTConfig(**SIZES, norm="post", activation="relu"),
    "gpt_neo": GPTConfig(**SIZES, attention=("dense", "banded"), window=5, scale_attention=False),
    "gpt_neo, banded": GPTConfig(
        **SIZES, attention=("banded",), window=9, scale_attention=False, n_inner=40
    ),
    "gpt_neo, all dense": GPTConfig(**SIZES, scale_attention=False),
}


def saved(folder: Path, config: GPTConfig, *, with_bias: bool = True) -> Path:
    """A random checkpoint; without biases of queries, keys and values where the kind has none."""
    model = random_model(config)
    if not with_bias:
        with torch.no_grad():
            for block in model.blocks():
                block.attn.c_attn.bias.zero_()
    save_checkpoint(folder, config, model.state_dict(), None, {})
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_transformers_says_what_the_checkpoint_says(name: str, tmp_path: Path) -> None:
    config = KINDS[name]
    source = saved(tmp_path / "source", config, with_bias=not name.startswith("gpt_neo"))
    made = export_transformers(source, tmp_path / "hf", tokenizer="none")
    assert made.model_type == name.partition(",")[0]
    assert made.figures["torch against transformers"]["greedy"]["ok"]
    ours, theirs = open_checkpoint(source), open_checkpoint(tmp_path / "hf")
    for tensor in ours.names():
        assert ours.tensor(tensor).tobytes() == theirs.tensor(tensor).tobytes()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    ids = torch.randint(config.vocab_size, (2, 48), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted, found = ours.load_model()(ids)[0], model(ids).logits
    assert wanted.std() > 0.3
    assert (wanted - found).abs().max().item() <= TOLERANCE
    assert torch.equal(wanted.argmax(-1), found.argmax(-1))


REFUSED = {
    "banded and divided": (
        GPTConfig(**SIZES, attention=("dense", "banded"), window=5),
        "it does not divide|does not",
    ),
    "undivided with biases": (GPTConfig(**SIZES, scale_attention=False), "GPT-2 divides there"),
    "banded, undivided, with biases": (
        GPTConfig(**SIZES, attention=("banded",), window=5, scale_attention=False),
        "has no such biases",
    ),
    "post-norm, exact gelu": (
        GPTConfig(**SIZES, norm="post", activation="gelu"),
        "the activation 'gelu'",
    ),
    "post-norm, banded": (
        GPTConfig(**SIZES, norm="post", attention=("banded",), window=5),
        "sees every position",
    ),
    "post-norm, narrow": (GPTConfig(**SIZES, norm="post", n_inner=40), "its MLP is 40 wide"),
    "post-norm, undivided": (
        GPTConfig(**SIZES, norm="post", scale_attention=False),
        "does not divide attention",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_transformers_cannot_say_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    config, reason = REFUSED[name]
    source = saved(tmp_path / "source", config)
    with pytest.raises(ExportError, match=reason):
        export_transformers(source, tmp_path / "hf", tokenizer="none")
    assert os.listdir(tmp_path) == ["source"]


def test_a_folder_that_says_something_else_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negated values in one tensor: both checks, reading back and transformers, must be able to see
    it.
    """
    source = save_random(tmp_path / "source", KINDS["gpt2"])

    def wrong(config: GPTConfig, kind: str) -> object:
        tensors = hf_tensors(config, kind)
        at = next(
            i for i, tensor in enumerate(tensors) if tensor.name.endswith("h.1.mlp.c_fc.weight")
        )
        tensors[at] = dataclasses.replace(tensors[at], take=lambda array: -array.T)
        return tensors

    monkeypatch.setattr(to_transformers, "hf_tensors", wrong)
    with pytest.raises(ParityError, match=r"h\.1\.mlp\.c_fc\.weight does not come back"):
        export_transformers(source, tmp_path / "hf", tokenizer="none")
    monkeypatch.setattr(to_transformers, "_check_read_back", lambda folder, checkpoint: None)
    with pytest.raises(ParityError, match="transformers' logits differ by"):
        export_transformers(source, tmp_path / "hf", tokenizer="none")
    assert os.listdir(tmp_path) == ["source"]


def test_text_has_the_same_ids_and_the_embedding_may_have_more_rows(tmp_path: Path) -> None:
    from gpt_edge.tokenizer.formats.rank_file import format_ranks

    words = source_from_ranks(format_ranks([bytes([byte]) for byte in range(256)] + MERGES))
    config = GPTConfig(
        n_layer=1, n_head=2, n_embd=32, n_ctx=64, vocab_size=words.spec.vocab_size + 3
    )
    save_checkpoint(tmp_path / "source", config, random_model(config).state_dict(), words, {})
    made = export_transformers(tmp_path / "source", tmp_path / "hf")
    assert any("get_vocab_base_pre" in note for note in made.notes)
    wanted = build_tokenizer(words).encode(TEXT)
    for use_fast in (True, False):
        theirs = AutoTokenizer.from_pretrained(tmp_path / "hf", use_fast=use_fast)
        assert theirs.encode(TEXT) == wanted
        assert (theirs.decode(wanted), theirs.eos_token_id) == (TEXT, words.spec.end_token)
    found = find_tokenizer(tmp_path / "hf")
    assert found is not None
    assert (found.spec, found.content) == (words.spec, words.content)
    config_file = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config_file["eos_token_id"] == words.spec.end_token
    assert config_file["n_ctx"] == config_file["n_positions"] == 64


def test_a_tokenizer_longer_than_the_embedding_is_written_whole(tmp_path: Path) -> None:
    source = tmp_path / "source"
    random_transformers("GPT2", "LMHeadModel", vocab_size=299).save_pretrained(source)
    save_vocabulary(source)
    (source / "added_tokens.json").write_text('{"NEW": 300}')
    with pytest.warns(match="the last 2"):
        export_transformers(source, tmp_path / "hf")
    theirs = AutoTokenizer.from_pretrained(source)
    found = AutoTokenizer.from_pretrained(tmp_path / "hf")
    text = f"{TEXT} NEW"
    assert found.encode(text) == theirs.encode(text)
    assert len(found) == 301


def test_a_tokenizer_json_of_another_kind_is_written_back(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "ship", "##s", "south", "and"]
    source = tmp_path / "source"
    random_transformers("GPT2", "LMHeadModel", vocab_size=310).save_pretrained(source)
    (source / "vocab.txt").write_text("\n".join(words))
    export_transformers(source, tmp_path / "hf")
    words_of = build_tokenizer(found) if (found := find_tokenizer(source)) else None
    theirs = AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert words_of is not None
    assert theirs("The ships and", add_special_tokens=False).input_ids == [5, 6, 7, 9]
    assert words_of.encode_part("The ships and") == [5, 6, 7, 9]
    assert theirs.eos_token == "[SEP]"
    export_transformers(source, tmp_path / "hf", force=True)


def test_only_a_folder_of_ours_is_replaced(tmp_path: Path) -> None:
    source = save_random(tmp_path / "source", KINDS["gpt2"])
    out = tmp_path / "hf"
    export_transformers(source, out, tokenizer="none")
    with pytest.raises(OutputError, match="exists"):
        export_transformers(source, out, tokenizer="none")
    before = (out / "model.safetensors").read_bytes()
    export_transformers(
        save_random(tmp_path / "other", KINDS["gpt2"], seed=1), out, tokenizer="none", force=True
    )
    assert (out / "model.safetensors").read_bytes() != before
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="did not write"):
        export_transformers(source, out, tokenizer="none", force=True)


def test_the_command_prints_what_it_made(tmp_path: Path) -> None:
    source = save_random(tmp_path / "source", KINDS["gpt2"])
    line = ("export", source, tmp_path / "hf", "--to", "transformers", "--tokenizer", "none")
    found = done(*line, "--json").json
    assert (found["ok"], found["model_type"]) == (True, "gpt2")
    assert found["files"] == {
        path.name: path.stat().st_size for path in (tmp_path / "hf").iterdir()
    }
    assert np.isfinite(found["parity"]["torch against transformers"]["logits"]["max_difference"])
    assert "transformers' gpt2" in done(*line, "--force").out
    refused = run(*line, "--force", "--scheme", "int4")
    assert (refused.code, refused.errors) == (
        2,
        ["error: --scheme is for bundles; --to transformers writes float32 weights"],
    )
