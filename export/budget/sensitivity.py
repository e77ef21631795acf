"""Sensitivity to quantizing one tensor: the reference with only that tensor changed, compared with
the reference.

The change is what the kernels compute (onnxruntime 1.31.1, checked to 1e-6 by the tests): the
weight is quantized, and the input of its product is quantized to 8 bits by row and block
(MatMulNBits at accuracy level 4), by row, or not at all. Layers before the changed one are computed
once for all formats. The losses of different tensors are small and nearly independent, so their KLs
nearly add up; `search.py` measures the loss of a whole assignment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt_edge import onnx_contract
from gpt_edge.config import GPTConfig
from gpt_edge.export.budget.calibrated_rounding import Rounder
from gpt_edge.export.budget.calibration import Rows, batches, run_block
from gpt_edge.export.budget.degradation import Degradation, DegradationSum
from gpt_edge.export.formats.tensor_format import TensorFormat
from gpt_edge.export.graph.lower_edge import LOW_ZERO_POINT, UINT8_MIDDLE
from gpt_edge.export.weights.reference_operators import LINEARS
from gpt_edge.export.weights.source import unpad_heads
from gpt_edge.reference.model import GPT


def round_activations(
    x: Tensor, form: TensorFormat, block_size: int, zero_point: int = UINT8_MIDDLE
) -> Tensor:
    """x [..., K] as the kernel of `form` quantizes it, ties to even.

    By block, and by row with the zero point 128: symmetric, 127 levels on each side. By row with a
    lower zero point, as after an activation function: 255 - zero_point levels above zero.
    """
    if form.activations == "float":
        return x
    if form.activations == "row" and zero_point != UINT8_MIDDLE:
        scale = x.amax(-1, keepdim=True) / (255 - zero_point)
        if zero_point:
            scale = torch.maximum(scale, x.amin(-1, keepdim=True) / -zero_point)
        inverse = torch.where(scale == 0, 0.0, 1.0 / scale)
        return (x * inverse).round().clamp(-zero_point, 255 - zero_point) * scale
    k = x.shape[-1]
    size = k if form.activations == "row" else block_size
    padded = F.pad(x, (0, -k % size))
    blocks = padded.reshape(*x.shape[:-1], -1, size)
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    inverse = torch.where(scale == 0, 0.0, 1.0 / scale)
    rounded: Tensor = ((blocks * inverse).round() * scale).flatten(-2)[..., :k]
    return rounded


class QuantizedLinear(nn.Module):
    """A linear layer as a quantized graph computes it."""

    def __init__(
        self,
        name: str,
        weight: Tensor,
        bias: Tensor | None,
        form: TensorFormat,
        config: GPTConfig,
        graph: str,
    ) -> None:
        super().__init__()
        self.weight, self.bias, self.form = weight, bias, form
        self.heads, self.zero_point = None, UINT8_MIDDLE
        if name.endswith("mlp.c_proj.weight"):
            self.zero_point = 0 if config.activation == "relu" else LOW_ZERO_POINT
        if graph == "edge" and name.endswith("attn.c_proj.weight"):
            self.heads = (
                config.n_head,
                onnx_contract.cache_head_size(config, graph) - config.head_size,
            )
        self.n_inputs = weight.shape[1] + (self.heads[0] * self.heads[1] if self.heads else 0)

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., N]."""
        size = self.form.block_for(self.n_inputs)
        if self.heads is None or not self.heads[1]:
            return F.linear(
                round_activations(x, self.form, size, self.zero_point), self.weight, self.bias
            )
        padded = F.pad(x.reshape(*x.shape[:-1], self.heads[0], -1), (0, self.heads[1])).flatten(-2)
        rounded = round_activations(padded, self.form, size).reshape(
            *x.shape[:-1], self.heads[0], -1
        )
        return F.linear(rounded[..., : -self.heads[1]].flatten(-2), self.weight, self.bias)


class SensitivityProbe:
    """The reference, a text, and the reference's logits on it. graph: "edge" or "portable"."""

    def __init__(self, model: GPT, rows: Rows, graph: str, rounder: Rounder) -> None:
        self._model = model
        self._graph = graph
        self._rounder = rounder
        ids = torch.from_numpy(rows.ids)
        self._batches = [(ids[batch, :-1], ids[batch, 1:]) for batch in batches(rows.ids)]
        self._reference: list[Tensor] = []

    @torch.inference_mode()
    def sensitivities(
        self,
        formats: Mapping[str, Iterable[TensorFormat]],
        progress: Callable[[str], None] = lambda name: None,
    ) -> dict[str, dict[TensorFormat, Degradation]]:
        """For each named weight and format, the Degradation of that change alone. Formats of 32
        bits lose nothing.
        """
        model = self._model
        losses: dict[str, dict[TensorFormat, Degradation]] = {}
        states = self._embed()
        self._reference = [model.lm_head(self._run(x, 0)).flatten(0, 1) for x in states]
        if "wte.weight" in formats:
            losses["wte.weight"] = {
                form: self._of_table(form)
                for form in self._reported("wte.weight", formats, progress)
            }
        for layer, block in enumerate(model.blocks()):
            for linear in LINEARS:
                if (name := f"h.{layer}.{linear}.weight") in formats:
                    parent, _, leaf = linear.partition(".")
                    owner = block.get_submodule(parent)
                    losses[name] = {
                        form: self._of_linear(owner, leaf, name, form, states, layer)
                        for form in self._reported(name, formats, progress)
                    }
            for i, x in enumerate(states):
                states[i] = run_block(block, x)
        if "lm_head.weight" in formats:
            losses["lm_head.weight"] = {
                form: self._of_linear(
                    model, "lm_head", "lm_head.weight", form, states, len(model.h)
                )
                for form in self._reported("lm_head.weight", formats, progress)
            }
        self._reference = []
        return losses

    def _reported(
        self,
        name: str,
        formats: Mapping[str, Iterable[TensorFormat]],
        progress: Callable[[str], None],
    ) -> Iterable[TensorFormat]:
        progress("measuring the loss of each tensor")
        for form in formats[name]:
            progress(name)
            yield form

    def _embed(self) -> list[Tensor]:
        return [
            self._model.embed(ids, torch.arange(ids.shape[1])[None]) for ids, _ in self._batches
        ]

    def _run(self, x: Tensor, layer: int) -> Tensor:
        """From the input of `layer` to the input of the head."""
        for block in self._model.blocks()[layer:]:
            x = run_block(block, x)
        y: Tensor = self._model.ln_f(x)
        return y

    def _measure(self, states: list[Tensor], layer: int) -> Degradation:
        total = DegradationSum()
        for x, reference, (_, targets) in zip(states, self._reference, self._batches, strict=True):
            total.add(
                reference, self._model.lm_head(self._run(x, layer)).flatten(0, 1), targets.flatten()
            )
        return total.result()

    def _of_linear(
        self,
        owner: nn.Module,
        leaf: str,
        name: str,
        form: TensorFormat,
        states: list[Tensor],
        layer: int,
    ) -> Degradation:
        original = getattr(owner, leaf)
        setattr(owner, leaf, self._quantized(name, original, form))
        degradation = self._measure(states, layer)
        setattr(owner, leaf, original)
        return degradation

    def _of_table(self, form: TensorFormat) -> Degradation:
        """The embedding; where the head is tied to it, both."""
        model = self._model
        table, head = model.wte.weight, model.lm_head
        rounded = self._quantized(
            "wte.weight", head if model.config.tied_embeddings else model.wte, form
        )
        model.wte.weight = nn.Parameter(rounded.weight, requires_grad=False)
        if model.config.tied_embeddings:
            model.register_module("lm_head", rounded)
        degradation = self._measure(self._embed(), 0)
        model.wte.weight, model.lm_head = table, head
        return degradation

    def _quantized(self, name: str, module: nn.Module, form: TensorFormat) -> QuantizedLinear:
        weight, config = module.weight, self._model.config
        assert isinstance(weight, Tensor)
        bias = getattr(module, "bias", None)
        if form.is_float:
            changed = weight.half().float() if form.bits == 16 else weight
            return QuantizedLinear(name, changed, bias, form, config, self._graph)
        padded = self._rounder.padded(name, weight.numpy())
        values = self._rounder(name, padded, form).dequantize(padded.shape[1])
        if self._graph == "edge":
            values = unpad_heads(name, values, config)
        return QuantizedLinear(name, torch.from_numpy(values), bias, form, config, self._graph)
