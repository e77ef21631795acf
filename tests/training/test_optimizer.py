from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from gpt_edge.config import GPTConfig
from gpt_edge.reference.model import GPT
from gpt_edge.training.optimizer import Optimizer, decay_groups, learning_rate_factor
from gpt_edge.training.recipe import TrainingSection

TRAINING = TrainingSection(
    steps=100, batch_tokens=64, learning_rate=0.01, row_tokens=16, warmup_steps=10
)
CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=16, n_ctx=16, vocab_size=50)


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (55, 0.55), (100, 0.1), (500, 0.1)],
)
def test_the_rate_climbs_then_falls_along_a_cosine(step: int, factor: float) -> None:
    assert learning_rate_factor(step, TRAINING) == pytest.approx(factor)


def test_the_rate_stays_at_its_peak_as_long_as_asked() -> None:
    training = dataclasses.replace(TRAINING, constant_until=60, final_learning_rate=0.0)
    assert [learning_rate_factor(step, training) for step in (10, 30, 60)] == [1.0, 1.0, 1.0]
    assert learning_rate_factor(80, training) == pytest.approx(0.5)
    assert learning_rate_factor(100, training) == pytest.approx(0.0, abs=1e-12)


def test_a_long_gradient_is_shortened_and_a_short_one_is_not() -> None:
    torch.manual_seed(2)
    clipped, plain = GPT(CONFIG), GPT(CONFIG)
    plain.load_state_dict(clipped.state_dict())
    optimizers = [
        Optimizer(clipped, dataclasses.replace(TRAINING, clip_norm=0.5)),
        Optimizer(plain, TRAINING),
    ]
    for step, length in enumerate((0.4, 3.0, 0.3)):
        drawn = [torch.randn_like(parameter) for parameter in clipped.parameters()]
        whole = torch.nn.utils.get_total_norm(drawn)
        for model, wanted in ((clipped, length), (plain, min(length, 0.5))):
            for parameter, gradient in zip(model.parameters(), drawn, strict=True):
                parameter.grad = gradient * (wanted / whole)
        for optimizer in optimizers:
            optimizer.step(step, optimizer.norm())
    for one, other in zip(clipped.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_only_matrices_and_embeddings_decay(optimizer: str) -> None:
    model = GPT(CONFIG)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    training = dataclasses.replace(TRAINING, optimizer=optimizer, weight_decay=0.5, warmup_steps=0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)  # then only the decay moves a weight
    Optimizer(model, training).step(0)
    for name, parameter in model.named_parameters():
        is_matrix = optimizer == "muon" and parameter.dim() > 1 and name.startswith("h.")
        rate = training.matrix_learning_rate if is_matrix else training.learning_rate
        kept = 1 - rate * 0.5 if parameter.dim() > 1 else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * kept, rtol=1e-6, atol=1e-8)


def test_every_parameter_is_in_one_group() -> None:
    model = GPT(CONFIG)
    matrices, embeddings, rest = decay_groups(model)
    assert sum(map(torch.numel, matrices + embeddings + rest)) == CONFIG.n_parameters
    assert len(matrices) == 4 * CONFIG.n_layer
    assert len(embeddings) == 2  # the tied head is wte
    assert all(parameter.dim() == 1 for parameter in rest)


def test_adamw_takes_the_step_of_the_paper() -> None:
    model = torch.nn.Linear(3, 2)
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    gradient = torch.tensor([[1.0, -2.0, 3.0], [0.5, 0.0, -1.0]])
    model.weight.grad, model.bias.grad = gradient.clone(), torch.tensor([1.0, -1.0])
    Optimizer(model, dataclasses.replace(TRAINING, warmup_steps=0)).step(0)
    # Loshchilov and Hutter 2019, algorithm 2, first step: both moments unbiased, so the update is g
    # / (|g| + eps)
    update = gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(model.weight.detach(), weight * (1 - 0.01 * 0.1) - 0.01 * update)
    torch.testing.assert_close(model.bias.detach(), bias - 0.01 * torch.tensor([1.0, -1.0]))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_moments_survive_a_round_trip(optimizer: str) -> None:
    training = dataclasses.replace(TRAINING, optimizer=optimizer)
    torch.manual_seed(0)
    one = GPT(CONFIG)
    two = GPT(CONFIG)
    two.load_state_dict(one.state_dict())
    first, second = Optimizer(one, training), Optimizer(two, training)

    def step(model: GPT, with_optimizer: Optimizer, n: int) -> None:
        ids = torch.arange(16)[None] * (n + 3) % 50
        model(ids)[0].square().mean().backward()
        with_optimizer.step(n)

    for n in range(3):
        step(one, first, n)
    two.load_state_dict(one.state_dict())
    second.restore({name: tensor.clone() for name, tensor in first.tensors()})
    for n in range(3, 6):
        step(one, first, n)
        step(two, second, n)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert math.isfinite(next(one.parameters()).sum().item())
