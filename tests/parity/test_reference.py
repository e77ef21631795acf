"""The reference alone: past = no past, the band, wiring against a slow version, and a trained model
with known activations.
"""

from __future__ import annotations

import base64
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gpt_edge.config import PRESETS, GPTConfig
from gpt_edge.reference.importers.tensor_map import reference_shapes
from gpt_edge.reference.model import GPT, WithoutValues, activate, causal_mask, without_memory

# max |difference| of logits of about unit size: only the order of sums differs
TOLERANCE = {"float32": 1e-5}

TINY = {
    "gpt1": GPTConfig(n_layer=2, n_head=3, n_embd=24, n_ctx=20, vocab_size=37, norm="post"),
    "gpt2": GPTConfig(n_layer=3, n_head=2, n_embd=16, n_ctx=20, vocab_size=37),
    "gpt3": GPTConfig(
        n_layer=4,
        n_head=2,
        n_embd=16,
        n_ctx=20,
        vocab_size=37,
        attention=("dense", "banded"),
        window=3,
    ),
    "untied": GPTConfig(
        n_layer=1,
        n_head=1,
        n_embd=8,
        n_ctx=20,
        vocab_size=5,
        n_inner=10,
        activation="relu",
        tied_embeddings=False,
    ),
}


def lively(config: GPTConfig, seed: int = 0) -> GPT:
    """A random model whose every weight counts: biases and norms too, large enough for attention to
    choose.
    """
    torch.manual_seed(seed)
    model = GPT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


@pytest.fixture(scope="module", params=TINY)
def model(request: pytest.FixtureRequest) -> GPT:
    return lively(TINY[request.param])


def ids_for(model: GPT, batch: int, length: int) -> Tensor:
    return torch.randint(
        model.config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(1)
    )


@torch.no_grad()
@pytest.mark.parametrize("split", [1, 2, 7, 19])
def test_decode_after_prefill_equals_one_full_forward(model: GPT, split: int) -> None:
    ids = ids_for(model, 2, 20)
    whole, whole_present = model(ids)
    first, past = model(ids[:, :split])
    rest, present = model(ids[:, split:], past_key_values=past)
    torch.testing.assert_close(
        torch.cat([first, rest], dim=1), whole, atol=TOLERANCE["float32"], rtol=1e-5
    )
    for (key, value), (whole_key, whole_value) in zip(present, whole_present, strict=True):
        assert key.shape == (2, model.config.n_head, 20, model.config.head_size)
        torch.testing.assert_close(key, whole_key, atol=TOLERANCE["float32"], rtol=1e-5)
        torch.testing.assert_close(value, whole_value, atol=TOLERANCE["float32"], rtol=1e-5)


@torch.no_grad()
def test_one_token_at_a_time_equals_one_full_forward(model: GPT) -> None:
    ids = ids_for(model, 1, 20)
    past, rows = None, []
    for position in range(20):
        logits, past = model(ids[:, position : position + 1], past_key_values=past)
        rows.append(logits)
    torch.testing.assert_close(
        torch.cat(rows, dim=1), model(ids)[0], atol=TOLERANCE["float32"], rtol=1e-5
    )


@torch.no_grad()
def test_left_padding_changes_nothing_for_the_real_tokens(model: GPT) -> None:
    ids = ids_for(model, 1, 9)
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), ids], dim=1)
    mask = torch.tensor([[0] * 4 + [1] * 9])
    positions = torch.tensor([[0] * 4 + list(range(9))])
    logits, _ = model(padded, positions, attention_mask=mask)
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(logits[:, 4:], model(ids)[0], atol=TOLERANCE["float32"], rtol=1e-5)


@torch.no_grad()
def test_a_token_never_sees_what_follows(model: GPT) -> None:
    ids = ids_for(model, 1, 20)
    changed = ids.clone()
    changed[0, 12:] = (changed[0, 12:] + 1) % model.config.vocab_size
    before, after = model(ids)[0][0], model(changed)[0][0]
    torch.testing.assert_close(before[:12], after[:12], atol=TOLERANCE["float32"], rtol=1e-5)
    assert not torch.allclose(before[12:], after[12:], atol=1e-2)


def test_banded_mask_is_the_last_window_positions_and_itself() -> None:
    for n_past, n_new, window in itertools.product(range(4), range(1, 5), (1, 2, 3, 99)):
        mask = causal_mask(n_past, n_new, window, torch.device("cpu"))
        slow = [
            [n_past + q - window < k <= n_past + q for k in range(n_past + n_new)]
            for q in range(n_new)
        ]
        assert mask.tolist() == slow


@torch.no_grad()
def test_banded_layers_forget_what_left_the_window() -> None:
    config = GPTConfig(
        n_layer=2, n_head=2, n_embd=16, n_ctx=20, vocab_size=37, attention=("banded",), window=3
    )
    model = lively(config)
    ids = ids_for(model, 1, 12)
    changed = ids.clone()
    changed[0, 0] = (changed[0, 0] + 1) % 37
    moved = (model(ids)[0] - model(changed)[0]).abs().amax(dim=-1)[0]
    # two layers of three positions each reach back four
    assert (moved[:5] > 1e-3).all()
    assert (moved[5:] < 1e-6).all()


def slow_logits(model: GPT, ids: list[int]) -> np.ndarray:
    """The papers' formulas in float64 numpy, one head and one query at a time. Returns [T, V]."""
    c = model.config
    w = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + c.layer_norm_epsilon)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def attention(x: np.ndarray, layer: int) -> np.ndarray:
        q, k, v = np.split(linear(x, f"h.{layer}.attn.c_attn"), 3, axis=-1)
        D, out, window = c.head_size, np.zeros_like(x), c.layer_window(layer) or c.n_ctx
        for head, t in itertools.product(range(c.n_head), range(len(ids))):
            part, seen = slice(head * D, head * D + D), slice(max(0, t - window + 1), t + 1)
            scores = k[seen, part] @ q[t, part] / (np.sqrt(D) if c.scale_attention else 1)
            weights = np.exp(scores - scores.max())
            out[t, part] = weights / weights.sum() @ v[seen, part]
        return linear(out, f"h.{layer}.attn.c_proj")

    def mlp(x: np.ndarray, layer: int) -> np.ndarray:
        inner = linear(x, f"h.{layer}.mlp.c_fc")
        gelu = 0.5 * inner * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
        return linear(
            np.maximum(inner, 0) if c.activation == "relu" else gelu, f"h.{layer}.mlp.c_proj"
        )

    x = w["wte.weight"][ids] + w["wpe.weight"][: len(ids)]
    for layer in range(c.n_layer):
        if c.norm == "post":
            n = norm(x + attention(x, layer), f"h.{layer}.ln_1")
            x = norm(n + mlp(n, layer), f"h.{layer}.ln_2")
        else:
            x = x + attention(norm(x, f"h.{layer}.ln_1"), layer)
            x = x + mlp(norm(x, f"h.{layer}.ln_2"), layer)
    x = norm(x, "ln_f") if c.norm == "pre" else x
    return x @ w["lm_head.weight"].T


@torch.no_grad()
def test_logits_equal_the_papers_formulas(model: GPT) -> None:
    ids = ids_for(model, 1, 20)
    np.testing.assert_allclose(
        model(ids)[0][0].numpy(), slow_logits(model, ids[0].tolist()), atol=1e-4
    )


def test_gelu_forms_differ_and_are_the_published_ones() -> None:
    x = torch.linspace(-4, 4, 81, dtype=torch.float64)
    tanh = 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))
    erf = 0.5 * x * (1 + torch.erf(x / 2**0.5))
    torch.testing.assert_close(activate(x, "gelu_tanh"), tanh)
    torch.testing.assert_close(activate(x, "gelu"), erf)
    assert (tanh - erf).abs().max() > 1e-4


@pytest.mark.parametrize("config", [*TINY.values(), *PRESETS.values()], ids=[*TINY, *PRESETS])
def test_parameters_are_those_the_config_and_the_importers_count(config: GPTConfig) -> None:
    with without_memory():
        parameters = {name: tuple(p.shape) for name, p in GPT(config).named_parameters()}
    assert parameters == reference_shapes(config)
    assert sum(int(np.prod(shape)) for shape in parameters.values()) == config.n_parameters


def test_weights_that_are_loaded_afterwards_are_not_initialized(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Torch fills what it allocates with NaN here, so that what was written shows."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    was, state = torch.are_deterministic_algorithms_enabled(), torch.get_rng_state()
    torch.use_deterministic_algorithms(True)
    try:
        with WithoutValues():
            model = GPT(TINY["gpt2"])
    finally:
        torch.use_deterministic_algorithms(was)
    assert all(bool(parameter.isnan().all()) for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_initialisation_follows_the_papers() -> None:
    torch.manual_seed(0)
    std = {}
    for norm in ("pre", "post"):
        config = GPTConfig(n_layer=8, n_head=4, n_embd=128, n_ctx=256, vocab_size=500, norm=norm)
        for name in ("wte.weight", "wpe.weight", "h.0.mlp.c_proj.weight"):
            std[norm, name] = GPT(config).get_parameter(name).std().item()
    assert std == pytest.approx(
        {
            ("pre", "wte.weight"): 0.02,
            ("pre", "wpe.weight"): 0.01,
            ("pre", "h.0.mlp.c_proj.weight"): 0.005,  # 0.02 / sqrt(2 * 8)
            ("post", "wte.weight"): 0.02,
            ("post", "wpe.weight"): 0.02,
            ("post", "h.0.mlp.c_proj.weight"): 0.02,
        },
        rel=0.03,
    )


def decode_tensor(stored: dict[str, object]) -> np.ndarray:
    assert stored["dtype"] == "torch.float32"
    raw = base64.b64decode(str(stored["data"]))
    return np.frombuffer(raw, dtype="<f4").reshape(stored["shape"]).copy()  # type: ignore[call-overload, no-any-return]


@pytest.fixture(scope="module")
def sorter(shared_data: Path) -> GPT:
    """gpt-nano-sort: minGPT's names, linear weights [out, in], an untied head."""
    stored = json.loads((shared_data / "gpt-nano-sort" / "gpt-nano-sort-model.json").read_text())
    shape = stored.pop("config")
    model = GPT(
        GPTConfig(
            n_layer=shape["n_layer"],
            n_head=shape["n_head"],
            n_embd=shape["n_embd"],
            n_ctx=shape["block_size"],
            vocab_size=shape["vocab_size"],
            tied_embeddings=False,
        )
    )
    weights = {name: torch.from_numpy(decode_tensor(tensor)) for name, tensor in stored.items()}
    model.load_state_dict(
        {
            n.removeprefix("transformer."): w
            for n, w in weights.items()
            if not n.endswith(".attn.bias")
        }
    )
    return model.eval()


@torch.no_grad()
def test_trained_model_repeats_its_reference_activations(sorter: GPT, shared_data: Path) -> None:
    stored = json.loads(
        (shared_data / "gpt-nano-sort" / "gpt-nano-sort-t0-partials.json").read_text()
    )
    ids = torch.from_numpy(decode_tensor(stored["idx"])).long()
    hidden, present = sorter.hidden(ids)
    logits, _ = sorter(ids)
    assert np.abs(logits.numpy() - decode_tensor(stored["lm_head"])).max() <= 1e-5
    assert np.abs(hidden.numpy() - decode_tensor(stored["ln_f"])).max() <= 1e-5
    assert np.abs(present[0][0].numpy() - decode_tensor(stored["k"])).max() <= 1e-5
    assert np.abs(present[0][1].numpy() - decode_tensor(stored["v"])).max() <= 1e-5


@torch.no_grad()
def test_trained_model_sorts_every_input(sorter: GPT) -> None:
    ids = torch.tensor(list(itertools.product(range(3), repeat=6)))  # [729, 6]
    logits, past = sorter(ids)
    found = []
    for _ in range(6):
        found.append(logits[:, -1].argmax(dim=-1, keepdim=True))
        if len(found) < 6:  # the sixth answer is not read back: 6 + 5 fill the context of 11
            logits, past = sorter(found[-1], past_key_values=past)
    wrong = (torch.cat(found, dim=1) != ids.sort(dim=1).values).any(dim=1)
    assert wrong.sum().item() == 0
