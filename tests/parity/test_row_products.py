"""The `int8` arrangement: one activation scale for each row, products of integers, one weight scale
for each output.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt_edge.arrays import IntArray
from gpt_edge.config import GPTConfig
from gpt_edge.export.graph.build import build_graph
from gpt_edge.export.pipeline.shared import open_folder
from gpt_edge.reference.importers import open_checkpoint
from gpt_edge.runtime.session import Session
from tests.parity.conftest import Export
from tests.support.models import TINY, random_model, save_random

GPT2 = TINY["gpt2"]


def logits(session: Session, rows: IntArray) -> np.ndarray:
    """All logits of ids [B, T], each row in a cache of its own call."""
    return session.forward(rows, session.new_cache(len(rows)), "all")


def built(folder: Path, config: GPTConfig, scheme: str = "int8", **kwargs: float) -> Session:
    checkpoint = open_checkpoint(save_random(folder / "source", config, **kwargs))
    (folder / "graph").mkdir()
    build_graph(checkpoint, folder / "graph", graph="edge", scheme=scheme)
    return open_folder(folder / "graph", config, "edge", scheme)


def test_a_row_does_not_depend_on_its_neighbours(export: Export) -> None:
    session = Session(export("gpt2", "edge", "int8")[0])
    ids = np.arange(40)[None] * 7 % GPT2.vocab_size
    alone = logits(session, ids[:, :20])
    beside = logits(session, ids)[:, :20]
    assert np.abs(alone - beside).max() <= 1e-4  # attention adds in another order


def test_a_loud_token_in_the_batch_changes_nothing_else(
    export: Export, checkpoints: dict[str, Path]
) -> None:
    """What breaks per-tensor int8: one row with large activations takes the levels from
    the others.
    """
    session = Session(export("gpt2", "edge", "int8")[0])
    cache = session.new_cache(2)
    quiet, loud = np.array([[3, 4, 5, 6]]), np.array([[300, 299, 298, 297]])
    both = session.forward(np.concatenate((quiet, loud)), cache, "all")
    steps = np.stack([session.decode([7, 7], cache)[0].copy() for _ in range(3)])
    single = session.new_cache()
    alone = session.forward(quiet, single, "all")
    assert np.abs(both[0] - alone[0]).max() <= 1e-5
    assert (
        np.abs(steps - np.stack([session.decode([7], single)[0].copy() for _ in range(3)])).max()
        <= 1e-4
    )


@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu", "relu"])
def test_every_activation_function_keeps_its_precision(activation: str, tmp_path: Path) -> None:
    config = replace(GPT2, activation=activation)
    session = built(tmp_path, config)
    model = random_model(config)
    ids = np.arange(60)[None] * 11 % config.vocab_size
    with torch.no_grad():
        wanted = model(torch.from_numpy(ids))[0].numpy()
    error = np.abs(logits(session, ids) - wanted).max()
    assert 0 < error <= 0.06 * (wanted.max() - wanted.min())


@pytest.mark.parametrize("std", [1e-3, 1.5])
def test_small_and_large_activations_are_rounded_as_finely(std: float, tmp_path: Path) -> None:
    """The zero point after an activation function is fixed; its scale follows both ends of
    a row.
    """
    session = built(tmp_path, GPT2, std=std)
    ids = np.arange(50)[None] % GPT2.vocab_size
    with torch.no_grad():
        wanted = random_model(GPT2, std=std)(torch.from_numpy(ids))[0].numpy()
    found = logits(session, ids)
    assert np.isfinite(found).all()
    assert np.sqrt(np.mean((found - wanted) ** 2)) <= 0.05 * wanted.std()


def test_rows_of_zeros_give_the_bias(tmp_path: Path) -> None:
    """0 / 0 is rounded to something, and times the scale 0 it is nothing."""
    model = random_model(GPT2)
    with torch.no_grad():
        for block in model.blocks():
            for norm in (block.ln_1, block.ln_2):
                norm.weight.zero_()
                norm.bias.zero_()
            block.mlp.c_fc.bias.zero_()
    from gpt_edge.reference.checkpoint import save_checkpoint

    save_checkpoint(tmp_path / "source", GPT2, model.state_dict(), None, {})
    (tmp_path / "graph").mkdir()
    build_graph(
        open_checkpoint(tmp_path / "source"), tmp_path / "graph", graph="edge", scheme="int8"
    )
    session = open_folder(tmp_path / "graph", GPT2, "edge", "int8")
    ids = np.arange(10)[None]
    with torch.no_grad():
        wanted = model(torch.from_numpy(ids))[0].numpy()
    assert np.abs(logits(session, ids) - wanted).max() <= 0.02 * (wanted.max() - wanted.min())


def test_int8_and_int8_block_are_two_arrangements_of_one_model(export: Export) -> None:
    row, block = (Session(export("gpt2", "edge", scheme)[0]) for scheme in ("int8", "int8-block"))
    ids = np.arange(30)[None]
    difference = np.abs(logits(row, ids) - logits(block, ids)).max()
    assert 0 < difference <= 0.3
