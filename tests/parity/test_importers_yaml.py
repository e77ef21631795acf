"""Settings in the YAML file that Lightning and Hydra leave near a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.reference.importers.yaml_settings import parse_mappings
from tests.parity.test_importers_trainers import as_linear, notes_of_same_model, theirs_of

pytestmark = pytest.mark.filterwarnings("ignore::gpt_edge.errors.GPTEdgeWarning")
LIGHTNING = """\
lr: 3.0e-4
betas:
- 0.9
- 0.95
n_head: null
config: !!python/object:model.GPTConfig
  n_layer: 2
  n_head: 8   # of 64
  n_embd: 64
  activation: 'gelu'
"""
HYDRA = """\
defaults:
  - model: small
  - _self_
model:
  _target_: src.models.GPT
  n_layers: 2
  num_heads: 8
  n_embd: ${width}
notes: |
  n_head: 2
optimizer: {name: adamw, n_head: 2}
"""


@pytest.mark.parametrize(
    ("name", "text", "of_file"),
    [
        ("logs/version_0/hparams.yaml", LIGHTNING, "logs/version_0/checkpoints/last.ckpt"),
        ("run/.hydra/config.yaml", HYDRA, "run/last.ckpt"),
        ("run/config.yaml", HYDRA, "run/checkpoints/last.ckpt"),
    ],
)
def test_the_number_of_heads_is_read_from_the_yaml_file_of_a_run(
    name: str, text: str, of_file: str, tmp_path: Path
) -> None:
    is_exact = "activation" in text
    activation = "gelu" if is_exact else "gelu_new"
    theirs = theirs_of(n_head=8, activation_function=activation)
    for path in (tmp_path / name, tmp_path / of_file):
        path.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
    torch.save({"state_dict": as_linear(theirs), "epoch": 3}, tmp_path / of_file)
    notes = notes_of_same_model(tmp_path / of_file, theirs)
    said = "n_head 8, activation gelu" if is_exact else "num_heads 8"
    assert notes[0] == f"{said} is what {tmp_path / name} says"


@pytest.mark.parametrize(
    "text", ["n_head: 8\nn_embd: 768\n", "n_head: 8\nn_head: 4\n", "a:\n\tb: 1"]
)
def test_the_yaml_file_of_another_model_and_a_broken_one_say_nothing(
    text: str, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(text)
    torch.save({"state_dict": as_linear(theirs_of())}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="nothing says how many heads"):
        open_checkpoint(tmp_path / "last.ckpt")


def test_what_the_file_says_counts_before_the_yaml_file(tmp_path: Path) -> None:
    theirs = theirs_of()
    (tmp_path / "config.yaml").write_text("n_head: 8\n")
    content = {"state_dict": as_linear(theirs), "hyper_parameters": {"n_head": 4}}
    torch.save(content, tmp_path / "last.ckpt")
    assert not any(
        "config.yaml" in note for note in notes_of_same_model(tmp_path / "last.ckpt", theirs)
    )


def test_plain_values_are_read_and_the_rest_is_passed_over() -> None:
    assert parse_mappings(LIGHTNING)["config"] == {
        "n_layer": 2,
        "n_head": 8,
        "n_embd": 64,
        "activation": "gelu",
    }
    found = parse_mappings(HYDRA)
    assert found["model"] == {"_target_": "src.models.GPT", "n_layers": 2, "num_heads": 8}
    assert found["defaults"] == {}
    assert not {"n_head", "notes", "optimizer"} & found.keys()
    more = 'a: &x 1\nb: *x\nc: 1e-5\nd: True\ne: "f # g"\nh:\n  i:\n    j: -3\n  k: .5\nl: {\n'
    assert parse_mappings(more) == {"c": 1e-5, "d": True, "h": {"i": {"j": -3}, "k": 0.5}}
