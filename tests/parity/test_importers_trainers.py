"""GPT-2s of other trainers: build-nanogpt, minGPT, Lightning, state dicts alone. Those whose shapes
tell the config load and give their logits; the others are told what is missing.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.reference.importers.tensor_map import LINEAR_WEIGHTS
from tests.support.transformers_models import GPT2, random_transformers

pytestmark = pytest.mark.filterwarnings("ignore::gpt_edge.errors.GPTEdgeWarning")
IDS = torch.tensor([[5, 17, 3, 44, 90, 2, 2, 61, 8, 33]])
SIZES = {"n_layer": 2, "n_head": 4, "n_embd": 64, "block_size": 96, "vocab_size": 310}
Tensors = dict[str, torch.Tensor]


def theirs_of(**config: Any) -> PreTrainedModel:
    return random_transformers("GPT2", "LMHeadModel", **config)


def as_linear(model: PreTrainedModel) -> Tensors:
    """The weights as nn.Linear stores them."""
    return {
        name: tensor.t().contiguous() if name.endswith(LINEAR_WEIGHTS) else tensor
        for name, tensor in model.state_dict().items()
    }


def trainers_class(**fields: Any) -> Any:
    """An object of a class GPTConfig in __main__, as a script's dataclass is pickled."""
    made = dataclasses.make_dataclass("GPTConfig", list(fields))
    made.__module__ = "__main__"
    setattr(sys.modules["__main__"], "GPTConfig", made)  # noqa: B010
    return made(**fields)


@torch.no_grad()
def notes_of_same_model(path: Path, theirs: PreTrainedModel, **options: Any) -> tuple[str, ...]:
    checkpoint = open_checkpoint(path, **options)
    found, _ = checkpoint.load_model()(IDS)
    torch.testing.assert_close(found, theirs(IDS).logits, atol=1e-4, rtol=0)
    return checkpoint.notes


def test_build_nanogpts_log_folder_loads_its_last_step(tmp_path: Path) -> None:
    theirs = theirs_of()
    for step in (100, 20):
        tensors = as_linear(theirs if step == 100 else theirs_of(seed=1))
        content = {"model": tensors, "config": trainers_class(**SIZES), "step": step}
        torch.save({**content, "val_loss": 3.1}, tmp_path / f"model_{step:05}.pt")
    assert notes_of_same_model(tmp_path, theirs) == ()
    assert notes_of_same_model(tmp_path / "model_00100.pt", theirs) == ()
    assert open_checkpoint(tmp_path).kind == "build-nanogpt"


def test_nanogpts_own_config_class_means_the_exact_gelu(tmp_path: Path) -> None:
    theirs = theirs_of(activation_function="gelu")
    config = trainers_class(**SIZES, bias=True, dropout=0.0)
    torch.save({"model": as_linear(theirs), "config": config}, tmp_path / "model.pt")
    assert notes_of_same_model(tmp_path, theirs) == ()


def test_mingpts_folder_loads_with_the_config_beside_it(tmp_path: Path) -> None:
    theirs = theirs_of(tie_word_embeddings=False)
    masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 96, 96) for i in range(2)}
    torch.save({**as_linear(theirs), **masks}, tmp_path / "model.pt")
    sizes = {**SIZES, "model_type": None}
    values = {"system": {"seed": 1}, "data": {}, "model": sizes, "trainer": {"batch_size": 64}}
    (tmp_path / "config.json").write_text(json.dumps(values))
    for path in (tmp_path, tmp_path / "model.pt"):
        assert notes_of_same_model(path, theirs) == ()


def test_mingpts_model_type_tells_the_heads(tmp_path: Path) -> None:
    theirs = random_transformers(
        "GPT2", "LMHeadModel", n_layer=3, n_head=3, n_embd=48, tie_word_embeddings=False
    )
    torch.save(as_linear(theirs), tmp_path / "model.pt")
    values = {"model": {"model_type": "gpt-nano", "n_head": None, "n_layer": None}}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert notes_of_same_model(tmp_path, theirs) == ()


def test_a_head_stands_for_the_tied_embedding_that_was_dropped(tmp_path: Path) -> None:
    theirs = theirs_of(activation_function="gelu")
    tensors = as_linear(theirs)
    del tensors["transformer.wte.weight"]
    arguments = {**SIZES, "bias": True, "dropout": 0.0}
    torch.save({"model": tensors, "model_args": arguments}, tmp_path / "ckpt.pt")
    assert notes_of_same_model(tmp_path, theirs) == ()
    settings = {"n_head": 4, "activation_function": "gelu"}
    torch.save({"net": tensors, **settings}, tmp_path / "ckpt.pt")
    assert notes_of_same_model(tmp_path, theirs) == ()


def test_what_lies_beside_lightnings_model_is_left_out(tmp_path: Path) -> None:
    theirs = theirs_of()
    tensors = {f"net.{name}": tensor for name, tensor in theirs.state_dict().items()}
    content = {"state_dict": {**tensors, "criterion.weight": torch.ones(3)}}
    torch.save({**content, "hyper_parameters": {"n_head": 4}}, tmp_path / "last.ckpt")
    assert "left out criterion.weight" in notes_of_same_model(tmp_path, theirs)[1]
    content["state_dict"]["net.gate.weight"] = torch.ones(3)
    torch.save({**content, "hyper_parameters": {"n_head": 4}}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"gate\.weight is unknown"):
        open_checkpoint(tmp_path)


def test_a_classifiers_state_dict_is_no_language_model(tmp_path: Path) -> None:
    theirs = random_transformers("GPT2", "ForSequenceClassification")
    torch.save({"state_dict": theirs.state_dict(), "n_head": 4}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"a classifier: score\.weight and no lm_head"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("is_linear", [True, False])
def test_lightnings_checkpoint_needs_the_heads_and_nothing_else(
    is_linear: bool, tmp_path: Path
) -> None:
    theirs = theirs_of()
    tensors = as_linear(theirs) if is_linear else theirs.state_dict()
    tensors = {f"model.{name}": tensor for name, tensor in tensors.items()}
    file = tmp_path / "last.ckpt"
    torch.save({"state_dict": tensors, "epoch": 1, "hyper_parameters": {"lr": 1e-3}}, file)
    for path in (tmp_path, file):
        with pytest.raises(CheckpointError, match=r"has no n_head: its tensors say") as caught:
            open_checkpoint(path)
        assert "--config FILE" in str(caught.value.hint)
    config = tmp_path / "heads.json"
    config.write_text('{"n_head": 4}')
    notes = notes_of_same_model(file, theirs, config=config)
    assert [note.partition(" ")[0] for note in notes] == ["every", "nothing"][: 1 + is_linear]
    torch.save({"state_dict": tensors, "hyper_parameters": {"config": SIZES}}, file)
    notes_of_same_model(file, theirs)


def test_a_models_own_config_json_completes_a_state_dict(tmp_path: Path) -> None:
    theirs = theirs_of(activation_function="relu")
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    theirs.config.save_pretrained(tmp_path / "hf")
    config = tmp_path / "hf" / "config.json"
    notes_of_same_model(tmp_path / "weights.pth", theirs, config=config)


def test_a_folder_without_config_takes_the_one_that_is_given(tmp_path: Path) -> None:
    theirs = theirs_of()
    theirs.save_pretrained(tmp_path)
    config = (tmp_path / "config.json").rename(tmp_path / "other.json")
    with pytest.raises(CheckpointError, match=r"holds model\.safetensors but no config\.json"):
        open_checkpoint(tmp_path)
    assert notes_of_same_model(tmp_path, theirs, config=config) == ()


def test_heads_of_a_known_shape_are_a_noted_guess(tmp_path: Path) -> None:
    theirs = random_transformers("GPT2", "LMHeadModel", n_layer=12, n_head=12, n_embd=768)
    torch.save(theirs.state_dict(), tmp_path / "model.pt")
    (note,) = notes_of_same_model(tmp_path, theirs)
    assert note == "n_head is not in it: 12 is taken, as gpt2 of this shape has"


EXTRAS: dict[str, Callable[[], Any]] = {
    "numpy number": lambda: np.float64(2.3),
    "path": lambda: pathlib.PurePosixPath("out"),
    "namespace": lambda: types.SimpleNamespace(lr=0.1),
    "class of the script": lambda: trainers_class(lr=0.1),
    "counts, a set, a dtype and a device": lambda: [
        collections.Counter({5: 1}),
        {1, 2},
        torch.float32,
        torch.device("cpu"),
    ],
    "defaultdict": lambda: collections.defaultdict(list, {1: [2]}),
    "a type": lambda: [int, str, dict],
}


@pytest.mark.parametrize("kind", EXTRAS)
def test_settings_beside_nanogpts_weights_are_inert(kind: str, tmp_path: Path) -> None:
    theirs = theirs_of(activation_function="gelu")
    content = {"model": as_linear(theirs), "model_args": {**SIZES, "bias": True, "dropout": 0.0}}
    torch.save({**content, "best_val_loss": EXTRAS[kind]()}, tmp_path / "ckpt.pt")
    assert notes_of_same_model(tmp_path, theirs) == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {"encoder.weight": torch.zeros(2, 2)}}, "holds a state dict but no GPT-2"),
        ({"weight": torch.zeros(2)}, "holds a state dict but no GPT-2"),
        ({"epoch": 3}, "has no model and model_args"),
        ({"a": {"wpe.weight": 1}, "b": {"wpe.weight": 1}}, "has no model and model_args"),
    ],
)
def test_a_torch_file_of_something_else_is_one_clear_line(
    content: Any, message: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(tmp_path)
    assert "\n" not in caught.value.message


class AttributeDict(dict[str, Any]):
    """As Lightning's: a dictionary with a class of its own."""


class Settings:
    """As a script's own class of settings."""

    def __init__(self, n_head: int) -> None:
        self.n_head = n_head


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("model_state_dict", {"n_head": 4}),
        ("module", {"config": {"n_head": 4}}),
        ("state_dict", {"hyper_parameters": {"settings": Settings(4)}}),
        ("state_dict", {"hyper_parameters": AttributeDict(nhead=4)}),
    ],
)
def test_a_state_dict_is_found_under_any_name_with_settings_of_any_class(
    key: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for made in (AttributeDict, Settings):
        monkeypatch.setattr(made, "__module__", "__main__")
        monkeypatch.setattr(sys.modules["__main__"], made.__name__, made, raising=False)
    theirs = theirs_of()
    content = {key: theirs.state_dict(), "optimizer_state_dict": {"state": {}}, "epoch": 3}
    torch.save({**content, **settings}, tmp_path / "last.pth")
    notes_of_same_model(tmp_path / "last.pth", theirs)


@pytest.mark.parametrize("name", ["weights.pth", "pytorch_model.bin"])
@pytest.mark.parametrize(
    "flags", [{"scale_attn_by_inverse_layer_idx": True}, {"scale_attn_weights": False}]
)
def test_how_attention_is_scaled_counts_for_a_state_dict_too(
    flags: dict[str, bool], name: str, tmp_path: Path
) -> None:
    theirs = theirs_of(**flags, attn_implementation="eager")
    torch.save(theirs.state_dict(), tmp_path / name)
    (tmp_path / "config.json").write_text(json.dumps(theirs.config.to_dict()))
    notes_of_same_model(tmp_path / name, theirs)


def test_weights_of_another_architecture_lead_to_their_folder(tmp_path: Path) -> None:
    theirs = random_transformers("GPTNeo", "ForCausalLM")
    theirs.save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(CheckpointError, match="holds a state dict but no GPT-2") as caught:
        open_checkpoint(tmp_path / "pytorch_model.bin")
    assert caught.value.hint == f"try {tmp_path}"
    notes_of_same_model(tmp_path, theirs)


def test_an_adapter_that_was_not_merged_is_called_one(tmp_path: Path) -> None:
    theirs = theirs_of()
    theirs.config.save_pretrained(tmp_path)
    name = "transformer.h.0.attn.c_attn"
    tensors = theirs.state_dict()
    tensors[f"{name}.base_layer.weight"] = tensors.pop(f"{name}.weight")
    tensors[f"{name}.lora_A.default.weight"] = torch.zeros(4, 64)
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="is missing") as caught:
        open_checkpoint(tmp_path)
    assert "merge_and_unload" in str(caught.value.hint)


def test_a_whole_model_is_told_how_to_save_its_weights(tmp_path: Path) -> None:
    torch.save(theirs_of(), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="would run code") as caught:
        open_checkpoint(tmp_path)
    assert "state_dict()" in str(caught.value.hint)


def test_several_torch_files_are_a_question(tmp_path: Path) -> None:
    for name in ("a.pt", "b.pt"):
        torch.save({}, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"holds 2 torch files: a\.pt, b\.pt") as caught:
        open_checkpoint(tmp_path)
    assert str(tmp_path / "b.pt") in str(caught.value.hint)


def test_sizes_of_this_test_are_those_of_its_models() -> None:
    assert {SIZES[name] for name in SIZES} == set(GPT2.values())


def test_a_model_without_positions_is_told_what_it_lacks(tmp_path: Path) -> None:
    """nanochat's and LitGPT's: GPT-2's table of tokens, but rotary positions."""
    tensors = {"transformer.wte.weight": torch.ones(310, 64), "lm_head.weight": torch.ones(310, 64)}
    for name in ("attn.c_q", "attn.attn"):
        torch.save(
            {**tensors, f"transformer.h.0.{name}.weight": torch.ones(64, 64)}, tmp_path / "m.pt"
        )
        with pytest.raises(CheckpointError, match=r"it has no transformer\.wpe\.weight"):
            open_checkpoint(tmp_path / "m.pt")
