"""GPTConfig: the one description of a model's shape, and the papers' presets.

Sources: GPT-1 (Radford et al. 2018, section 4.1), GPT-2 (Radford et al. 2019, table 2),
GPT-3 (Brown et al. 2020, section 2.1 and table 2.1). Knows nothing of weights.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NORMS = ("pre", "post")
ATTENTIONS = ("dense", "banded")
ACTIVATIONS = ("gelu_tanh", "gelu", "relu")
# a larger layer, width, context or vocabulary is a corrupt file, not a small GPT
MAX_DIMENSION = 1 << 20


@dataclass(frozen=True, slots=True)
class GPTConfig:
    """Shape and wiring of a GPT. Raises ValueError for values that no model can have.

    norm: "post" is GPT-1's wiring (no final norm), "pre" GPT-2's (plus `ln_f`).
    attention: a pattern repeated over the layers; "banded" sees only the last `window` positions,
    its own included.
    """

    n_layer: int
    n_head: int
    n_embd: int
    n_ctx: int
    vocab_size: int
    norm: str = "pre"
    attention: tuple[str, ...] = ("dense",)
    window: int | None = None  # tokens; required if and only if a layer is banded
    activation: str = "gelu_tanh"
    layer_norm_epsilon: float = 1e-5
    n_inner: int | None = None  # width of the MLP; None is 4 * n_embd
    scale_attention: bool = True  # GPT-Neo leaves out the division by sqrt(D)
    tied_embeddings: bool = True  # the head shares wte
    # outputs of a fine-tuned model's task head; None is a language model alone
    n_label: int | None = None
    # a base: no head of its own, and room for adapters, which bring one; the last three rows of its
    # vocabulary are theirs
    takes_adapters: bool = False

    def __post_init__(self) -> None:
        for name in ("n_layer", "n_head", "n_embd", "n_ctx", "vocab_size"):
            _check_size(name, getattr(self, name))
        for name in ("window", "n_inner", "n_label"):
            if getattr(self, name) is not None:
                _check_size(name, getattr(self, name))
        if self.n_embd % self.n_head:
            raise ValueError(
                f"n_embd must be a multiple of n_head, got {self.n_embd} and {self.n_head}"
            )
        if self.takes_adapters and self.n_label is not None:
            raise ValueError(f"a base of adapters has no n_label, got {self.n_label}")
        _check_choice("norm", self.norm, NORMS)
        _check_choice("activation", self.activation, ACTIVATIONS)
        object.__setattr__(self, "attention", tuple(self.attention))
        if not self.attention:
            raise ValueError("attention must name at least one kind, got an empty pattern")
        for kind in self.attention:
            _check_choice("attention", kind, ATTENTIONS)
        if ("banded" in self.attention) != (self.window is not None):
            raise ValueError(
                f"window must be given exactly with banded attention, got {self.window} and "
                f"{self.attention}"
            )
        if not 0 < self.layer_norm_epsilon <= sys.float_info.max:  # a whole number may be more
            raise ValueError(
                f"layer_norm_epsilon must be finite and > 0, got {self.layer_norm_epsilon}"
            )

    @property
    def head_size(self) -> int:
        """D, the width of one head."""
        return self.n_embd // self.n_head

    @property
    def inner_size(self) -> int:
        """Width of the MLP's hidden layer."""
        return self.n_inner if self.n_inner is not None else 4 * self.n_embd

    @property
    def is_encoder(self) -> bool:
        """Whether its graphs process whole sequences at once, without a past: a task's and a
        base's.
        """
        return self.n_label is not None or self.takes_adapters

    @property
    def attention_scale(self) -> float:
        """What q·k is multiplied by before the softmax."""
        return 1.0 / math.sqrt(self.head_size) if self.scale_attention else 1.0

    def layer_window(self, layer: int) -> int | None:
        """How many positions `layer` sees, its own included; None sees all."""
        return self.window if self.attention[layer % len(self.attention)] == "banded" else None

    @property
    def n_parameters(self) -> int:
        """Weights and biases, the tied embedding counted once."""
        c, f = self.n_embd, self.inner_size
        block = (c * 3 * c + 3 * c) + (c * c + c) + (c * f + f) + (f * c + c) + 4 * c
        final_norm = 2 * c if self.norm == "pre" else 0
        embeddings = self.vocab_size * c * (1 if self.tied_embeddings else 2) + self.n_ctx * c
        task_head = (c + 1) * self.n_label if self.n_label else 0
        return embeddings + self.n_layer * block + final_norm + task_head

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` gives the same config back."""
        values = {**dataclasses.asdict(self), "attention": list(self.attention)}
        # a language model's description is what it was before there were tasks
        if self.n_label is None:
            del values["n_label"]
        if not self.takes_adapters:
            del values["takes_adapters"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GPTConfig:
        """Raises ValueError for unknown, missing or mistyped fields, naming them."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        required = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
        if unknown := sorted(set(values) - set(fields)):
            raise ValueError(f"unknown config fields: {', '.join(unknown)}")
        if missing := sorted(required - set(values)):
            raise ValueError(f"missing config fields: {', '.join(missing)}")
        for name in ("scale_attention", "tied_embeddings", "takes_adapters"):
            if not isinstance(values.get(name, True), bool):
                raise ValueError(f"{name} must be true or false, got {values[name]!r}")
        if isinstance(values.get("attention"), str) or not isinstance(
            values.get("attention", []), list | tuple
        ):
            raise ValueError(f"attention must be a list, got {values['attention']!r}")
        epsilon = values.get("layer_norm_epsilon", 1e-5)
        if isinstance(epsilon, bool) or not isinstance(epsilon, int | float):
            raise ValueError(f"layer_norm_epsilon must be a number, got {epsilon!r}")
        return cls(**values)


def _check_size(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_DIMENSION:
        raise ValueError(f"{name} must be a whole number from 1 to {MAX_DIMENSION}, got {value!r}")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _gpt2(n_layer: int, n_head: int, n_embd: int) -> GPTConfig:
    return GPTConfig(n_layer=n_layer, n_head=n_head, n_embd=n_embd, n_ctx=1024, vocab_size=50257)


PRESETS: dict[str, GPTConfig] = {
    "gpt1": GPTConfig(n_layer=12, n_head=12, n_embd=768, n_ctx=512, vocab_size=40478, norm="post"),
    "gpt2": _gpt2(12, 12, 768),
    "gpt2-medium": _gpt2(24, 16, 1024),
    "gpt2-large": _gpt2(36, 20, 1280),
    "gpt2-xl": _gpt2(48, 25, 1600),
    # Brown et al. do not state the band's width; 256 is the choice of GPT-Neo, the public weights
    # of this kind.
    "gpt3-small": GPTConfig(
        n_layer=12,
        n_head=12,
        n_embd=768,
        n_ctx=2048,
        vocab_size=50257,
        attention=("dense", "banded"),
        window=256,
    ),
}
