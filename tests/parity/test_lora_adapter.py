"""PEFT's LoRA adapters, merged: the logits of a base whose weights were changed by hand.

The files are written here as peft 0.21.2 writes them; against peft itself the same cases agreed to
3.4e-6.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

from gpt_edge.errors import CheckpointError, NumericError
from gpt_edge.reference.importers import open_checkpoint
from tests.support.transformers_models import random_transformers

pytestmark = pytest.mark.filterwarnings("ignore::gpt_edge.errors.GPTEdgeWarning")
IDS = torch.tensor([[5, 17, 3, 44, 90, 2, 2, 61, 8, 33]])
HEADS = {"GPT2": "LMHeadModel", "OpenAIGPT": "LMHeadModel", "GPTNeo": "ForCausalLM"}
TARGETS = {
    "GPT2": ("attn.c_attn", "mlp.c_proj"),
    "OpenAIGPT": ("attn.c_attn",),
    "GPTNeo": ("attn.attention.q_proj", "mlp.c_fc"),
}
RANK = 3
Tensors = dict[str, torch.Tensor]


def make(name: str, seed: int = 0) -> tuple[PreTrainedModel, Tensors]:
    """A base, and the matrices of an adapter for it by their names in peft's file."""
    base = random_transformers(name, HEADS[name])
    torch.manual_seed(seed)
    tensors: Tensors = {}
    for layer in range(2):
        for target in TARGETS[name]:
            module = base.get_submodule(f"transformer.h.{layer}.{target}")
            n_out, n_in = module.weight.shape
            if name != "GPTNeo":  # Conv1D
                n_out, n_in = n_in, n_out
            key = f"base_model.model.transformer.h.{layer}.{target}"
            tensors[f"{key}.lora_A.weight"] = torch.randn(RANK, n_in) * 0.2
            tensors[f"{key}.lora_B.weight"] = torch.randn(n_out, RANK) * 0.2
    return base, tensors


def save(folder: Path, base: PreTrainedModel, tensors: Tensors, **config: Any) -> tuple[Path, Path]:
    """The folders of the base and of the adapter."""
    base.save_pretrained(folder / "base")
    adapter = folder / "adapter"
    adapter.mkdir()
    values = {"peft_type": "LORA", "r": RANK, "lora_alpha": 12, **config}
    (adapter / "adapter_config.json").write_text(json.dumps(values))
    save_file(tensors, adapter / "adapter_model.safetensors")
    return folder / "base", adapter


@torch.no_grad()
def merge_by_hand(name: str, base: PreTrainedModel, tensors: Tensors, scale: float) -> None:
    for key, a in tensors.items():
        if key.endswith(".lora_A.weight"):
            module = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            delta = tensors[key.replace("lora_A", "lora_B")] @ a * scale
            base.get_submodule(module).weight += delta if name == "GPTNeo" else delta.T


@torch.no_grad()
@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("is_rank_stabilized", [False, True])
def test_an_adapter_is_merged_into_its_base(
    name: str, is_rank_stabilized: bool, tmp_path: Path
) -> None:
    theirs, tensors = make(name)
    base, adapter = save(tmp_path, theirs, tensors, use_rslora=is_rank_stabilized)
    scale = 12 / (math.sqrt(RANK) if is_rank_stabilized else RANK)
    before = theirs(IDS).logits
    merge_by_hand(name, theirs, tensors, scale)
    wanted = theirs(IDS).logits
    assert (wanted - before).abs().max() > 0.1
    checkpoint = open_checkpoint(base, adapter=adapter)
    torch.testing.assert_close(checkpoint.load_model()(IDS)[0], wanted, atol=1e-4, rtol=0)
    assert checkpoint.notes == (f"merged a LoRA adapter into {len(tensors) // 2} matrices",)
    found, _ = open_checkpoint(base).load_model()(IDS)
    torch.testing.assert_close(found, before, atol=1e-4, rtol=0)


@torch.no_grad()
def test_whole_tensors_and_pickled_adapters_are_merged_too(tmp_path: Path) -> None:
    theirs, _ = make("GPT2")
    gain = torch.linspace(0.5, 2, 64)
    bias = torch.linspace(-1, 1, 192)
    tensors = {
        "base_model.model.transformer.ln_f.weight": gain,
        "base_model.model.transformer.h.0.attn.c_attn.base_layer.bias": bias,
    }
    base, adapter = save(tmp_path, theirs, tensors)
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(tensors, adapter / "adapter_model.bin")
    theirs.transformer.ln_f.weight.copy_(gain)
    theirs.transformer.h[0].attn.c_attn.bias.copy_(bias)
    found, _ = open_checkpoint(base, adapter=adapter).load_model()(IDS)
    torch.testing.assert_close(found, theirs(IDS).logits, atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_head_and_embeddings_with_matrices_are_merged_as_peft_saves_them(tmp_path: Path) -> None:
    """peft stores the whole of such a layer beside its matrices, as `base_layer`."""
    theirs = random_transformers("GPT2", "LMHeadModel", tie_word_embeddings=False)
    torch.manual_seed(0)
    n_token, width = theirs.lm_head.weight.shape
    whole = torch.randn(n_token, width) * 0.1
    head, places = "base_model.model.lm_head", "base_model.model.transformer.wpe"
    tensors = {
        f"{head}.base_layer.weight": whole,
        f"{head}.lora_A.weight": torch.randn(RANK, width) * 0.2,
        f"{head}.lora_B.weight": torch.randn(n_token, RANK) * 0.2,
        f"{places}.lora_embedding_A": torch.randn(RANK, 96) * 0.2,
        f"{places}.lora_embedding_B": torch.randn(width, RANK) * 0.2,
    }
    base, adapter = save(tmp_path, theirs, tensors)
    a, b = tensors[f"{head}.lora_A.weight"], tensors[f"{head}.lora_B.weight"]
    theirs.lm_head.weight.copy_(whole + 4 * b @ a)
    a, b = tensors[f"{places}.lora_embedding_A"], tensors[f"{places}.lora_embedding_B"]
    theirs.transformer.wpe.weight += 4 * (b @ a).T
    found, _ = open_checkpoint(base, adapter=adapter).load_model()(IDS)
    torch.testing.assert_close(found, theirs(IDS).logits, atol=1e-4, rtol=0)


def test_an_adapter_of_a_model_with_fewer_layers_is_refused(tmp_path: Path) -> None:
    theirs, tensors = make("GPT2")
    first = {name: value for name, value in tensors.items() if ".h.0." in name}
    targets = {"target_modules": ["c_attn", "c_proj"]}
    base, adapter = save(tmp_path, theirs, first, **targets)
    with pytest.raises(CheckpointError, match=r"no matrices for transformer\.h\.1\.") as caught:
        open_checkpoint(base, adapter=adapter)
    assert "base that the adapter was trained on" in str(caught.value.hint)
    settings = {**targets, "peft_type": "LORA", "layers_to_transform": [0]}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    assert open_checkpoint(base, adapter=adapter).notes == (
        "merged a LoRA adapter into 2 matrices",
    )


def test_a_folder_above_the_adapter_is_told_apart(tmp_path: Path) -> None:
    base, adapter = save(tmp_path, *make("GPT2"))
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(base, adapter=folder)
        assert (str(adapter) in str(caught.value.hint)) == folder.is_dir()


def test_patterns_set_rank_and_alpha_of_single_modules(tmp_path: Path) -> None:
    theirs, tensors = make("OpenAIGPT")
    patterns = {"rank_pattern": {"h.0.attn.c_attn": 6}, "alpha_pattern": {"c_attn": 9}}
    base, adapter = save(tmp_path, theirs, tensors, **patterns)
    source = open_checkpoint(base, adapter=adapter).source
    products = source.products  # type: ignore[attr-defined]
    assert sorted(product.scale for product in products.values()) == [1.5, 3.0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "says peft_type 'IA3', expected 'LORA'"),
        ({"use_dora": True}, "sets use_dora"),
        ({"kasa_config": {"beta": 0.1}}, "sets kasa_config"),
        ({"lora_bias": True}, "sets lora_bias"),
        ({"init_lora_weights": "pissa"}, "which changes the base's weights first"),
        ({"r": 0}, "r is 0, expected at least 1"),
        ({"rank_pattern": {"h.*": 2}}, "expected a plain name"),
    ],
)
def test_an_adapter_of_another_kind_is_one_clear_line(
    config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    base, adapter = save(tmp_path, *make("GPT2"), **config)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(base, adapter=adapter)
    assert "\n" not in caught.value.message


FAULTS: dict[str, tuple[Tensors, str]] = {
    "another module": (
        {"base_model.model.transformer.h.7.attn.c_attn.lora_A.weight": torch.ones(3, 64)},
        "changes no weight of",
    ),
    "a new head": ({"base_model.model.score.weight": torch.ones(2, 64)}, "changes no weight of"),
    "the tied embedding": (
        {"base_model.model.transformer.wte.lora_A.weight": torch.ones(3, 310)},
        "changes no weight of .* by itself",
    ),
    "the whole of the tied embedding": (
        {"base_model.model.transformer.wte.weight": torch.ones(310, 64)},
        "changes no weight of .* by itself",
    ),
    "another shape": (
        {
            "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight": torch.ones(3, 8),
            "base_model.model.transformer.h.0.attn.c_attn.lora_B.weight": torch.ones(192, 3),
        },
        r"their product must be \[192, 64\]",
    ),
    "one matrix": (
        {"base_model.model.transformer.h.0.attn.c_attn.lora_B.weight": torch.ones(192, 3)},
        "has no lora_A beside it",
    ),
    "integers": (
        {"base_model.model.transformer.ln_f.weight": torch.ones(64, dtype=torch.int32)},
        "has dtype I32",
    ),
    "DoRA's": (
        {"base_model.model.transformer.h.0.attn.c_attn.lora_magnitude_vector": torch.ones(192)},
        "changes no weight of",
    ),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_an_adapter_that_does_not_fit_is_one_clear_line(kind: str, tmp_path: Path) -> None:
    tensors, message = FAULTS[kind]
    base, adapter = save(tmp_path, make("GPT2")[0], tensors)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(base, adapter=adapter)
    assert "\n" not in caught.value.message


def test_nan_in_an_adapter_is_named(tmp_path: Path) -> None:
    theirs, tensors = make("GPT2")
    name = "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"
    tensors[name][1, 2] = torch.nan
    base, adapter = save(tmp_path, theirs, tensors)
    with pytest.raises(NumericError, match=r"c_attn\.lora_A\.weight\[1, 2\] is nan"):
        open_checkpoint(base, adapter=adapter).load_model()
