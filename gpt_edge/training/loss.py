"""The loss of a batch as one module: what DDP and FSDP wrap, and what torch.compile compiles."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gpt_edge.reference.model import GPT, Block, CausalSelfAttention, causal_mask
from gpt_edge.training.corpus.batches import IGNORED

SHORT_ROW = 128  # tokens; at 256 both attentions took as long, at 512 the fused kernel took less


class BatchLoss(nn.Module):
    """A GPT and its cross entropy. With `activation_checkpointing` the backward pass computes a
    layer's activations again.

    Source of the latter: Chen et al. 2016, Training deep nets with sublinear memory cost.
    """

    def __init__(self, model: GPT, activation_checkpointing: bool = False) -> None:
        super().__init__()
        self.model = model
        self.activation_checkpointing = activation_checkpointing

    def forward(self, inputs: Tensor, targets: Tensor, positions: Tensor) -> Tensor:
        """Sum of -log p(target), float32, in nats.

        inputs, targets: int64 [B, T]; targets that are IGNORED do not count. positions: [1, T].
        """
        x = self.model.embed(inputs, positions)
        for block in self.model.blocks():
            if self.activation_checkpointing:
                x = checkpoint(_layer, block, x, use_reentrant=False)
            else:
                x = _layer(block, x)
        logits = self.model.lm_head(self.model.ln_f(x))
        return F.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )


def _layer(block: Block, x: Tensor) -> Tensor:
    """One layer, without the keys and values that `GPT.hidden` would cache."""
    attn = block.attn
    if x.device.type == "cpu" and x.shape[1] <= SHORT_ROW and torch.is_autocast_enabled("cpu"):
        y: Tensor = block(x, lambda n: unfused_attention(attn, n))
    else:
        mask = None
        if attn.window is not None:
            mask = causal_mask(0, x.shape[1], attn.window, x.device)
        y = block(x, lambda n: attn(n, None, mask)[0])
    return y


def unfused_attention(attn: CausalSelfAttention, x: Tensor) -> Tensor:
    """The output of `attn` without a past, [B, T, C]: two matrix products with a softmax between.

    For bfloat16 and short rows on CPUs, where the backward pass of torch 2.13's fused kernel is
    slow: 9 ms a layer in a profile of 4 heads and 12 rows of 64. Memory grows with T squared.
    """
    B, T, C = x.shape
    # [B, H, T, D]
    q, k, v = attn.c_attn(x).view(B, T, 3, attn.n_head, C // attn.n_head).permute(2, 0, 3, 1, 4)
    scores = (q * attn.scale) @ k.transpose(-2, -1)  # [B, H, T, T]
    scores = scores.masked_fill(~causal_mask(0, T, attn.window, x.device), -torch.inf)
    weights = F.dropout(scores.float().softmax(-1), attn.dropout, attn.training).to(v.dtype)
    y: Tensor = attn.resid_dropout(attn.c_proj((weights @ v).transpose(1, 2).reshape(B, T, C)))
    return y
