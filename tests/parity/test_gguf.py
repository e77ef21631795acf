"""`export --to gguf`: what the `gguf` package reads back, against a forward of GPT-2 written here
from the names in the file, as llama.cpp computes it.

With llama-cpp-python itself it was checked by benchmarks/quality/gguf_check.py.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import GPT2TokenizerFast, PreTrainedModel

from gpt_edge.cli import main
from gpt_edge.errors import ExportError, OutputError, TokenizerError
from gpt_edge.export.gguf.file import export_gguf
from gpt_edge.export.gguf.vocabulary import gguf_vocabulary
from gpt_edge.tokenizer import find_tokenizer
from tests.support.models import TINY, save_random
from tests.support.transformers_models import random_transformers, save_vocabulary

gguf = pytest.importorskip("gguf")
TEXT = "hear me speak, naïve 中文!"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreTrainedModel]:
    folder = tmp_path_factory.mktemp("gguf") / "tiny"
    theirs = random_transformers("GPT2", "LMHeadModel")
    theirs.save_pretrained(folder)
    save_vocabulary(folder)
    return folder, theirs


def read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The file's values and its tensors, dequantized, by the gguf package's reader."""
    reader = gguf.GGUFReader(path)
    values = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {
        tensor.name: torch.from_numpy(
            np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32)
        )
        for tensor in reader.tensors
    }
    return values, tensors


def forward(values: dict[str, Any], tensors: dict[str, torch.Tensor], ids: list[int]) -> Any:
    """Logits [T, V], after llama.cpp's graph of gpt2."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        epsilon = values["gpt2.attention.layer_norm_epsilon"]
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        return F.layer_norm(x, x.shape[-1:], weight, bias, epsilon)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    n_head = values["gpt2.attention.head_count"]
    x = tensors["token_embd.weight"][ids] + tensors["position_embd.weight"][: len(ids)]
    for layer in range(values["gpt2.block_count"]):
        block = f"blk.{layer}"
        packed = linear(norm(x, f"{block}.attn_norm"), f"{block}.attn_qkv")
        q, k, v = packed.view(len(ids), 3, n_head, -1).permute(1, 2, 0, 3)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + linear(y.transpose(0, 1).reshape(x.shape), f"{block}.attn_output")
        up = linear(norm(x, f"{block}.ffn_norm"), f"{block}.ffn_up")
        x = x + linear(F.gelu(up, approximate="tanh"), f"{block}.ffn_down")
    head = tensors.get("output.weight", tensors["token_embd.weight"])
    return norm(x, "output_norm") @ head.T


# max |difference| of logits, whose spread is 2: summation order, float16, 8 bits
@pytest.mark.parametrize(("type", "tolerance"), [("f32", 1e-4), ("f16", 0.02), ("q8_0", 0.2)])
def test_the_file_computes_what_the_checkpoint_does(
    type: str, tolerance: float, model: tuple[Path, PreTrainedModel], tmp_path: Path
) -> None:
    folder, theirs = model
    exported = export_gguf(folder, tmp_path / "tiny.gguf", type=type)
    assert set(exported.types) == {"f32", type}
    values, tensors = read(exported.path)
    ids = [5, 17, 3, 44, 90, 2, 2, 61, 8, 33]
    with torch.no_grad():
        wanted = theirs(torch.tensor([ids])).logits[0]
    assert float((forward(values, tensors, ids) - wanted).abs().max()) <= tolerance
    assert exported.n_bytes == exported.path.stat().st_size


def test_the_vocabulary_is_the_checkpoints_own(
    model: tuple[Path, PreTrainedModel], tmp_path: Path
) -> None:
    folder, _ = model
    values, _ = read(export_gguf(folder, tmp_path / "tiny.gguf").path)
    tokens, types = values["tokenizer.ggml.tokens"], values["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == len(set(tokens)) == 310
    vocab = json.loads((folder / "vocab.json").read_text())
    assert {token: id for id, token in enumerate(tokens) if not token.startswith("[PAD")} == vocab
    end = vocab["<|endoftext|>"]
    assert values["tokenizer.ggml.eos_token_id"] == end
    assert (types[end], types[1], types[309]) == (3, 1, 5)
    merges = (folder / "merges.txt").read_text().splitlines()[1:]
    assert values["tokenizer.ggml.merges"] == merges
    assert (values["tokenizer.ggml.model"], values["tokenizer.ggml.pre"]) == ("gpt2", "gpt-2")
    # the tokens as they stand join to the text that transformers encodes
    names = "".join(tokens[id] for id in GPT2TokenizerFast.from_pretrained(folder)(TEXT).input_ids)
    byte_of = {name: byte for byte, name in gguf_bytes().items()}
    assert bytes(byte_of[name] for name in names).decode() == TEXT


def gguf_bytes() -> dict[int, str]:
    """GPT-2's stand-ins for bytes, from its paper's code."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {
        byte: chr(256 + place) for place, byte in enumerate(others)
    }


def test_an_untied_head_is_written(tmp_path: Path) -> None:
    theirs = random_transformers("GPT2", "LMHeadModel", tie_word_embeddings=False)
    theirs.save_pretrained(tmp_path / "hf")
    save_vocabulary(tmp_path / "hf")
    _, tensors = read(export_gguf(tmp_path / "hf", tmp_path / "x.gguf", type="f32").path)
    torch.testing.assert_close(tensors["output.weight"], theirs.lm_head.weight.detach())


def test_rows_that_are_no_whole_blocks_stay_f16(tmp_path: Path) -> None:
    random_transformers("GPT2", "LMHeadModel", n_embd=40).save_pretrained(tmp_path / "hf")
    save_vocabulary(tmp_path / "hf")
    exported = export_gguf(tmp_path / "hf", tmp_path / "x.gguf", type="q8_0")
    assert exported.types["q8_0"] == 2  # the MLP's second matrices, whose rows are 160 wide
    assert exported.types["f16"] == 7


@pytest.mark.parametrize(("kind", "reason"), [("gpt1", "post-norm"), ("gpt3", "banded layers")])
def test_a_model_that_llama_cpp_cannot_compute_is_refused(
    kind: str, reason: str, tmp_path: Path
) -> None:
    save_random(tmp_path / kind, TINY[kind])
    with pytest.raises(ExportError, match=reason):
        export_gguf(tmp_path / kind, tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()


def test_a_file_without_a_vocabulary_is_refused(
    model: tuple[Path, PreTrainedModel], tmp_path: Path
) -> None:
    with pytest.raises(TokenizerError, match="needs a vocabulary"):
        export_gguf(model[0], tmp_path / "x.gguf", tokenizer="none")


def test_a_weight_beyond_float16_is_refused(tmp_path: Path) -> None:
    theirs = random_transformers("GPT2", "LMHeadModel")
    theirs.transformer.h[0].mlp.c_fc.weight.data[0, 0] = 1e6
    theirs.save_pretrained(tmp_path / "hf")
    save_vocabulary(tmp_path / "hf")
    with pytest.raises(ExportError, match=r"more than float16 does") as caught:
        export_gguf(tmp_path / "hf", tmp_path / "x.gguf")
    assert "--gguf-type f32" in str(caught.value.hint)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_only_a_gguf_file_is_replaced_and_only_by_force(
    model: tuple[Path, PreTrainedModel], tmp_path: Path
) -> None:
    out = tmp_path / "tiny.gguf"
    export_gguf(model[0], out)
    with pytest.raises(OutputError, match="exists"):
        export_gguf(model[0], out)
    export_gguf(model[0], out, type="f32", force=True)
    out.write_text("my notes")
    with pytest.raises(OutputError, match="not a file that was written here"):
        export_gguf(model[0], out, force=True)
    assert out.read_text() == "my notes"


def test_the_command_writes_a_file_and_says_so(
    model: tuple[Path, PreTrainedModel], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tiny.gguf"
    command = ["export", str(model[0]), str(out), "--to", "gguf"]
    assert main([*command, "--gguf-type", "q8_0", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["ok"], said["types"]) == (True, {"f32": 19, "q8_0": 9})
    assert main([*command, "--scheme", "int4"]) == 2
    assert "--scheme is for bundles" in capsys.readouterr().err


def test_settings_of_the_tokenizer_are_written_or_refused(
    model: tuple[Path, PreTrainedModel], tmp_path: Path
) -> None:
    folder, _ = model
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"add_prefix_space": True, "eos_token": "<|endoftext|>"})
    )
    try:
        values, _ = read(export_gguf(folder, tmp_path / "space.gguf").path)
    finally:
        (folder / "tokenizer_config.json").unlink()
    assert values["tokenizer.ggml.add_space_prefix"] is True
    assert values["tokenizer.ggml.add_bos_token"] is False


def test_tokens_without_a_row_are_left_out_and_something_ends_a_text(
    model: tuple[Path, PreTrainedModel], tmp_path: Path
) -> None:
    """llama.cpp ends a text at token 11 where the file names none."""
    shorter = tmp_path / "short"
    random_transformers("GPT2", "LMHeadModel", vocab_size=299).save_pretrained(shorter)
    save_vocabulary(shorter)
    with pytest.warns(match="the last 1, can be neither read nor generated"):
        values, _ = read(export_gguf(shorter, tmp_path / "short.gguf").path)
    whole, _ = read(export_gguf(model[0], tmp_path / "whole.gguf").path)
    assert values["tokenizer.ggml.tokens"] == whole["tokenizer.ggml.tokens"][:299]
    assert values["tokenizer.ggml.merges"] == whole["tokenizer.ggml.merges"][:-1]
    source = find_tokenizer(model[0])
    assert source is not None
    endless = dataclasses.replace(
        source, spec=dataclasses.replace(source.spec, end_token=None, special_tokens=())
    )
    assert gguf_vocabulary(endless, 310).end_token == 0  # its row has no token now
    without = dataclasses.replace(source, spec=dataclasses.replace(source.spec, end_token=None))
    with pytest.warns(match=r"ends a text at token 0, '<\|endoftext\|>'"):
        assert gguf_vocabulary(without, 300).end_token == 0
