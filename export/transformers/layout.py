"""The reference as a transformers model: its architecture, its config.json, and the name of every
tensor.

The inverse of `reference/importers/hf_*.py`. A model that no architecture can represent is refused
with the reason. Sources: transformers, models/gpt2, models/openai and models/gpt_neo.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpt_edge.arrays import FloatArray
from gpt_edge.config import GPTConfig
from gpt_edge.errors import ExportError
from gpt_edge.export.weights.source import WeightSource
from gpt_edge.reference.importers.tensor_map import LINEAR_WEIGHTS, reference_shapes

ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu": "gelu", "relu": "relu"}
GPT1_ACTIVATIONS = {"gelu_tanh": "gelu", "relu": "relu"}  # its "gelu" is the tanh form
KINDS = {"dense": "global", "banded": "local"}
DEFAULT_WINDOW = 256  # tokens; GPT-Neo's, where no layer is local
HINT = "export it as a bundle instead: leave out --to transformers"


@dataclass(frozen=True, slots=True)
class HFTensor:
    """One tensor of the folder: its shape there, and how it is taken from a tensor of the
    reference.
    """

    name: str
    shape: tuple[int, ...]
    origin: str  # the reference's name
    take: Callable[[FloatArray], FloatArray]


def model_type(config: GPTConfig, has_attention_bias: bool) -> str:
    """Return "openai-gpt", "gpt2" or "gpt_neo". Raises ExportError for a model that none of them
    can represent, with the reason.

    has_attention_bias: whether any query, key or value has a bias other than 0, which GPT-Neo does
    not have.
    """
    if config.norm == "post":
        _check_gpt1(config)
        return "openai-gpt"
    is_dense = set(config.attention) == {"dense"}
    if is_dense and config.scale_attention:
        return "gpt2"
    if config.scale_attention:
        raise _refusal(
            "it has banded layers and divides attention by the root of the head's size: GPT-Neo, "
            "the only architecture with banded layers, does not divide"
        )
    if has_attention_bias:
        raise _refusal(
            "it does not divide attention by the root of the head's size and has biases of "
            "queries, keys and values: GPT-Neo has no such biases, and GPT-2 divides "
            "there, whatever its config says"
        )
    return "gpt_neo"


def has_attention_bias(source: WeightSource) -> bool:
    """Whether a layer's queries, keys or values have a bias other than 0 (its bits: -0.0 is
    another).
    """
    names = [f"h.{layer}.attn.c_attn.bias" for layer in range(source.config.n_layer)]
    return any(bool(np.any(source.tensor(name).view(np.uint32))) for name in names)


def _check_gpt1(config: GPTConfig) -> None:
    """What transformers' OpenAIGPT has no setting for."""
    if set(config.attention) != {"dense"}:
        raise _refusal(
            "it is post-norm with banded layers: transformers' OpenAIGPT sees every position in "
            "every layer"
        )
    if config.activation not in GPT1_ACTIVATIONS:
        raise _refusal(
            f"it is post-norm with the activation {config.activation!r}: transformers' OpenAIGPT "
            f"has {' and '.join(GPT1_ACTIVATIONS)}"
        )
    if config.inner_size != 4 * config.n_embd:
        raise _refusal(
            f"its MLP is {config.inner_size} wide: transformers' OpenAIGPT always has "
            f"{4 * config.n_embd}"
        )
    if not config.scale_attention:
        raise _refusal(
            "it does not divide attention by the root of the head's size: transformers' OpenAIGPT "
            "does"
        )


def _refusal(reason: str) -> ExportError:
    return ExportError(
        f"no architecture of transformers can represent this model: {reason}", hint=HINT
    )


def hf_config(config: GPTConfig, architecture: str, end_token: int | None) -> dict[str, Any]:
    """config.json of a `model_type`. end_token: the id that begins and ends a text."""
    common = {
        "model_type": architecture,
        "vocab_size": config.vocab_size,
        "layer_norm_epsilon": config.layer_norm_epsilon,
        "tie_word_embeddings": config.tied_embeddings,
        "bos_token_id": end_token,
        "eos_token_id": end_token,
        "torch_dtype": "float32",
        "use_cache": True,
    }
    if architecture == "gpt_neo":
        return {
            **common,
            "architectures": ["GPTNeoForCausalLM"],
            "num_layers": config.n_layer,
            "num_heads": config.n_head,
            "hidden_size": config.n_embd,
            "max_position_embeddings": config.n_ctx,
            "intermediate_size": config.n_inner,
            "activation_function": ACTIVATIONS[config.activation],
            "window_size": config.window or DEFAULT_WINDOW,
            **_attention_types(config),
        }
    sizes = {
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "n_positions": config.n_ctx,
        "n_ctx": config.n_ctx,  # llama.cpp's converter reads this one
    }
    if architecture == "openai-gpt":
        activation = GPT1_ACTIVATIONS[config.activation]
        return {**common, **sizes, "architectures": ["OpenAIGPTLMHeadModel"], "afn": activation}
    return {
        **common,
        **sizes,
        "architectures": ["GPT2LMHeadModel"],
        "n_inner": config.n_inner,
        "activation_function": ACTIVATIONS[config.activation],
    }


def _attention_types(config: GPTConfig) -> dict[str, Any]:
    layers = [
        KINDS[config.attention[layer % len(config.attention)]] for layer in range(config.n_layer)
    ]
    period, rest = len(config.attention), config.n_layer % len(config.attention)
    pattern, repeats = (layers, 1) if rest else (layers[:period], config.n_layer // period)
    return {"attention_types": [[pattern, repeats]], "attention_layers": layers}


def hf_tensors(config: GPTConfig, architecture: str) -> list[HFTensor]:
    """Every tensor of the folder, in the reference's order; a tied head is left out, as
    transformers leaves it out.
    """
    of_kind = {"gpt2": _gpt2, "openai-gpt": _gpt1, "gpt_neo": _gpt_neo}[architecture]
    return [
        tensor
        for name, shape in reference_shapes(config).items()
        for tensor in of_kind(name, shape)
    ]


def _unchanged(array: FloatArray) -> FloatArray:
    return array


def _conv1d(name: str, ours: str, shape: tuple[int, ...]) -> HFTensor:
    """Linear weights are Conv1D in the older two: [in, out]."""
    if ours.endswith(LINEAR_WEIGHTS):
        return HFTensor(name, shape[::-1], ours, lambda array: array.T)
    return HFTensor(name, shape, ours, _unchanged)


def _gpt2(ours: str, shape: tuple[int, ...]) -> Sequence[HFTensor]:
    return [_conv1d(ours if ours == "lm_head.weight" else f"transformer.{ours}", ours, shape)]


def _gpt1(ours: str, shape: tuple[int, ...]) -> Sequence[HFTensor]:
    renamed = {"wte.weight": "tokens_embed.weight", "wpe.weight": "positions_embed.weight"}.get(
        ours, ours
    )
    return [_conv1d(ours if ours == "lm_head.weight" else f"transformer.{renamed}", ours, shape)]


def _gpt_neo(ours: str, shape: tuple[int, ...]) -> Sequence[HFTensor]:
    if ours.endswith(".attn.c_attn.bias"):  # all 0, or `model_type` had refused
        return []
    if ours.endswith(".attn.c_attn.weight"):
        width, block = shape[1], ours.partition(".attn.")[0]
        return [
            HFTensor(
                f"transformer.{block}.attn.attention.{part}_proj.weight",
                (width, width),
                ours,
                _third(i, width),
            )
            for i, part in enumerate("qkv")
        ]
    name = ours.replace(".attn.c_proj.", ".attn.attention.out_proj.")
    return [
        HFTensor(
            name if ours == "lm_head.weight" else f"transformer.{name}", shape, ours, _unchanged
        )
    ]


def _third(index: int, width: int) -> Callable[[FloatArray], FloatArray]:
    return lambda array: array[index * width : (index + 1) * width]
