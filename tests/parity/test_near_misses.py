"""Folders one level off, and files of other tools: one line that says what was found and what to
take; a hint leads to something that opens, or to a file that it names.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers import open_checkpoint
from tests.support.transformers_models import random_transformers


def save_model(folder: Path) -> None:
    random_transformers("GPT2", "LMHeadModel").save_pretrained(folder)


def trainer(folder: Path) -> None:
    for step in (90, 500):
        save_model(folder / f"checkpoint-{step}")
    (folder / "trainer_state.json").write_text("{}")


def cached_model(folder: Path) -> None:
    for commit in ("0a1b", "2c3d"):
        save_model(folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0a1b")


def cache(folder: Path) -> None:
    cached_model(folder / "models--me--gpt")


def above_the_cache(folder: Path) -> None:
    cached_model(folder / "hub" / "models--me--gpt")


def inner(folder: Path) -> None:
    save_model(folder / "final")


def simple(folder: Path) -> None:
    save_model(folder / "checkpoint" / "run1")


def save_file_of(file: Path) -> None:
    file.parent.mkdir(parents=True)
    model = random_transformers("GPT2", "LMHeadModel", n_layer=12, n_head=12, n_embd=768)
    torch.save({"module": model.state_dict()}, file)


def deep_speed(folder: Path) -> None:
    (folder / "latest").write_text("global_step10")
    save_file_of(folder / "global_step10" / "mp_rank_00_model_states.pt")


def lightning(folder: Path) -> None:
    save_file_of(folder / "lightning_logs" / "version_0" / "checkpoints" / "epoch=0-step=9.ckpt")


def build_nanogpt(folder: Path) -> None:
    save_file_of(folder / "log" / "model_00100.pt")


LEVELS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "Trainer": (trainer, "the output_dir of a Trainer with 2 checkpoints", "checkpoint-500"),
    "a cached model": (cached_model, "a model's folder in the hub's cache", "snapshots/0a1b"),
    "the cache": (cache, "the hub's cache with 1 model", "models--me--gpt/snapshots/0a1b"),
    "above the cache": (
        above_the_cache,
        "the hub's cache with 1 model",
        "hub/models--me--gpt/snapshots/0a1b",
    ),
    "gpt-2-simple": (simple, "gpt-2-simple's folder with 1 run", "checkpoint/run1"),
    "DeepSpeed": (
        deep_speed,
        "the folder of a training with DeepSpeed",
        "global_step10/mp_rank_00_model_states.pt",
    ),
    "Lightning": (
        lightning,
        "the folder of a training with Lightning",
        "lightning_logs/version_0/checkpoints/epoch=0-step=9.ckpt",
    ),
    "build-nanogpt": (build_nanogpt, "a folder with 1 training in it", "log"),
    "one folder": (inner, "a folder with 1 model folder", "final"),
}


@pytest.mark.parametrize("kind", LEVELS)
def test_a_folder_one_level_off_names_the_one_to_take(kind: str, tmp_path: Path) -> None:
    make, what, name = LEVELS[kind]
    make(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path)
    assert caught.value.message == f"{tmp_path} is {what}, not a checkpoint"
    assert caught.value.hint == f"take {tmp_path / name}"
    open_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gpt2.gguf", b"GGUF", "GGUF weights, which are not read"),
        ("model.onnx", b"", "an ONNX export"),
        ("tf_model.h5", b"", "weights for TensorFlow"),
        ("flax_model.msgpack", b"", "weights for Flax"),
        ("model.bin", (20240326).to_bytes(4, "little") + bytes(1020), "llm.c's model file"),
    ],
)
def test_files_of_other_tools_are_named(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(path)
        assert message in caught.value.message
        assert name in caught.value.message
        assert caught.value.hint not in (None, f"try {tmp_path}")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gpt2.q4.gguf", "is GGUF weights, which are not read: take the checkpoint"),
        ("openvino_model.xml", "is an export for OpenVINO: take the checkpoint"),
        ("rust_model.ot", "is weights for Rust: take model.safetensors"),
        ("model.fp16.safetensors", "rename it to model.safetensors"),
        ("model-00001-of-00002.safetensors", "need model.safetensors.index.json beside them"),
        ("pytorch_model-00001-of-00002.bin", "need pytorch_model.bin.index.json beside them"),
    ],
)
def test_a_model_folder_with_other_weights_says_what_to_do(
    name: str, hint: str, tmp_path: Path
) -> None:
    random_transformers("GPT2", "LMHeadModel").config.save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"has a config\.json but no weights") as caught:
        open_checkpoint(tmp_path)
    assert hint in str(caught.value.hint)


def test_a_state_dict_inside_another_leads_to_the_file_itself(tmp_path: Path) -> None:
    model = random_transformers("GPT2", "LMHeadModel")
    model.config.save_pretrained(tmp_path)
    file = tmp_path / "pytorch_model.bin"
    torch.save({"state_dict": model.state_dict()}, file)
    with pytest.raises(CheckpointError, match="state_dict is OrderedDict") as caught:
        open_checkpoint(tmp_path)
    assert str(caught.value.hint).endswith(f"take the file: {file}")
    assert open_checkpoint(file).config.n_embd == 64


def test_a_quantized_model_leads_to_the_one_it_was_made_from(tmp_path: Path) -> None:
    model = random_transformers("GPT2", "LMHeadModel")
    model.config.save_pretrained(tmp_path)
    tensors = {name: tensor.to(torch.int8) for name, tensor in model.state_dict().items()}
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"have dtype torch\.int8") as caught:
        open_checkpoint(tmp_path)
    assert "it was quantized: take the model that it was made from" in str(caught.value.hint)


def test_the_address_of_a_repository_leads_to_its_name() -> None:
    with pytest.raises(CheckpointError, match="no such file") as caught:
        open_checkpoint("https://huggingface.co/me/model")
    assert caught.value.hint == "for a repository of the hub write hf://me/model"


@pytest.mark.parametrize("name", ["tf_model.h5", "flax_model.msgpack"])
def test_a_model_folder_without_torch_weights_says_what_it_has(name: str, tmp_path: Path) -> None:
    random_transformers("GPT2", "LMHeadModel").config.save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(b"0")
    with pytest.raises(CheckpointError, match=r"has a config\.json but no weights") as caught:
        open_checkpoint(tmp_path)
    assert str(caught.value.hint).startswith(f"{name} is not read")


def test_an_adapter_names_its_base(tmp_path: Path) -> None:
    values = {"base_model_name_or_path": "gpt2", "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="is a PEFT adapter of gpt2") as caught:
        open_checkpoint(tmp_path)
    assert f"--adapter {tmp_path}" in str(caught.value.hint)


def test_an_adapter_beside_a_model_is_noted(tmp_path: Path) -> None:
    save_model(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.warns(match=f"its LoRA adapter is not merged; --adapter {tmp_path} merges it"):
        open_checkpoint(tmp_path)


def test_a_config_beside_weights_of_another_name_leads_to_them(tmp_path: Path) -> None:
    model = random_transformers("GPT2", "LMHeadModel")
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "best.pth")
    with pytest.raises(CheckpointError, match="but no weights") as caught:
        open_checkpoint(tmp_path)
    assert str(caught.value.hint).endswith(f"then take {tmp_path / 'best.pth'}")
    open_checkpoint(tmp_path / "best.pth")


@pytest.mark.parametrize(
    ("name", "what", "command"),
    [
        ("zero_to_fp32.py", "DeepSpeed's checkpoint", "python FOLDER/zero_to_fp32.py FOLDER FILE"),
        ("__0_0.distcp", "a checkpoint of FSDP", "accelerate merge-weights FOLDER OUT"),
        (
            "pytorch_model_fsdp_0",
            "a checkpoint of FSDP",
            "accelerate merge-weights FOLDER/pytorch_model_fsdp_0 OUT",
        ),
    ],
)
def test_a_checkpoint_in_pieces_is_told_how_to_be_joined(
    name: str, what: str, command: str, tmp_path: Path
) -> None:
    (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=what) as caught:
        open_checkpoint(tmp_path)
    assert caught.value.hint == command.replace("FOLDER", str(tmp_path))


@pytest.mark.parametrize("name", ["GPT2", "OpenAIGPT"])
def test_a_config_of_2019_without_a_type_is_read(name: str, tmp_path: Path) -> None:
    theirs = random_transformers(name, "LMHeadModel")
    values = theirs.config.to_dict()
    del values["model_type"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.warns(match="names no model_type"):
        found, _ = open_checkpoint(tmp_path).load_model()(torch.tensor([[1, 2, 3]]))
    with torch.no_grad():
        torch.testing.assert_close(
            found, theirs(torch.tensor([[1, 2, 3]])).logits, atol=1e-4, rtol=0
        )


def test_weights_by_their_file_lead_to_the_folder_only_where_it_opens(tmp_path: Path) -> None:
    save_model(tmp_path)
    file = tmp_path / "model.safetensors"
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(file)
    assert caught.value.hint == f"try {tmp_path}"
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json beside it"):
        open_checkpoint(file)


def test_float64_is_one_fault_with_the_next_step(tmp_path: Path) -> None:
    random_transformers("GPT2", "LMHeadModel").double().save_pretrained(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"\d+ of \d+ tensors, such as .* have dtype F64"
    ) as caught:
        open_checkpoint(tmp_path)
    assert "model.float()" in str(caught.value.hint)
