"""The optimizer and its schedule: AdamW with decay groups, linear warm-up, then cosine; Muon for
the matrices, optionally.

Sources: Loshchilov and Hutter 2019 (AdamW, cosine); GPT-1 section 4.1 (warm-up); GPT-3 appendix B
(betas, clipping, weight decay 0.1); Jordan et al. 2024 (Muon).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from gpt_edge.training.processes import sharded_like
from gpt_edge.training.recipe import TrainingSection


def learning_rate_factor(step: int, training: TrainingSection) -> float:
    """The factor of every peak rate at `step`, counted from 0: linear up to 1, then a cosine down.

    Up to `constant_until` it stays at 1, so the length of a run can still be changed until then.
    """
    if step < training.warmup_steps:
        return (step + 1) / training.warmup_steps
    start = max(training.warmup_steps, training.constant_until)
    done = min(1.0, max(0, step - start) / max(1, training.steps - start))
    low = training.final_learning_rate
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done))


def decay_groups(
    model: nn.Module,
) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Return the matrices of the layers, the embeddings, and the rest: biases and norms, which have
    no weight decay.

    A tied parameter occurs once.
    """
    matrices, embeddings, rest = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            rest.append(parameter)
        elif name.startswith("h."):
            matrices.append(parameter)
        else:
            embeddings.append(parameter)
    return matrices, embeddings, rest


class Optimizer:
    """One or two torch optimizers that step together, and the schedule of their rates."""

    def __init__(self, model: nn.Module, training: TrainingSection) -> None:
        self._training = training
        matrices, embeddings, rest = decay_groups(model)
        decay = training.weight_decay
        betas = (training.beta1, training.beta2)
        self._parts: list[torch.optim.Optimizer] = []
        decayed = matrices + embeddings
        if training.optimizer == "muon":
            decayed = embeddings
            self._parts.append(
                torch.optim.Muon(
                    matrices, lr=training.matrix_learning_rate, weight_decay=decay, momentum=0.95
                )
            )
        groups = [{"params": decayed, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
        self._parts.append(
            torch.optim.AdamW(groups, lr=training.learning_rate, betas=betas, fused=True)
        )
        self._parameters = matrices + embeddings + rest
        self._peaks = [[group["lr"] for group in part.param_groups] for part in self._parts]

    def norm(self) -> float:
        """The norm of the whole gradient."""
        total = torch.nn.utils.get_total_norm(
            [p.grad for p in self._parameters if p.grad is not None]
        )
        return (total.full_tensor() if isinstance(total, DTensor) else total).item()

    def step(self, step: int, norm: float = 0.0) -> None:
        """Update the weights at the rate of `step` and clear the gradients.

        norm: the gradient's, from `norm`; a gradient with a larger norm than clip_norm is scaled
        down to it (Pascanu et al. 2013).
        """
        factor = learning_rate_factor(step, self._training)
        clip = self._training.clip_norm
        if norm > clip:
            torch._foreach_mul_(
                [p.grad for p in self._parameters if p.grad is not None], clip / (norm + 1e-6)
            )
        for part, peaks in zip(self._parts, self._peaks, strict=True):
            for group, peak in zip(part.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            part.step()
            part.zero_grad(set_to_none=True)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The state of the optimizers: names `part.parameter.moment`, and tensors."""
        for i, part in enumerate(self._parts):
            # in the same order in every process: sharded tensors are gathered one by one
            for index, moments in sorted(part.state_dict()["state"].items()):
                for name, value in sorted(moments.items()):
                    yield f"{i}.{index}.{name}", value

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Restore the state that `tensors` returned."""
        for i, part in enumerate(self._parts):
            ordered = [parameter for group in part.param_groups for parameter in group["params"]]
            state: dict[int, dict[str, Tensor]] = {}
            for name, value in tensors.items():
                of_part, index, moment = name.split(".", 2)
                if int(of_part) == i:
                    state.setdefault(int(index), {})[moment] = sharded_like(
                        value, ordered[int(index)]
                    )
            part.load_state_dict(
                {"state": state, "param_groups": part.state_dict()["param_groups"]}
            )
