"""The reference GPT in PyTorch: one file, in the order of the papers. Everything else is compared
with it.

GPT-1 (Radford et al. 2018): post-layer-norm. GPT-2 (Radford et al. 2019): pre-layer-norm, `ln_f`,
residual projections initialized with 0.02 / sqrt(2 n_layer). GPT-3 (Brown et al. 2020): dense and
locally banded layers in turn. Linear weights are stored [out, in]. Knows nothing of text, files or
ONNX.
"""

from __future__ import annotations

import functools
import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from gpt_edge.config import GPTConfig

KeyValue = tuple[Tensor, Tensor]  # each [B, H, P, D]
Attend = Callable[[Tensor], Tensor]  # [B, T, C] -> [B, T, C]
FILLS = (Tensor.normal_, Tensor.uniform_, Tensor.zero_, Tensor.fill_)


class WithoutValues(TorchFunctionMode):
    """Create modules whose weights are not initialized: where tensors hold no values, torch's
    initialization takes longer than the rest of a module.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Return the tensor as it is where a function would initialize it."""
        options = kwargs or {}
        if func in FILLS or getattr(func, "__module__", None) == nn.init.__name__:
            return args[0] if args else options["tensor"]
        return func(*args, **options)


@contextmanager
def without_memory() -> Iterator[None]:
    """Create modules that have shapes and no values, for weights that are loaded afterwards with
    `assign`.

    With a process's first such module torch leaves an exception whose frames hold the module in a
    reference cycle; unless it is collected here, the weights stay in memory until Python's next
    collection.
    """
    with torch.device("meta"), WithoutValues():
        yield
    _collect_once()


@functools.cache
def _collect_once() -> None:
    gc.collect()


def activate(x: Tensor, kind: str) -> Tensor:
    """The MLP's non-linearity. Source: Hendrycks and Gimpel 2016; GPT-1 and GPT-2 use the tanh
    form.
    """
    if kind == "relu":
        return F.relu(x)
    return F.gelu(x, approximate="tanh" if kind == "gelu_tanh" else "none")


def causal_mask(n_past: int, n_new: int, window: int | None, device: torch.device) -> Tensor:
    """bool [T, P + T], true where a new token may attend: to itself and to the tokens before it, at
    most `window` positions in all.
    """
    query = torch.arange(n_past, n_past + n_new, device=device)[:, None]
    key = torch.arange(n_past + n_new, device=device)[None, :]
    visible = key <= query
    return visible if window is None else visible & (key > query - window)


class CausalSelfAttention(nn.Module):
    """Multi-head attention of one layer (Vaswani et al. 2017, section 3.2.2), with past keys and
    values.
    """

    def __init__(self, config: GPTConfig, layer: int, dropout: float) -> None:
        super().__init__()
        self.n_head, self.scale = config.n_head, config.attention_scale
        self.window = config.layer_window(layer)
        self.dropout = dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.resid_dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, past: KeyValue | None, mask: Tensor | None
    ) -> tuple[Tensor, KeyValue]:
        """x [B, T, C], past [B, H, P, D] twice, mask bool broadcast to [B, H, T, P + T] or None for
        plain causal.

        Returns [B, T, C] and the keys and values [B, H, P + T, D] of all positions.
        """
        B, T, C = x.shape
        # [B, H, T, D]
        q, k, v = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head).permute(2, 0, 3, 1, 4)
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=self.scale,
            dropout_p=self.dropout if self.training else 0.0,
        )  # fmt: skip
        return self.resid_dropout(self.c_proj(y.transpose(1, 2).reshape(B, T, C))), (k, v)


class MLP(nn.Module):
    """Position-wise feed-forward network (Vaswani et al. 2017, section 3.3)."""

    def __init__(self, config: GPTConfig, dropout: float) -> None:
        super().__init__()
        self.activation = config.activation
        self.c_fc = nn.Linear(config.n_embd, config.inner_size)
        self.c_proj = nn.Linear(config.inner_size, config.n_embd)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] -> [B, T, C]."""
        y: Tensor = self.dropout(self.c_proj(activate(self.c_fc(x), self.activation)))
        return y


class Block(nn.Module):
    """One layer. The attention is passed in, so the exporter can reuse this wiring."""

    def __init__(self, config: GPTConfig, layer: int, dropout: float) -> None:
        super().__init__()
        self.is_post_norm = config.norm == "post"
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = CausalSelfAttention(config, layer, dropout)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config, dropout)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        """[B, T, C] -> [B, T, C]."""
        if self.is_post_norm:
            n: Tensor = self.ln_1(x + attend(x))
            h: Tensor = self.ln_2(n + self.mlp(n))
            return h
        x = x + attend(self.ln_1(x))
        y: Tensor = x + self.mlp(self.ln_2(x))
        return y


class GPT(nn.Module):
    """Token ids to next-token logits. `dropout` acts on embeddings, attention weights and
    residuals, in training only.
    """

    def __init__(self, config: GPTConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_ctx, config.n_embd)
        self.drop = nn.Dropout(dropout)
        self.h = nn.ModuleList(Block(config, layer, dropout) for layer in range(config.n_layer))
        self.ln_f = (
            nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
            if config.norm == "pre"
            else nn.Identity()
        )
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tied_embeddings:
            self.lm_head.weight = self.wte.weight
        self.apply(self._initialize)

    def _initialize(self, module: nn.Module) -> None:
        """N(0, 0.02); in GPT-2's code wpe N(0, 0.01), residual projections scaled (Radford et al.
        2019, section 2.3).
        """
        if isinstance(module, nn.Linear | nn.Embedding):
            is_gpt2_positions = module is self.wpe and self.config.norm == "pre"
            nn.init.normal_(module.weight, std=0.01 if is_gpt2_positions else 0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, Block) and not module.is_post_norm:
            for projection in (module.attn.c_proj, module.mlp.c_proj):
                nn.init.normal_(projection.weight, std=0.02 / math.sqrt(2 * self.config.n_layer))

    def embed(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        """int64 [B, T] twice -> [B, T, C]."""
        x: Tensor = self.drop(self.wte(input_ids) + self.wpe(position_ids))
        return x

    def blocks(self) -> list[Block]:
        """The layers, typed as Block."""
        return [block for block in self.h if isinstance(block, Block)]

    def hidden(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        past_key_values: Sequence[KeyValue] | None = None,
        attention_mask: Tensor | None = None,
    ) -> tuple[Tensor, list[KeyValue]]:
        """The input of the head, [B, T, C], and the keys and values of every layer. Arguments as in
        `forward`.
        """
        T = input_ids.shape[1]
        n_past = past_key_values[0][0].shape[2] if past_key_values is not None else 0
        if position_ids is None:
            position_ids = torch.arange(n_past, n_past + T, device=input_ids.device)[None]
        x = self.embed(input_ids, position_ids)
        masks = self._masks(n_past, T, attention_mask, x.device)
        present: list[KeyValue] = []
        for i, block in enumerate(self.blocks()):
            attn, past = block.attn, past_key_values[i] if past_key_values is not None else None
            mask = masks[attn.window]

            def attend(
                n: Tensor,
                attn: CausalSelfAttention = attn,
                past: KeyValue | None = past,
                mask: Tensor | None = mask,
            ) -> Tensor:
                y: Tensor
                y, key_value = attn(n, past, mask)
                present.append(key_value)
                return y

            x = block(x, attend)
        return self.ln_f(x), present

    def _masks(
        self, n_past: int, n_new: int, attention_mask: Tensor | None, device: torch.device
    ) -> dict[int | None, Tensor | None]:
        """One mask for each window in use, bool [T, P + T] or [B, 1, T, P + T]; None where plain
        causal attention is enough.
        """
        masks: dict[int | None, Tensor | None] = {}
        for window in {block.attn.window for block in self.blocks()}:
            if window is None and attention_mask is None and n_past == 0:
                masks[window] = None
                continue
            mask = causal_mask(n_past, n_new, window, device)
            if attention_mask is not None:
                # A padded query attends to itself: a row that attends to nothing would be NaN, and
                # spread through its values.
                itself = causal_mask(n_past, n_new, 1, device)
                mask = mask & ((attention_mask[:, None, None, :] != 0) | itself)
            masks[window] = mask
        return masks

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        past_key_values: Sequence[KeyValue] | None = None,
        attention_mask: Tensor | None = None,
    ) -> tuple[Tensor, list[KeyValue]]:
        """Return logits [B, T, V] and, per layer, keys and values [B, H, P + T, D].

        input_ids: int64 [B, T]. position_ids: int64 [B, T], P .. P + T - 1 by default.
        past_key_values: what an earlier call returned. attention_mask: [B, P + T], 0 for padding. P
        + T must not exceed n_ctx.
        """
        x, present = self.hidden(input_ids, position_ids, past_key_values, attention_mask)
        return self.lm_head(x), present
