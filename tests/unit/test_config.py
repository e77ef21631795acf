"""GPTConfig: the papers' numbers, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_edge.config import MAX_DIMENSION, PRESETS, GPTConfig

TINY: dict[str, Any] = {"n_layer": 2, "n_head": 2, "n_embd": 8, "n_ctx": 16, "vocab_size": 11}

# Papers' figures in millions: GPT-1 released weights, GPT-2 released weights (the paper's table
# 2 counts otherwise).
PARAMETERS = {
    "gpt1": 116.5,
    "gpt2": 124.4,
    "gpt2-medium": 354.8,
    "gpt2-large": 774.0,
    "gpt2-xl": 1557.6,
}


@pytest.mark.parametrize(("name", "millions"), PARAMETERS.items())
def test_preset_has_the_papers_parameter_count(name: str, millions: float) -> None:
    assert round(PRESETS[name].n_parameters / 1e6, 1) == millions


def test_gpt1_count_equals_the_released_shapes(shared_data: Any) -> None:
    shapes = json.loads((shared_data / "gpt1-vocab" / "params_shapes.json").read_text())
    total = 0
    for shape in shapes:
        n_values = 1
        for size in shape:
            n_values *= size
        total += n_values
    assert PRESETS["gpt1"].n_parameters == total == 116_534_784


def test_presets_have_the_papers_shapes() -> None:
    shapes = {
        name: (c.n_layer, c.n_head, c.n_embd, c.n_ctx, c.vocab_size, c.norm)
        for name, c in PRESETS.items()
    }
    assert shapes == {
        "gpt1": (12, 12, 768, 512, 40478, "post"),
        "gpt2": (12, 12, 768, 1024, 50257, "pre"),
        "gpt2-medium": (24, 16, 1024, 1024, 50257, "pre"),
        "gpt2-large": (36, 20, 1280, 1024, 50257, "pre"),
        "gpt2-xl": (48, 25, 1600, 1024, 50257, "pre"),
        "gpt3-small": (12, 12, 768, 2048, 50257, "pre"),
    }


def test_gpt3_layers_are_dense_and_banded_in_turn() -> None:
    assert [PRESETS["gpt3-small"].layer_window(layer) for layer in range(4)] == [
        None,
        256,
        None,
        256,
    ]
    assert {PRESETS["gpt2"].layer_window(layer) for layer in range(12)} == {None}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"n_layer": 0}, "n_layer"),
        ({"n_embd": -8}, "n_embd"),
        ({"n_embd": 8.0}, "n_embd"),
        ({"n_head": True}, "n_head"),
        ({"vocab_size": MAX_DIMENSION + 1}, "vocab_size"),
        ({"n_ctx": "16"}, "n_ctx"),
        ({"n_head": 3}, "multiple of n_head"),
        ({"norm": "middle"}, "norm"),
        ({"activation": "swish"}, "activation"),
        ({"attention": ()}, "attention"),
        ({"attention": ("sparse",)}, "attention"),
        ({"attention": ("banded",)}, "window"),
        ({"window": 4}, "window"),
        ({"attention": ("banded",), "window": 0}, "window"),
        ({"n_inner": 0}, "n_inner"),
        ({"layer_norm_epsilon": 0.0}, "layer_norm_epsilon"),
        ({"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon"),
        ({"layer_norm_epsilon": float("inf")}, "layer_norm_epsilon"),
    ],
)
def test_a_shape_no_model_can_have_is_refused_by_name(change: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        GPTConfig(**{**TINY, **change})


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({**TINY, "n_experts": 8}, "unknown config fields: n_experts"),
        ({"n_layer": 2, "n_head": 2}, "missing config fields: n_ctx, n_embd, vocab_size"),
        ({**TINY, "tied_embeddings": "yes"}, "tied_embeddings"),
        ({**TINY, "scale_attention": 1}, "scale_attention"),
        ({**TINY, "attention": "dense"}, "attention must be a list"),
        ({**TINY, "attention": None}, "attention must be a list"),
        ({**TINY, "layer_norm_epsilon": "1e-5"}, "layer_norm_epsilon"),
        ({**TINY, "layer_norm_epsilon": True}, "layer_norm_epsilon"),
        ({**TINY, "layer_norm_epsilon": 10**400}, "layer_norm_epsilon"),  # more than a float
    ],
)
def test_from_dict_refuses_what_json_can_get_wrong(values: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        GPTConfig.from_dict(values)


@given(
    n_layer=st.integers(1, 50),
    n_head=st.integers(1, 32),
    head_size=st.integers(1, 130),
    is_banded=st.booleans(),
    norm=st.sampled_from(["pre", "post"]),
    n_inner=st.none() | st.integers(1, 9999),
    tied=st.booleans(),
)
def test_a_config_survives_json(
    n_layer: int,
    n_head: int,
    head_size: int,
    is_banded: bool,
    norm: str,
    n_inner: int | None,
    tied: bool,
) -> None:
    attention, window = (("dense", "banded"), 7) if is_banded else (("dense",), None)
    config = GPTConfig(
        n_layer,
        n_head,
        n_head * head_size,
        64,
        99,
        norm,
        attention,
        window,
        n_inner=n_inner,
        tied_embeddings=tied,
    )
    assert GPTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.head_size == head_size
    assert config.inner_size == (n_inner or 4 * config.n_embd)
