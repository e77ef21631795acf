"""Language models whose tensors have other names, or more of them than the model: equal logits, and
a note that says what was done.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from transformers import PreTrainedModel

from gpt_edge.errors import CheckpointError, GPTEdgeWarning
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.reference.importers.tensor_names import common_prefix, is_other_head
from tests.support.transformers_models import random_transformers

LM = {
    "GPT2": "LMHeadModel",
    "OpenAIGPT": "LMHeadModel",
    "GPTNeo": "ForCausalLM",
    "OPT": "ForCausalLM",
}
IDS = torch.tensor([[5, 17, 3, 44, 90, 2, 2, 61, 8, 33]])
Tensors = dict[str, torch.Tensor]


def save(
    folder: Path, model: PreTrainedModel, tensors: Tensors, *, is_pickle: bool = False
) -> None:
    model.config.save_pretrained(folder)
    if is_pickle:
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        plain = {name: tensor.clone() for name, tensor in tensors.items()}
        save_file(plain, folder / "model.safetensors")


@torch.no_grad()
def notes_of_same_model(folder: Path, theirs: PreTrainedModel) -> tuple[str, ...]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GPTEdgeWarning)
        checkpoint = open_checkpoint(folder)
    said = [str(warning.message) for warning in caught]
    assert said == [f"{folder}: {note}" for note in checkpoint.notes]
    found, _ = checkpoint.load_model()(IDS)
    torch.testing.assert_close(found, theirs(IDS).logits, atol=1e-4, rtol=0)
    return checkpoint.notes


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "pretrained_model.", "module._orig_mod."]
)
@pytest.mark.parametrize("name", LM)
@pytest.mark.parametrize("is_pickle", [False, True])
def test_a_prefix_that_all_names_share_is_taken_away(
    name: str, prefix: str, is_pickle: bool, tmp_path: Path
) -> None:
    theirs = random_transformers(name, LM[name])
    tensors = {prefix + key: value for key, value in theirs.state_dict().items()}
    save(tmp_path, theirs, tensors, is_pickle=is_pickle)
    notes = notes_of_same_model(tmp_path, theirs)
    assert notes == (f"every tensor's name begins with {prefix!r}, which is taken away",)


def test_a_prefix_before_the_bare_model_is_taken_away(tmp_path: Path) -> None:
    theirs = random_transformers("GPT2", "LMHeadModel")
    tensors = {f"model.{key}": value for key, value in theirs.transformer.state_dict().items()}
    save(tmp_path, theirs, tensors)
    assert "'model.'" in notes_of_same_model(tmp_path, theirs)[0]


@pytest.mark.parametrize("name", LM)
def test_wrappers_of_single_layers_are_taken_out_of_names(name: str, tmp_path: Path) -> None:
    """FSDP, activation checkpointing and torch.compile wrap blocks as well as models."""
    theirs = random_transformers(name, LM[name])
    for number, word in (("0", "_fsdp_wrapped_module"), ("1", "_orig_mod")):
        block = f".{number}."
        tensors = {
            "module." + key.replace(block, f"{block}{word}."): value
            for key, value in theirs.state_dict().items()
        }
        save(tmp_path, theirs, tensors)
        prefix, inner = notes_of_same_model(tmp_path, theirs)
        assert "'module.'" in prefix
        assert inner.startswith(f"{word!r} inside ")


def test_a_name_that_lacks_the_prefix_is_unknown(tmp_path: Path) -> None:
    theirs = random_transformers("GPT2", "LMHeadModel")
    tensors = {f"module.{key}": value for key, value in theirs.state_dict().items()}
    tensors["stray.weight"] = torch.zeros(1)
    save(tmp_path, theirs, tensors)
    with pytest.raises(CheckpointError, match=r"config: stray\.weight is unknown$"):
        open_checkpoint(tmp_path)


def test_a_model_below_transformer_keeps_that_name() -> None:
    assert common_prefix(["transformer.wpe.weight", "transformer.wte.weight"], "wpe.weight") == ""
    assert common_prefix(["a.transformer.wpe.weight"], "wpe.weight") == "a."
    assert common_prefix(["a.wpe.weight", "b.wpe.weight"], "wpe.weight") == ""


OTHER_HEADS: dict[str, list[str]] = {
    "TRL": ["v_head.summary.weight", "v_head.summary.bias"],
    "trlX": ["v_head.0.weight", "v_head.2.weight", "ilql_heads.q_heads.0.weight"],
    "double heads": ["multiple_choice_head.summary.weight", "multiple_choice_head.summary.bias"],
    "reward model": ["score.weight"],
    "value head": ["value_head.weight"],
}


@pytest.mark.parametrize("name", LM)
@pytest.mark.parametrize("kind", OTHER_HEADS)
def test_heads_beside_the_language_models_are_left_out_and_named(
    name: str, kind: str, tmp_path: Path
) -> None:
    theirs = random_transformers(name, LM[name])
    theirs.config.architectures = [name + LM[name]]
    extra = {key: torch.zeros(1, 8) for key in OTHER_HEADS[kind]}
    save(tmp_path, theirs, {**theirs.state_dict(), **extra})
    (note,) = notes_of_same_model(tmp_path, theirs)
    assert note.startswith("left out ")
    assert OTHER_HEADS[kind][0] in note


def test_a_value_head_may_lie_outside_the_prefix(tmp_path: Path) -> None:
    theirs = random_transformers("GPT2", "LMHeadModel")
    tensors = {f"pretrained_model.{key}": value for key, value in theirs.state_dict().items()}
    save(tmp_path, theirs, {**tensors, "v_head.summary.weight": torch.zeros(1, 64)})
    assert len(notes_of_same_model(tmp_path, theirs)) == 2


def test_what_means_something_is_no_other_head() -> None:
    for name in ("lm_head.weight", "lm_head.bias", "task_head.weight", "transformer.wte.weight"):
        assert not is_other_head(name)


@pytest.mark.parametrize("is_tied", [True, False])
def test_the_old_name_of_the_head_is_read(is_tied: bool, tmp_path: Path) -> None:
    theirs = random_transformers("GPT2", "LMHeadModel", tie_word_embeddings=is_tied)
    tensors = theirs.state_dict()
    tensors["lm_head.decoder.weight"] = tensors.pop("lm_head.weight")
    save(tmp_path, theirs, tensors, is_pickle=True)
    (note,) = notes_of_same_model(tmp_path, theirs)
    assert note == "lm_head.decoder.weight is read as lm_head.weight"


@pytest.mark.parametrize("name", LM)
def test_a_head_stands_for_the_tied_embedding_that_was_dropped(name: str, tmp_path: Path) -> None:
    theirs = random_transformers(name, LM[name])
    theirs.config.save_pretrained(tmp_path)
    save_model(theirs, str(tmp_path / "model.safetensors"), metadata={"format": "pt"})
    assert notes_of_same_model(tmp_path, theirs) == ()


def test_a_head_stands_for_no_embedding_that_is_not_tied_to_it(tmp_path: Path) -> None:
    theirs = random_transformers("GPT2", "LMHeadModel", tie_word_embeddings=False)
    tensors = theirs.state_dict()
    del tensors["transformer.wte.weight"]
    save(tmp_path, theirs, tensors)
    with pytest.raises(CheckpointError, match=r"transformer\.wte\.weight is missing"):
        open_checkpoint(tmp_path)


def test_an_untied_head_that_is_missing_may_be_the_embedding(tmp_path: Path) -> None:
    theirs = random_transformers("GPT2", "LMHeadModel")
    tensors = theirs.state_dict()
    del tensors["lm_head.weight"]
    theirs.config.tie_word_embeddings = False
    save(tmp_path, theirs, tensors)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight is missing$") as caught:
        open_checkpoint(tmp_path)
    assert '"tie_word_embeddings": true in config.json' in str(caught.value.hint)
