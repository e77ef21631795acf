from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt_edge.arrays import IntArray
from gpt_edge.config import GPTConfig
from gpt_edge.errors import NumericError, TrainingError
from gpt_edge.reference.model import GPT, causal_mask
from gpt_edge.training.corpus.batches import join_documents
from gpt_edge.training.corpus.shards import documents_of
from gpt_edge.training.loss import BatchLoss, unfused_attention
from gpt_edge.training.pretrain.trainer import Trainer
from gpt_edge.training.recipe import Recipe
from gpt_edge.training.run_state import load_state, save_state
from gpt_edge.training.validation import score_in_torch


def documents(n: int = 60) -> list[IntArray]:
    """One shard of `n` documents."""
    rng = np.random.default_rng(1)
    return [
        join_documents(np.array([299, *rng.integers(0, 299, 20 + i % 30), 299]) for i in range(n))
    ]


def changed(recipe: Recipe, **changes: object) -> Recipe:
    return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, **changes))  # type: ignore[arg-type]


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


def test_the_loss_at_initialisation_is_that_of_guessing(recipe: Recipe) -> None:
    assert Trainer(recipe, documents()).step() == pytest.approx(math.log(300), abs=0.1)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_one_batch_is_learned_by_heart(recipe: Recipe, optimizer: str) -> None:
    recipe = changed(
        recipe,
        optimizer=optimizer,
        steps=300,
        dropout=0.0,
        weight_decay=0.0,
        learning_rate=0.02,
        row_tokens=32,
        batch_tokens=32,
        long_rows_from=0,
        warmup_steps=10,
    )
    trainer = Trainer(recipe, documents(1))
    losses = [trainer.step() for _ in range(120)]
    assert losses[0] > 5
    assert losses[-1] < 0.05


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_resumed_run_has_the_same_bits(recipe: Recipe, tmp_path: Path, optimizer: str) -> None:
    recipe = changed(recipe, optimizer=optimizer)
    straight = Trainer(recipe, documents())
    losses = [straight.step() for _ in range(12)]
    stopped = Trainer(recipe, documents())
    for _ in range(5):
        stopped.step()
    save_state(tmp_path / "state", stopped.state({}))
    resumed = Trainer(recipe, documents())
    torch.manual_seed(999)  # nothing may come from here
    resumed.restore(load_state(tmp_path / "state"))
    assert [resumed.step() for _ in range(7)] == losses[5:]
    assert all(torch.equal(a, b) for a, b in zip(weights(straight), weights(resumed), strict=True))


def test_a_state_does_not_change_when_the_run_goes_on(recipe: Recipe) -> None:
    trainer = Trainer(recipe, documents())
    trainer.step()
    state = trainer.state({})
    before = {name: tensor.clone() for name, tensor in {**state.model, **state.optimizer}.items()}
    trainer.step()
    assert all(
        torch.equal(before[name], tensor)
        for name, tensor in {**state.model, **state.optimizer}.items()
    )


def test_rows_grow_to_the_context_and_all_positions_are_learned(recipe: Recipe) -> None:
    trainer = Trainer(changed(recipe, steps=60, long_rows_from=50), documents())
    before = trainer.model.wpe.weight.detach().clone()
    lengths = []
    for _ in range(52):
        lengths.append(trainer.row_tokens)
        trainer.step()
    assert lengths == [16] * 50 + [32] * 2
    moved = (trainer.model.wpe.weight.detach() - before).abs().mean(dim=1)
    assert bool(
        (moved[:29] > 0.005).all()
    )  # rows reach 16..28 by their random first positions, 29..31 mostly when long
    assert bool((moved > 0.0002).all())


def test_not_a_number_stops_the_run_before_the_weights_change(recipe: Recipe) -> None:
    trainer = Trainer(recipe, documents())
    trainer.step()
    before = weights(trainer)
    trainer.model.ln_f.bias.data[0] = math.nan
    with pytest.raises(NumericError, match="step 2: the loss is nan"):
        trainer.step()
    after = weights(trainer)
    # only what we broke
    assert sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True)) == 1


def test_a_state_with_not_a_number_leaves_the_old_file(recipe: Recipe, tmp_path: Path) -> None:
    trainer = Trainer(recipe, documents())
    save_state(tmp_path / "state", trainer.state({"n": 1}))
    trainer.model.wte.weight.data[3, 3] = math.inf
    with pytest.raises(NumericError, match=r"was not replaced: model.wte.weight"):
        save_state(tmp_path / "state", trainer.state({"n": 2}))
    assert load_state(tmp_path / "state").progress["n"] == 1


def test_bfloat16_learns_as_float32_does(recipe: Recipe) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        trainer = Trainer(changed(recipe, precision=precision, dropout=0.0), documents())
        losses[precision] = [trainer.step() for _ in range(8)]
    assert losses["float32"] != losses["bfloat16"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], abs=0.02)


def test_another_recipe_cannot_take_over_a_run(recipe: Recipe) -> None:
    trainer = Trainer(recipe, documents())
    state = trainer.state({})
    other = Trainer(changed(recipe, learning_rate=0.001), documents())
    with pytest.raises(
        TrainingError, match=r"\[training\] learning_rate is 0.001, the run to resume has 0.005"
    ):
        other.restore(state)


def test_the_length_may_change_while_the_past_stays_as_it_was(recipe: Recipe) -> None:
    recipe = changed(recipe, steps=40, constant_until=20, long_rows_from=30)
    trainer = Trainer(recipe, documents())
    for _ in range(6):
        trainer.step()
    state = trainer.state({})
    longer = Trainer(changed(recipe, steps=90, constant_until=60, long_rows_from=80), documents())
    longer.restore(state)
    assert longer.n_steps_done == 6
    for wrong in ({"constant_until": 0}, {"long_rows_from": 3}):
        with pytest.raises(TrainingError, match=f"{next(iter(wrong))} is"):
            Trainer(changed(recipe, **wrong), documents()).restore(state)


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 100, b"\x02\0\0\0\0\0\0\0{}"])
def test_a_corrupt_state_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(TrainingError, match="is corrupt or not the state of a run"):
        load_state(tmp_path / "state")


def test_gradients_agree_with_finite_differences(recipe: Recipe) -> None:
    """In float64: central differences along random directions."""
    trainer = Trainer(changed(recipe, dropout=0.0), documents())
    model = trainer.model.double()
    inputs, targets, _ = trainer.batches.next(16)
    positions = torch.arange(16)[None]

    def loss() -> torch.Tensor:
        logits = model(inputs, positions)[0]
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=-1
        )

    loss().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        direction = torch.randn_like(parameter)
        wanted = (parameter.grad * direction).sum().item()
        values = []
        with torch.no_grad():
            for sign in (1, -2):
                parameter += sign * 1e-5 * direction
                values.append(loss().item())
            parameter += 1e-5 * direction
        found = (values[0] - values[1]) / 2e-5
        assert found == pytest.approx(wanted, rel=1e-3, abs=1e-7)


def test_without_a_compiler_compile_says_what_to_do(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: object, inputs: object, **_: object) -> object:
        raise RuntimeError("no working C++ compiler found")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=broken))
    with pytest.raises(TrainingError, match=r"torch.compile failed: .*C\+\+ compiler") as caught:
        Trainer(changed(recipe, compile=True), documents()).step()
    assert "compile = false" in (caught.value.hint or "")


@pytest.mark.slow
def test_compiled_steps_learn_as_eager_ones_do(recipe: Recipe) -> None:
    losses = {}
    for is_compiled in (False, True):
        trainer = Trainer(changed(recipe, compile=is_compiled, dropout=0.1), documents())
        losses[is_compiled] = [trainer.step() for _ in range(12)]  # the rows get longer on the way
    assert losses[True] == pytest.approx(losses[False], abs=1e-3)


@pytest.mark.parametrize("parts", [2, 4, 16])
def test_accumulated_gradients_equal_those_of_the_whole_batch(recipe: Recipe, parts: int) -> None:
    recipe = changed(recipe, dropout=0.0, long_rows_from=0)
    whole, accumulated = (
        Trainer(recipe, documents()),
        Trainer(changed(recipe, micro_batch_tokens=256 // parts), documents()),
    )
    for _ in range(4):
        assert accumulated.step() == pytest.approx(whole.step(), abs=1e-5)
    for mine, theirs in zip(weights(accumulated), weights(whole), strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_activation_checkpointing_changes_nothing(recipe: Recipe, dropout: float) -> None:
    """Dropout's random numbers come again when a layer is computed again."""
    recipe = changed(recipe, dropout=dropout)
    plain = Trainer(recipe, documents())
    losses = [plain.step() for _ in range(5)]
    # seeds torch again
    checkpointed = Trainer(changed(recipe, activation_checkpointing=True), documents())
    assert [checkpointed.step() for _ in range(5)] == losses
    assert all(
        torch.equal(a, b) for a, b in zip(weights(plain), weights(checkpointed), strict=True)
    )


def test_the_moving_average_is_evaluated_and_saved(recipe: Recipe, tmp_path: Path) -> None:
    recipe = changed(recipe, ema=0.9)
    trainer = Trainer(recipe, documents())
    average = weights(trainer)
    for step in range(7):
        trainer.step()
        decay = min(0.9, (1 + step) / (10 + step))
        average = [
            decay * old + (1 - decay) * new
            for old, new in zip(average, weights(trainer), strict=True)
        ]
    kept = list(trainer.weights().values())
    for mine, wanted in zip(kept, average, strict=True):
        torch.testing.assert_close(mine, wanted)
    now = weights(trainer)
    assert not torch.equal(kept[0], now[0])
    some = list(documents_of(documents(5)[0], 299))
    score = trainer.evaluate(some, 100)
    # training continues with its own
    assert all(torch.equal(a, b) for a, b in zip(now, weights(trainer), strict=True))
    model = GPT(recipe.model)
    model.load_state_dict(trainer.weights(), strict=False)  # the tied head is wte
    assert score_in_torch(model, some, 100, trainer.row_tokens, "float32") == score

    save_state(tmp_path / "state", trainer.state({}))
    loss = trainer.step()
    resumed = Trainer(recipe, documents())
    resumed.restore(load_state(tmp_path / "state"))
    assert resumed.step() == loss
    assert all(
        torch.equal(a, b)
        for a, b in zip(trainer.weights().values(), resumed.weights().values(), strict=True)
    )


def test_a_run_without_a_moving_average_cannot_go_on_with_one(recipe: Recipe) -> None:
    state = Trainer(recipe, documents()).state({})
    with pytest.raises(TrainingError, match=r"\[training\] ema is 0.9, the run to resume has 0.0"):
        Trainer(changed(recipe, ema=0.9), documents()).restore(state)


def test_a_state_of_an_earlier_version_is_taken(recipe: Recipe) -> None:
    """Keys that a recipe did not have then count as left out."""
    trainer = Trainer(recipe, documents())
    trainer.step()
    state = trainer.state({})
    for section, keys in {
        "training": ("ema", "micro_batch_tokens"),
        "data": ("field", "held_out"),
    }.items():
        for key in keys:
            del state.recipe[section][key]
    del state.progress["trainer"]["shard"]
    loss = trainer.step()
    other = Trainer(recipe, documents())
    other.restore(state)
    assert other.step() == loss


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("window", [None, 5])
def test_the_loss_is_that_of_the_reference(norm: str, window: int | None) -> None:
    torch.manual_seed(0)
    attention = ("dense", "banded") if window else ("dense",)
    config = GPTConfig(
        n_layer=2,
        n_head=2,
        n_embd=16,
        n_ctx=24,
        vocab_size=50,
        norm=norm,
        attention=attention,
        window=window,
    )
    model = GPT(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    inputs, targets = torch.randint(0, 50, (3, 20)), torch.randint(0, 50, (3, 20))
    targets[0, 7:] = -1
    positions = torch.arange(2, 22)[None]
    logits = model(inputs, positions)[0].log_softmax(-1)
    wanted = -sum(
        logits[b, t, targets[b, t]] for b in range(3) for t in range(20) if targets[b, t] >= 0
    )
    torch.testing.assert_close(BatchLoss(model)(inputs, targets, positions), wanted)
    for layer, block in enumerate(model.blocks()):
        x = torch.randn(2, 20, 16)
        mask = causal_mask(0, 20, config.layer_window(layer), x.device)
        torch.testing.assert_close(unfused_attention(block.attn, x), block.attn(x, None, mask)[0])
