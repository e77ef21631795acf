"""A model with outliers that says the same: what breaks 8-bit rounding, planted where it can be
measured.
"""

from __future__ import annotations

import torch

from gpt_edge.reference.model import GPT


def plant_outliers(model: GPT, times: float = 100.0) -> list[int]:
    """One channel of each layer x `times`, compensated in what reads it: the logits stay. Returns
    the channels.

    Behind each norm of a pre-norm model the gain and bias of a channel grow and the column that
    reads it shrinks; so does a channel of the values, which attention passes on as it is.
    """
    width = model.config.n_embd
    channels = [(7 * layer + 3) % width for layer in range(model.config.n_layer)]
    with torch.no_grad():
        for channel, block in zip(channels, model.blocks(), strict=True):
            if not block.is_post_norm:
                for norm, reader in ((block.ln_1, block.attn.c_attn), (block.ln_2, block.mlp.c_fc)):
                    norm.weight[channel] *= times
                    norm.bias[channel] *= times
                    reader.weight[:, channel] /= times
            for parameter in (block.attn.c_attn.weight, block.attn.c_attn.bias):
                parameter[2 * width + channel] *= times
            block.attn.c_proj.weight[:, channel] /= times
    return channels
