"""LoRA: the layers' matrices are frozen, and a product of two thin matrices is learned beside each.

W x + (alpha / rank) B A x, with B zero at first. Merged, a checkpoint is like any other and costs
nothing at run time; unmerged, it is an adapter of the base. Rank 0 trains the head and the task's
tokens alone. Source: Hu et al. 2022, section 4.1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt_edge.arrays import FloatArray
from gpt_edge.config import GPTConfig
from gpt_edge.onnx_contract import TASK_TOKENS
from gpt_edge.reference.heads import TaskModel
from gpt_edge.reference.model import Block

PARTS = ("lora_a", "lora_b")


class LoRALinear(nn.Linear):
    """A linear layer with frozen weights, and its low-rank correction."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(linear.in_features, linear.out_features, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.scale = alpha / rank
        self.lora_a = nn.Parameter(torch.empty(rank, linear.in_features))
        self.lora_b = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))  # as in the authors' code

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return (
            F.linear(x, self.weight, self.bias)
            + F.linear(F.linear(x, self.lora_a), self.lora_b) * self.scale
        )

    def merged(self) -> Tensor:
        """The single matrix [out, in] that computes the same."""
        return self.weight.detach() + self.scale * (self.lora_b.detach() @ self.lora_a.detach())


def check_rank(rank: int, config: GPTConfig) -> None:
    """Raise ValueError for a rank below 0 or beyond the model's width."""
    if not 0 <= rank <= config.n_embd:
        raise ValueError(
            f"the LoRA rank must be from 0 to the model's width {config.n_embd}, got {rank}"
        )


def add_lora(model: TaskModel, rank: int, alpha: float) -> None:
    """Freeze `model` except its head and its three new embeddings, and add a correction to every
    matrix of its layers; none for rank 0.

    Raises ValueError as `check_rank` does.
    """
    check_rank(rank, model.gpt.config)
    model.gpt.requires_grad_(False)
    for block in model.gpt.blocks() if rank else ():
        _replace(block, rank, alpha)
    spec = model.spec
    is_new = torch.zeros(model.gpt.config.vocab_size, 1)
    is_new[list(spec.tokens)] = 1
    for embedding in {model.gpt.wte.weight, model.gpt.lm_head.weight}:  # one where they are tied
        embedding.requires_grad_(True)
        embedding.register_hook(lambda gradient: gradient * is_new)  # type: ignore[no-untyped-call]  # torch's own gap


def _replace(block: Block, rank: int, alpha: float) -> None:
    for module in (block.attn, block.mlp):
        for name, layer in list(module.named_children()):
            if isinstance(layer, nn.Linear):
                setattr(module, name, LoRALinear(layer, rank, alpha))


def merged_tensors(model: TaskModel) -> dict[str, Tensor]:
    """`model.tensors()` with every correction added to its matrix; without LoRA unchanged."""
    tensors = model.tensors()
    for name, module in model.gpt.named_modules():
        if isinstance(module, LoRALinear):
            tensors[f"{name}.weight"] = module.merged()
            for part in PARTS:
                del tensors[f"{name}.{part}"]
    return tensors


def adapter_arrays(model: TaskModel) -> dict[str, FloatArray]:
    """What was learned beside the frozen weights, as `TrainedAdapter.arrays`."""
    rows = model.gpt.wte.weight.detach()[list(model.spec.tokens)]
    tensors = {TASK_TOKENS: rows}
    for name, module in model.gpt.named_modules():
        if isinstance(module, LoRALinear):
            tensors[f"{name}.{PARTS[0]}"] = module.lora_a.detach().T
            tensors[f"{name}.{PARTS[1]}"] = module.lora_b.detach().T * module.scale
    return {name: tensor.cpu().contiguous().numpy().copy() for name, tensor in tensors.items()}
