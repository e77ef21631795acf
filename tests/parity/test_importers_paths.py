"""nanoGPT files, our own folders, and every path that is not a checkpoint at all."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gpt_edge.config import PRESETS, GPTConfig
from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.reference.importers.gpt_edge_checkpoint import FORMAT, VERSION
from gpt_edge.reference.importers.sources import MappedFile
from gpt_edge.reference.importers.tensor_map import LINEAR_WEIGHTS, reference_shapes
from gpt_edge.reference.model import GPT
from tests.support.warm_process import PATIENCE, WarmProcess

ARGUMENTS = {
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 16,
    "block_size": 12,
    "vocab_size": 64,
    "dropout": 0.1,
    "bias": True,
}


class NanoBlock(nn.Module):
    """nanoGPT's block, written after its model.py: names, exact GELU, biases or none."""

    def __init__(self, width: int, has_bias: bool) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = (nn.LayerNorm(width, bias=has_bias) for _ in range(2))
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.c_attn = nn.Linear(width, 3 * width, bias=has_bias)
        self.attn.c_proj = nn.Linear(width, width, bias=has_bias)
        self.mlp.c_fc = nn.Linear(width, 4 * width, bias=has_bias)
        self.mlp.c_proj = nn.Linear(4 * width, width, bias=has_bias)

    def forward(self, x: torch.Tensor, n_head: int) -> torch.Tensor:
        B, T, C = x.shape
        q, k, v = (
            p.view(B, T, n_head, -1).transpose(1, 2)
            for p in self.attn.c_attn(self.ln_1(x)).split(C, dim=2)
        )
        scores = (q @ k.transpose(-2, -1)) / (C // n_head) ** 0.5
        scores = scores.masked_fill(torch.ones(T, T).triu(1).bool(), float("-inf"))
        x = x + self.attn.c_proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, C))
        return x + self.mlp.c_proj(nn.functional.gelu(self.mlp.c_fc(self.ln_2(x))))


class NanoGPT(nn.Module):
    """nanoGPT's model."""

    def __init__(self, arguments: dict[str, Any], is_tied: bool = True) -> None:
        super().__init__()
        C, has_bias, self.n_head = arguments["n_embd"], arguments["bias"], arguments["n_head"]
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(arguments["vocab_size"], C),
                "wpe": nn.Embedding(arguments["block_size"], C),
                "h": nn.ModuleList(NanoBlock(C, has_bias) for _ in range(arguments["n_layer"])),
                "ln_f": nn.LayerNorm(C, bias=has_bias),
            }
        )
        self.lm_head = nn.Linear(C, arguments["vocab_size"], bias=False)
        if is_tied:
            self.transformer.wte.weight = self.lm_head.weight
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.transformer.wte(ids) + self.transformer.wpe(torch.arange(ids.shape[1]))
        for block in self.transformer.h:
            x = block(x, self.n_head)
        return self.lm_head(self.transformer.ln_f(x))


def nano(is_tied: bool = True, **changes: Any) -> tuple[NanoGPT, dict[str, Any]]:
    torch.manual_seed(0)
    arguments = {**ARGUMENTS, **changes}
    model = NanoGPT(arguments, is_tied).eval()
    checkpoint = {
        "model": model.state_dict(),
        "model_args": arguments,
        "optimizer": torch.optim.AdamW(model.parameters()).state_dict(),
        "iter_num": 5,
        "best_val_loss": torch.tensor(1.5),
        "config": {"out_dir": "out", "learning_rate": 6e-4, "compile": True},
    }
    return model, checkpoint


@torch.no_grad()
@pytest.mark.parametrize("is_compiled", [True, False])
@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("has_bias", [True, False])
def test_nanogpt_checkpoint_says_what_nanogpt_says(
    has_bias: bool, is_tied: bool, is_compiled: bool, tmp_path: Path
) -> None:
    theirs, checkpoint = nano(is_tied, bias=has_bias)
    if is_compiled:
        checkpoint["model"] = {
            f"_orig_mod.{name}": tensor for name, tensor in checkpoint["model"].items()
        }
    torch.save(checkpoint, tmp_path / "ckpt.pt")
    ids = torch.randint(64, (3, 12), generator=torch.Generator().manual_seed(1))
    for path in (tmp_path, tmp_path / "ckpt.pt"):
        found = open_checkpoint(path)
        assert (found.kind, found.config.tied_embeddings, found.path) == ("nanogpt", is_tied, path)
        ours = found.load_model()
        assert (ours(ids)[0] - theirs(ids)).abs().max().item() <= 1e-4
        assert torch.equal(ours(ids)[0].argmax(-1), theirs(ids).argmax(-1))


def test_a_padded_vocabulary_keeps_its_rows(tmp_path: Path) -> None:
    torch.save(nano(vocab_size=50304)[1], tmp_path / "ckpt.pt")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.config.vocab_size == 50304
    assert checkpoint.tensor("lm_head.weight").shape == (50304, 16)


def test_mask_buffers_of_an_older_nanogpt_are_ignored(tmp_path: Path) -> None:
    _, checkpoint = nano()
    checkpoint["model"] |= {
        f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 12, 12) for i in range(2)
    }
    torch.save(checkpoint, tmp_path / "ckpt.pt")
    open_checkpoint(tmp_path).load_model()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("model_args"), "has no model and model_args"),
        (lambda c: c.pop("model"), "has no model and model_args"),
        (lambda c: c["model_args"].pop("n_head"), "model_args has no n_head"),
        (lambda c: c["model_args"].update(bias=1), "bias is 1, expected true or false"),
        (
            lambda c: c["model_args"].update(use_rmsnorm=True),
            "model_args has use_rmsnorm, which nanoGPT does not know",
        ),
        (
            lambda c: c["model_args"].update(n_layer=1),
            r"transformer\.h\.1\.ln_1\.weight is unknown",
        ),
        (lambda c: c["model_args"].update(bias=False), r"transformer\.h\.0\.ln_1\.bias is unknown"),
        (
            lambda c: c["model"].pop("transformer.wpe.weight"),
            r"transformer\.wpe\.weight is missing",
        ),
        (lambda c: c["model"].update(x=torch.zeros(1)), "x is unknown"),
        (
            lambda c: c["model"].update({"_orig_mod.lm_head.weight": torch.zeros(1)}),
            "with and without",
        ),
        (
            lambda c: c["model"].update(
                {"transformer.wpe.weight": torch.zeros(12, 16, dtype=torch.float64)}
            ),
            r"wpe\.weight has dtype torch\.float64",
        ),
    ],
)
def test_a_nanogpt_file_that_does_not_fit_is_one_clear_line(
    change: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path
) -> None:
    _, checkpoint = nano()
    checkpoint["model"] = dict(checkpoint["model"])
    change(checkpoint)
    torch.save(checkpoint, tmp_path / "ckpt.pt")
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(tmp_path)
    assert "\n" not in caught.value.message


OWN = GPTConfig(
    n_layer=2, n_head=2, n_embd=8, n_ctx=8, vocab_size=11, norm="post", tied_embeddings=False
)


def write_own(folder: Path, **described: Any) -> GPT:
    torch.manual_seed(0)
    model = GPT(OWN)
    save_file(
        {name: p.detach() for name, p in model.named_parameters()}, folder / "model.safetensors"
    )
    values = {
        "format": FORMAT,
        "version": VERSION,
        "config": OWN.to_dict(),
        "tokenizer": None,
        "training": {},
    }
    (folder / "config.json").write_text(json.dumps({**values, **described}))
    return model


def test_our_own_checkpoint_comes_back_without_a_copy(tmp_path: Path) -> None:
    model = write_own(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert (checkpoint.kind, checkpoint.config) == ("gpt-edge", OWN)
    assert checkpoint.names() == [name for name, _ in model.named_parameters()]
    for name, parameter in model.named_parameters():
        array = checkpoint.tensor(name)
        assert np.shares_memory(array, checkpoint.tensor(name))
        np.testing.assert_array_equal(array, parameter.detach().numpy())
    ids = torch.arange(8)[None]
    torch.testing.assert_close(
        checkpoint.load_model()(ids)[0], model.eval()(ids)[0], atol=0, rtol=0
    )


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"version": 2}, "has format version 2, this gpt-edge reads version 1"),
        ({"version": "1"}, "version is '1', expected a whole number"),
        ({"version": None}, "has no version"),
        ({"config": None}, "has no config object"),
        ({"config": {**OWN.to_dict(), "n_layer": 0}}, "n_layer must be a whole number"),
        ({"config": {**OWN.to_dict(), "rotary": True}}, "unknown config fields: rotary"),
        (
            {"config": {**OWN.to_dict(), "tied_embeddings": True, "vocab_size": 12}},
            r"wte\.weight has shape \[11, 8\]",
        ),
        (
            {"config": {**OWN.to_dict(), "norm": "pre"}},
            r"ln_f\.weight is missing; ln_f\.bias is missing",
        ),
    ],
)
def test_our_own_checkpoint_with_another_config_is_refused(
    described: Any, message: str, tmp_path: Path
) -> None:
    write_own(tmp_path, **described)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)


def test_our_own_checkpoint_without_weights_is_refused(tmp_path: Path) -> None:
    write_own(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read: No such file"):
        open_checkpoint(tmp_path)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: no such file or folder") as caught:
        open_checkpoint(tmp_path / "nowhere")
    assert "config.json" in str(caught.value.hint)


def test_a_file_where_a_folder_belongs(tmp_path: Path) -> None:
    write_own(tmp_path)
    for name in ("model.safetensors", "config.json"):
        with pytest.raises(
            CheckpointError, match="is a file, expected a checkpoint's folder"
        ) as caught:
            open_checkpoint(tmp_path / name)
        assert caught.value.hint == f"try {tmp_path}"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "is an empty folder"),
        ({"notes.txt": "x"}, "is not a checkpoint that gpt-edge knows"),
        ({"manifest.json": "{}", "config.json": "{}"}, "is a bundle, expected a checkpoint"),
        ({"config.json": "{"}, "is not valid JSON"),
        ({"config.json": ""}, "is not valid JSON"),
        ({"config.json": "[1]"}, "must hold a JSON object, got list"),
        ({"config.json": "[" * 100_000}, "is not valid JSON"),
        ({"config.json": " " * (1 << 20) + "{}"}, "at most 1048576 are read"),
        ({"config.json": "{}"}, "describes a model of type None"),
        (
            {"config.json": '{"model_type": "llama", "hidden_size": 4096}'},
            "describes a model of type 'llama'",
        ),
        (
            {
                "config.json": json.dumps({**ARGUMENTS, "n_positions": 12, "model_type": "gpt2"}),
                "tf_model.h5": "",
            },
            "has a config.json but no weights",
        ),
    ],
)
def test_a_folder_that_is_no_checkpoint(
    files: dict[str, str], message: str, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(tmp_path)
    assert str(tmp_path) in caught.value.message
    assert "\n" not in caught.value.message


def test_an_epsilon_that_no_float_holds(tmp_path: Path) -> None:
    sizes = {**ARGUMENTS, "n_positions": 12}
    values = {**sizes, "model_type": "gpt2", "layer_norm_epsilon": 10**400}
    (tmp_path / "config.json").write_text(json.dumps(values))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"layer_norm_epsilon is 1000.*that a float holds"):
        open_checkpoint(tmp_path)


def test_a_config_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b'{"model_type": "gpt\xff"}')
    with pytest.raises(CheckpointError, match="is not valid JSON"):
        open_checkpoint(tmp_path)


def test_a_config_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        open_checkpoint(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    write_own(tmp_path)
    (tmp_path / "model.safetensors").chmod(0)
    with pytest.raises(CheckpointError, match="cannot be read: Permission denied"):
        open_checkpoint(tmp_path)


def test_a_file_that_shrank_since_it_was_checked_is_an_error_not_a_crash(tmp_path: Path) -> None:
    write_own(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    os.truncate(tmp_path / "model.safetensors", 100)
    with pytest.raises(CheckpointError, match=r"changed from .* to 100 bytes while open"):
        checkpoint.load_model()


DROPPED = """
import gc, sys, weakref
from pathlib import Path
from gpt_edge.reference.importers import open_checkpoint
gc.disable()
weights = weakref.ref(open_checkpoint(Path(sys.argv[1])).load_model().wte.weight)
sys.exit(weights() is not None)
"""


def test_a_dropped_model_is_gone_at_once(checkpoints: dict[str, Path]) -> None:
    """In a process of its own: only the first model left a cycle behind. GPT-2 XL's 6 GB would stay
    beside the export.
    """
    process = WarmProcess(DROPPED, checkpoints["gpt2"])
    process.communicate(PATIENCE)
    assert process.returncode == 0


MEASURE = """
import sys
from pathlib import Path
from gpt_edge.bench.process import peak_bytes
from gpt_edge.reference.importers import open_checkpoint
checkpoint = open_checkpoint(Path(sys.argv[1]))
if sys.argv[2] == "load":
    model = checkpoint.load_model()
else:
    for name in checkpoint.names():
        checkpoint.tensor(name)
        checkpoint.release(name)
print(peak_bytes())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("way", "share"), [("load", 1.3), ("stream", 0.2)])
def test_gpt2_xl_is_read_one_tensor_at_a_time(way: str, share: float, tmp_path: Path) -> None:
    """Peak memory of a process that loads all of it, or looks at one tensor after the other, in
    shares of the weights.
    """
    config, header, end = PRESETS["gpt2-xl"], {}, 0
    for name, shape in reference_shapes(config).items():
        stored = shape[::-1] if name.endswith(LINEAR_WEIGHTS) else shape
        begin, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": stored, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:  # zeros that take no room on the disk
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    sizes = {"n_layer": 48, "n_head": 25, "n_embd": 1600, "n_positions": 1024, "vocab_size": 50257}
    (tmp_path / "config.json").write_text(json.dumps({**sizes, "model_type": "gpt2"}))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path, way], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) <= share * 4 * config.n_parameters


def test_releasing_pages_keeps_every_value(tmp_path: Path) -> None:
    values = np.random.default_rng(0).bytes(1 << 20)
    (tmp_path / "x").write_bytes(values)
    file = MappedFile(tmp_path / "x")
    view = memoryview(file.mapping)
    file.release(5, (1 << 20) - 9)
    assert bytes(view) == values
