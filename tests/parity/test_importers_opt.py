"""OPT, whose small models are GPT-3-shaped: transformers' logits, with and without a past."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt_edge.errors import CheckpointError
from gpt_edge.reference.importers import open_checkpoint
from tests.support.transformers_models import random_transformers

IDS = torch.tensor([[2, 17, 3, 44, 90, 7, 7, 61, 8, 33]])


@torch.no_grad()
@pytest.mark.parametrize("config", [{}, {"activation_function": "gelu"}, {"ffn_dim": 40}])
def test_opt_gives_the_logits_of_transformers(config: dict[str, Any], tmp_path: Path) -> None:
    theirs = random_transformers("OPT", "ForCausalLM", **config)
    theirs.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert (checkpoint.kind, checkpoint.config.n_ctx) == ("hf-opt", 96)
    ours = checkpoint.load_model()
    whole, _ = ours(IDS)
    torch.testing.assert_close(whole, theirs(IDS).logits, atol=1e-4, rtol=0)
    _, past = ours(IDS[:, :6])
    rest, _ = ours(IDS[:, 6:], past_key_values=past)
    torch.testing.assert_close(rest, whole[:, 6:], atol=1e-4, rtol=0)
    full = torch.randint(3, 310, (1, 96), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(full)[0], theirs(full).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "change", [{"do_layer_norm_before": False}, {"word_embed_proj_dim": 32}, {"enable_bias": False}]
)
def test_the_wiring_of_opt_350m_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    random_transformers("OPT", "ForCausalLM").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=next(iter(change))):
        open_checkpoint(tmp_path)
