"""Hugging Face folders made by transformers, which is not our code: equal logits, equal greedy
tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
    PreTrainedModel,
)

from gpt_edge.config import PRESETS
from gpt_edge.errors import CheckpointError, NumericError
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.reference.model import GPT

TOLERANCE = {"float32": 1e-4}  # max |difference| of logits: order of sums, through every layer

# A larger spread than transformers' 0.02, so that attention and the argmax have something to
# choose.
SIZE = {
    "n_layer": 3,
    "n_head": 3,
    "n_embd": 24,
    "n_positions": 64,
    "vocab_size": 83,
    "initializer_range": 0.2,
}
NEO = {
    "num_layers": 4,
    "num_heads": 2,
    "hidden_size": 24,
    "max_position_embeddings": 64,
    "vocab_size": 83,
    "attention_types": [[["global", "local"], 2]],
    "window_size": 5,
    "initializer_range": 0.1,
}


def make(name: str) -> PreTrainedModel:
    """A random transformers model, biases and norms stirred too: they start as zeros and ones,
    which hide mistakes.
    """
    torch.manual_seed(0)
    # scaled_dot_product_attention ignores scale_attn_weights there
    eager = {"attn_implementation": "eager"}
    model: PreTrainedModel = {
        "gpt1": lambda: OpenAIGPTLMHeadModel(OpenAIGPTConfig(**SIZE)),
        "gpt1-relu": lambda: OpenAIGPTLMHeadModel(OpenAIGPTConfig(**SIZE, afn="relu")),
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**SIZE)),
        "gpt2-untied": lambda: GPT2LMHeadModel(GPT2Config(**SIZE, tie_word_embeddings=False)),
        "gpt2-inner": lambda: GPT2LMHeadModel(
            GPT2Config(**SIZE, n_inner=40, activation_function="gelu")
        ),
        "gpt2-epsilon": lambda: GPT2LMHeadModel(
            GPT2Config(**SIZE, layer_norm_epsilon=0.1, activation_function="relu")
        ),
        "gpt2-unscaled": lambda: GPT2LMHeadModel(
            GPT2Config(**SIZE, scale_attn_weights=False, **eager)
        ),
        "gpt2-layer-idx": lambda: GPT2LMHeadModel(
            GPT2Config(**SIZE, scale_attn_by_inverse_layer_idx=True, **eager)
        ),
        "gpt-neo": lambda: GPTNeoForCausalLM(GPTNeoConfig(**NEO)),
        "gpt-neo-global": lambda: GPTNeoForCausalLM(
            GPTNeoConfig(**{**NEO, "attention_types": [[["global"], 4]]})
        ),
        "gpt-neo-inner": lambda: GPTNeoForCausalLM(GPTNeoConfig(**NEO, intermediate_size=30)),
    }[name]()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(
                    torch.randn_like(parameter) * (0.2 if "ln_" in parameter_name else 0.05)
                )
    return model.eval()


@pytest.fixture(autouse=True)
def few_threads() -> Iterator[None]:
    """Tiny products are slower on several threads than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


ALL = [
    "gpt1",
    "gpt1-relu",
    "gpt2",
    "gpt2-untied",
    "gpt2-inner",
    "gpt2-epsilon",
    "gpt2-unscaled",
    "gpt2-layer-idx",
]
ALL += ["gpt-neo", "gpt-neo-global", "gpt-neo-inner"]


@torch.no_grad()
def greedy_with_past(model: GPT, ids: torch.Tensor, n_new: int) -> list[int]:
    logits, past = model(ids)
    found = []
    for _ in range(n_new):
        found.append(int(logits[0, -1].argmax()))
        logits, past = model(torch.tensor([[found[-1]]]), past_key_values=past)
    return found


@torch.no_grad()
def assert_says_the_same(theirs: PreTrainedModel, ours: GPT, length: int, n_new: int) -> None:
    """Logits of `length` tokens, then `n_new` greedy ones: ours with past, theirs without."""
    ids = torch.randint(
        ours.config.vocab_size, (2, length), generator=torch.Generator().manual_seed(3)
    )
    wanted = theirs(ids).logits
    assert wanted.std() > 0.3  # a flat distribution would make the comparison easy
    assert (ours(ids)[0] - wanted).abs().max().item() <= TOLERANCE["float32"]
    found = greedy_with_past(ours, ids[:1], n_new)
    # One forward over all of it tells what their greedy search would have taken at every step, had
    # it come this far.
    whole = torch.cat([ids[:1], torch.tensor([found])], dim=1)
    assert found == theirs(whole).logits[0, length - 1 : -1].argmax(dim=-1).tolist()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("is_safetensors", [True, False], ids=["safetensors", "bin"])
def test_imported_model_says_what_transformers_says(
    name: str, is_safetensors: bool, tmp_path: Path
) -> None:
    theirs = make(name)
    theirs.save_pretrained(tmp_path, safe_serialization=is_safetensors)
    ours = open_checkpoint(tmp_path).load_model()
    assert not ours.training
    assert_says_the_same(theirs, ours, length=32, n_new=32)


FULL_SIZE: dict[str, Callable[[], PreTrainedModel]] = {
    "gpt1": lambda: OpenAIGPTLMHeadModel(OpenAIGPTConfig(initializer_range=0.04)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(initializer_range=0.04)),
    # Scores that nobody divides by sqrt(D) = 8 grow with the weights squared: 0.04 would make
    # rounding visible (1.1e-4).
    "gpt-neo": lambda: GPTNeoForCausalLM(
        GPTNeoConfig(
            num_layers=12,
            num_heads=12,
            hidden_size=768,
            attention_types=[[["global", "local"], 6]],
            window_size=64,
            initializer_range=0.03,
        )
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size_imports_say_what_transformers_says(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(2)
    theirs = FULL_SIZE[name]().eval()
    theirs.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    if name in PRESETS:
        assert checkpoint.config == PRESETS[name]
    assert_says_the_same(theirs, checkpoint.load_model(), length=128, n_new=32)


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    make("gpt2").save_pretrained(folder)
    return folder


def rewrite(folder: Path, source: Path, **config: Any) -> dict[str, torch.Tensor]:
    """Copy the config, changed, and return the weights for the test to change and save."""
    values = {**json.loads((source / "config.json").read_text()), **config}
    (folder / "config.json").write_text(json.dumps(values))
    return load_file(source / "model.safetensors")


def test_tensors_are_those_of_the_loaded_model(gpt2_folder: Path) -> None:
    checkpoint = open_checkpoint(gpt2_folder)
    state = checkpoint.load_model().state_dict()
    assert checkpoint.kind == "hf-gpt2"
    assert set(checkpoint.names()) == state.keys() - {"lm_head.weight"}
    for name in [*checkpoint.names(), "lm_head.weight"]:
        array = checkpoint.tensor(name)
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        np.testing.assert_array_equal(array, state[name].numpy())
    with pytest.raises(ValueError, match=r"no parameter 'h\.9\.ln_1\.weight'"):
        checkpoint.tensor("h.9.ln_1.weight")


def test_a_float32_tensor_in_our_layout_is_a_view_of_the_file(gpt2_folder: Path) -> None:
    checkpoint = open_checkpoint(gpt2_folder)
    embedding = checkpoint.tensor("wte.weight")
    assert np.shares_memory(embedding, checkpoint.tensor("wte.weight"))
    assert not embedding.flags.writeable
    checkpoint.release("wte.weight")
    np.testing.assert_array_equal(embedding, checkpoint.tensor("wte.weight"))
    assert checkpoint.tensor("h.0.attn.c_attn.weight").flags.writeable


def test_a_loaded_model_is_its_own_and_can_be_trained(gpt2_folder: Path) -> None:
    before = (gpt2_folder / "model.safetensors").read_bytes()
    checkpoint = open_checkpoint(gpt2_folder)
    model, other = checkpoint.load_model(), checkpoint.load_model()
    assert model.lm_head.weight is model.wte.weight
    kept = other.wte.weight.detach().clone()
    model(torch.tensor([[1, 2, 3]]))[0].sum().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert not torch.equal(model.wte.weight, kept)
    assert torch.equal(other.wte.weight, kept)
    np.testing.assert_array_equal(checkpoint.tensor("wte.weight"), kept.numpy())
    assert (gpt2_folder / "model.safetensors").read_bytes() == before


def test_names_without_the_transformer_prefix_are_found(tmp_path: Path) -> None:
    model = GPT2Model(GPT2Config(**SIZE))
    model.save_pretrained(tmp_path)
    assert "wte.weight" in load_file(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(
        open_checkpoint(tmp_path).tensor("wte.weight"), model.wte.weight.detach().numpy()
    )


def test_mask_buffers_of_old_files_are_ignored(gpt2_folder: Path, tmp_path: Path) -> None:
    weights = rewrite(tmp_path, gpt2_folder)
    for layer in range(3):
        weights[f"transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, 64, 64, dtype=torch.uint8)
        weights[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(weights, tmp_path / "model.safetensors")
    assert open_checkpoint(tmp_path).names() == open_checkpoint(gpt2_folder).names()


@pytest.mark.parametrize("is_safetensors", [True, False])
def test_a_sharded_checkpoint_is_read_as_one(is_safetensors: bool, tmp_path: Path) -> None:
    theirs = make("gpt2")
    theirs.save_pretrained(tmp_path, max_shard_size="40KB", safe_serialization=is_safetensors)
    assert len(list(tmp_path.glob("*-of-*"))) > 1
    assert_says_the_same(theirs, open_checkpoint(tmp_path).load_model(), length=16, n_new=16)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("is_safetensors", [True, False])
def test_half_precision_weights_become_the_float32_they_mean(
    dtype: torch.dtype, is_safetensors: bool, tmp_path: Path
) -> None:
    theirs = make("gpt2").to(dtype)
    theirs.save_pretrained(tmp_path, safe_serialization=is_safetensors)
    assert_says_the_same(theirs.float(), open_checkpoint(tmp_path).load_model(), length=16, n_new=8)


def test_safetensors_are_preferred_to_a_pickle_beside_them(
    gpt2_folder: Path, tmp_path: Path
) -> None:
    save_file(rewrite(tmp_path, gpt2_folder), tmp_path / "model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    assert open_checkpoint(tmp_path).source.where.endswith("model.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("is_safetensors", [True, False])
def test_a_weight_that_is_not_finite_is_named_with_its_index(
    value: float, is_safetensors: bool, gpt2_folder: Path, tmp_path: Path
) -> None:
    weights = rewrite(tmp_path, gpt2_folder)
    weights["transformer.h.1.mlp.c_fc.weight"][5, 7] = value
    if is_safetensors:
        save_file(weights, tmp_path / "model.safetensors")
    else:
        torch.save(weights, tmp_path / "pytorch_model.bin")
    checkpoint = open_checkpoint(tmp_path)
    checkpoint.tensor("h.0.mlp.c_fc.weight")
    for read in (lambda: checkpoint.tensor("h.1.mlp.c_fc.weight"), checkpoint.load_model):
        with pytest.raises(
            NumericError, match=rf"transformer\.h\.1\.mlp\.c_fc\.weight\[5, 7\] is {value}"
        ):
            read()


def test_unknown_missing_misshaped_and_mistyped_tensors_are_all_listed(
    gpt2_folder: Path, tmp_path: Path
) -> None:
    weights = rewrite(tmp_path, gpt2_folder)
    del weights["transformer.h.0.ln_1.weight"]
    weights["transformer.h.0.ln_9.weight"] = torch.ones(24)
    weights["transformer.wpe.weight"] = torch.zeros(65, 24)
    weights["transformer.ln_f.bias"] = torch.zeros(24, dtype=torch.float64)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path)
    message = caught.value.message
    assert message.partition(": ")[0] == f"{tmp_path / 'model.safetensors'} does not fit its config"
    assert set(message.partition(": ")[2].split("; ")) == {
        "transformer.h.0.ln_1.weight is missing",
        "transformer.h.0.ln_9.weight is unknown",
        "transformer.wpe.weight has shape [65, 24], expected [64, 24]",
        "transformer.ln_f.bias has dtype F64, expected one of F32, F16, BF16",
    }


def test_a_long_list_of_faults_is_cut_and_counted(gpt2_folder: Path, tmp_path: Path) -> None:
    save_file(rewrite(tmp_path, gpt2_folder, n_layer=5), tmp_path / "model.safetensors")
    # two layers of twelve tensors
    with pytest.raises(CheckpointError, match=r"; and 14 more$") as caught:
        open_checkpoint(tmp_path)
    assert caught.value.message.count("is missing") == 10


def test_a_name_with_control_characters_cannot_write_to_the_terminal(
    gpt2_folder: Path, tmp_path: Path
) -> None:
    weights = rewrite(tmp_path, gpt2_folder)
    weights["\x1b[2J\nall is well\x07" + "x" * 9999] = torch.ones(1)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="is unknown") as caught:
        open_checkpoint(tmp_path)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 600


def test_a_head_that_differs_from_the_embedding_it_is_tied_to_is_an_error(
    gpt2_folder: Path, tmp_path: Path
) -> None:
    weights = rewrite(tmp_path, gpt2_folder)
    weights["lm_head.weight"] = weights["transformer.wte.weight"].clone()
    save_file(weights, tmp_path / "model.safetensors")
    open_checkpoint(tmp_path).load_model()
    weights["lm_head.weight"][3, 3] += 1
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs from the embedding"):
        open_checkpoint(tmp_path).load_model()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model_type": "llama"},
            "describes a model of type 'llama', expected one of gpt2, openai-gpt, gpt_neo",
        ),
        ({"model_type": None}, "describes a model of type None"),
        ({"model_type": ["gpt2"]}, r"describes a model of type \['gpt2'\]"),
        ({"n_layer": None}, "has no n_layer"),
        ({"n_layer": "3"}, "n_layer is '3', expected a whole number"),
        ({"n_layer": -1}, "n_layer must be a whole number"),
        ({"n_layer": 1 << 20}, r"the config has 1048576 layers, .* has \d+ tensors"),
        ({"n_head": 5}, "n_embd must be a multiple of n_head"),
        ({"vocab_size": 1 << 40}, "vocab_size must be a whole number from 1 to"),
        (
            {"activation_function": "silu"},
            "activation_function is 'silu', expected one of gelu_new",
        ),
        ({"layer_norm_epsilon": "small"}, "layer_norm_epsilon is 'small', expected a number"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no', expected true or false"),
        ({"tie_word_embeddings": False}, "lm_head.weight is missing"),
        ({"add_cross_attention": True}, "sets add_cross_attention"),
        ({"quantization_config": {"bits": 4}}, "sets quantization_config"),
        ({"vocab_size": 84}, r"transformer\.wte\.weight has shape \[83, 24\], expected \[84, 24\]"),
        ({"model_type": "openai-gpt"}, r"tokens_embed\.weight is missing"),
        ({"model_type": "gpt_neo"}, "has no num_layers"),
    ],
)
def test_a_config_of_something_else_is_one_clear_line(
    change: dict[str, Any], message: str, gpt2_folder: Path, tmp_path: Path
) -> None:
    save_file(rewrite(tmp_path, gpt2_folder, **change), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(tmp_path)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "change",
    [
        {"attention_types": [[["global", "sparse"], 2]]},
        {"attention_types": [[["global"], 1000000000000]] * 9},
        {"attention_types": [[["global"], 3]]},
        {"attention_types": [[["global"]]]},
        {"attention_types": [[[], 4]]},
        {"attention_types": 4},
        {"attention_types": None},
        {"attention_layers": ["local"] * 3},
        {"attention_layers": [["local"]] * 4},
    ],
)
def test_gpt_neo_attention_that_makes_no_sense_is_refused(
    change: dict[str, Any], tmp_path: Path
) -> None:
    make("gpt-neo").save_pretrained(tmp_path)
    rewrite(tmp_path, tmp_path, **{"attention_layers": None, **change})
    with pytest.raises(CheckpointError, match="must say global or local for 4 layers"):
        open_checkpoint(tmp_path)


def test_gpt_neo_layers_listed_one_by_one_are_the_same_model(tmp_path: Path) -> None:
    theirs = make("gpt-neo")
    theirs.save_pretrained(tmp_path)
    weights = rewrite(
        tmp_path, tmp_path, attention_types=None, attention_layers=["global", "local"] * 2
    )
    save_file(weights, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    assert (checkpoint.config.attention, checkpoint.config.window) == (("dense", "banded"), 5)
    assert_says_the_same(theirs, checkpoint.load_model(), length=16, n_new=8)
